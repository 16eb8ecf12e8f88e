package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/dir"
	"github.com/united-containers/ucn/kit/fault"
)

// MaxTree bounds how many files and directories one tree has.
const MaxTree = 1_000_000

// Reasons of trees that are not moved.
const (
	// ReasonSpecial: something is neither a file nor a directory, such as a link or a device.
	ReasonSpecial fault.Reason = "NOT_A_FILE"
	// ReasonTooMany: more than MaxTree files and directories.
	ReasonTooMany fault.Reason = "TREE_TOO_LARGE"
)

// Tree says how a tree is moved.
type Tree struct {
	// Name and Job label the root's reference.
	Name, Job string
	// Wrap is given the bytes of every file on their way, to count them; nil wraps nothing.
	Wrap func(path string, r io.Reader) io.Reader
}

// PutTree stores a tree of files, each directory after what is in it, and returns the root. It
// reads nothing outside from. Links and special files are refused by name (ReasonSpecial) before
// anything is sent. Repeating it after a failure is harmless.
func (c *Client) PutTree(ctx context.Context, t Tree, from *os.Root) (Stored, error) {
	n := 0
	err := fs.WalkDir(from.FS(), ".", func(at string, d fs.DirEntry, err error) error {
		switch n++; {
		case err != nil:
			return err
		case n > MaxTree:
			return fault.New(fault.InvalidArgument, ReasonTooMany,
				"the tree has more than %d files and directories", MaxTree)
		case !d.IsDir() && !d.Type().IsRegular():
			return fault.New(fault.InvalidArgument, ReasonSpecial,
				"%s is neither a file nor a directory, and is not followed", at)
		case at != ".":
			return dir.CheckName(path.Base(at))
		}
		return nil
	})
	if err != nil {
		return Stored{}, fmt.Errorf("look at the tree: %w", err)
	}
	p := &treePut{c: c, tree: t, from: from}
	return p.directory(ctx, ".", 0)
}

type treePut struct {
	c    *Client
	tree Tree
	from *os.Root
}

func (p *treePut) directory(ctx context.Context, at string, depth int) (Stored, error) {
	if depth > dir.MaxDepth {
		return Stored{}, fault.New(fault.InvalidArgument, dir.ReasonBad,
			"%s lies more than %d directories deep", at, dir.MaxDepth)
	}
	list, err := fs.ReadDir(p.from.FS(), at) // sorted by name
	if err != nil {
		return Stored{}, err
	}
	entries := make([]dir.Entry, 0, len(list))
	for _, d := range list {
		if err := ctx.Err(); err != nil {
			return Stored{}, err
		}
		info, err := d.Info()
		if err != nil {
			return Stored{}, err
		}
		e := dir.Entry{Name: d.Name(), Mode: uint32(info.Mode().Perm())}
		inner := path.Join(at, d.Name())
		var stored Stored
		if d.IsDir() {
			stored, err = p.directory(ctx, inner, depth+1)
		} else {
			stored, err = p.file(ctx, inner)
		}
		if err != nil {
			return Stored{}, err
		}
		e.CID, e.Size = stored.CID, stored.Size
		entries = append(entries, e)
	}
	return p.put(ctx, at, entries)
}

// put stores a directory; the size that it returns is that of all files inside.
func (p *treePut) put(ctx context.Context, at string, entries []dir.Entry) (Stored, error) {
	raw, named, err := dir.Encode(entries)
	if err != nil {
		return Stored{}, fmt.Errorf("%s: %w", at, err)
	}
	one := Put{Kind: cid.Directory, Size: int64(len(raw)), Expect: named}
	if at == "." {
		one.Name, one.Job = p.tree.Name, p.tree.Job
	}
	stored, err := p.c.Put(ctx, one, bytes.NewReader(raw))
	if err != nil {
		return Stored{}, fmt.Errorf("store the directory %s: %w", at, err)
	}
	stored.Size = dir.Total(entries)
	return stored, nil
}

func (p *treePut) file(ctx context.Context, at string) (stored Stored, err error) {
	file, err := p.from.Open(at)
	if err != nil {
		return Stored{}, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	var from io.Reader = file
	if p.tree.Wrap != nil {
		from = p.tree.Wrap(at, file)
	}
	if stored, err = p.c.Put(ctx, Put{Kind: cid.File}, from); err != nil {
		return Stored{}, fmt.Errorf("store %s: %w", at, err)
	}
	return stored, nil
}

// GetTree writes the tree with a root into an empty folder, every byte verified. It writes nothing
// outside it, whatever the directories say. A failure leaves what was written so far.
func (c *Client) GetTree(ctx context.Context, root cid.CID, t Tree, to *os.Root) (size int64,
	err error) {
	g := &treeGet{c: c, root: root, tree: t, to: to}
	err = g.directory(ctx, "", root, 0)
	return g.size, err
}

type treeGet struct {
	c    *Client
	root cid.CID
	tree Tree
	to   *os.Root
	size int64
	n    int
}

func (g *treeGet) directory(ctx context.Context, at string, named cid.CID, depth int) error {
	if depth > dir.MaxDepth {
		return fault.New(fault.InvalidArgument, dir.ReasonBad,
			"%s lies more than %d directories deep", at, dir.MaxDepth)
	}
	entries, err := g.entries(ctx, at, named)
	if err != nil {
		return fmt.Errorf("read the directory %q: %w", at, err)
	}
	for _, e := range entries {
		if g.n++; g.n > MaxTree {
			return fault.New(fault.InvalidArgument, ReasonTooMany,
				"the tree has more than %d files and directories", MaxTree)
		}
		inner := path.Join(at, e.Name)
		if !e.IsDir() {
			if err := g.file(ctx, inner, e); err != nil {
				return err
			}
			continue
		}
		// Its owner must be able to fill it; what others may do comes afterwards.
		if err := g.to.Mkdir(inner, 0o700); err != nil {
			return err
		}
		if err := g.directory(ctx, inner, e.CID, depth+1); err != nil {
			return err
		}
		if err := g.to.Chmod(inner, fs.FileMode(e.Mode)); err != nil {
			return err
		}
	}
	return nil
}

func (g *treeGet) entries(ctx context.Context, at string, named cid.CID) (
	_ []dir.Entry, err error,
) {
	from, err := g.c.OpenPath(ctx, g.root, at, named)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(from, dir.MaxBytes+1))
	if err != nil {
		return nil, err
	}
	return dir.Decode(raw)
}

func (g *treeGet) file(ctx context.Context, at string, e dir.Entry) (err error) {
	from, err := g.c.OpenPath(ctx, g.root, at, e.CID)
	if err != nil {
		return fmt.Errorf("read %s: %w", at, err)
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	file, err := g.to.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(e.Mode)|0o200)
	if err != nil {
		return err
	}
	var bytes io.Reader = from
	if g.tree.Wrap != nil {
		bytes = g.tree.Wrap(at, from)
	}
	n, err := io.Copy(file, bytes)
	g.size += n
	if err == nil {
		err = file.Chmod(fs.FileMode(e.Mode))
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("save %s: %w", at, err)
	}
	return nil
}
