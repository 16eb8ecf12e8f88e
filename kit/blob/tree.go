package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	// Begin is told how many bytes all files have together before they are moved; may be nil.
	Begin func(total int64)
	// Tell is told how the files get on.
	Tell Progress
	// Resume lets GetTree go on with a folder that it began: what is right is kept, what is wrong or
	// not of the tree is removed. Only for folders that nobody else uses.
	Resume bool
}

func (t Tree) begin(total int64) {
	if t.Begin != nil {
		t.Begin(total)
	}
}

// PutTree stores a tree of files, each directory after what is in it, and returns the root. It
// reads nothing outside from. Links and special files are refused by name (ReasonSpecial) before
// anything is sent. Repeating it after a failure sends only what is missing.
func (c *Client) PutTree(ctx context.Context, t Tree, from *os.Root) (Stored, error) {
	n, total := 0, int64(0)
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
		case at == ".":
			return nil
		case !d.IsDir():
			info, err := d.Info()
			if err != nil {
				return err
			}
			total += info.Size()
		}
		return dir.CheckName(path.Base(at))
	})
	if err != nil {
		return Stored{}, fmt.Errorf("look at the tree: %w", err)
	}
	t.begin(total)
	p := &treePut{c: c, tree: t, from: from, patience: &patience{}}
	return p.directory(ctx, ".", 0)
}

type treePut struct {
	c        *Client
	tree     Tree
	from     *os.Root
	patience *patience
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
	var stored Stored
	err = p.patience.do(ctx, func() (err error) {
		stored, err = p.c.Put(ctx, one, bytes.NewReader(raw))
		return err
	})
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
	info, err := file.Stat()
	if err != nil {
		return Stored{}, err
	}
	u := &upload{c: p.c, p: Put{Kind: cid.File, Size: info.Size()}, from: file,
		told: progress{tell: p.tree.Tell}, patience: p.patience}
	sent, err := u.put(ctx)
	if err != nil {
		return Stored{}, fmt.Errorf("store %s: %w", at, err)
	}
	p.patience.next()
	return sent.Stored, nil
}
