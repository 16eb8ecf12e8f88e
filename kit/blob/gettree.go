package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/dir"
	"github.com/united-containers/ucn/kit/fault"
)

// GetTree writes the tree with a root into a folder, every byte verified. It writes nothing outside
// it, whatever the directories say. The folder must be empty, unless t.Resume. A failure leaves
// what was written so far.
func (c *Client) GetTree(ctx context.Context, root cid.CID, t Tree, to *os.Root) (size int64,
	err error) {
	g := &treeGet{c: c, root: root, tree: t, to: to, patience: &patience{}}
	err = g.directory(ctx, "", root, 0)
	return g.size, err
}

// Find follows a path inside the directory root. What it says stands there is what root names:
// every directory on the way is read and verified. Errors are those of dir.Walk too.
func (c *Client) Find(ctx context.Context, root cid.CID, at string) (dir.Entry, error) {
	return c.find(ctx, root, at, (&patience{}).do)
}

// FindNow is Find, but a connection that breaks is an error at once.
func (c *Client) FindNow(ctx context.Context, root cid.CID, at string) (dir.Entry, error) {
	return c.find(ctx, root, at, func(_ context.Context, f func() error) error { return f() })
}

func (c *Client) find(ctx context.Context, root cid.CID, at string,
	do func(context.Context, func() error) error,
) (dir.Entry, error) {
	names, err := dir.SplitPath(at)
	if err != nil {
		return dir.Entry{}, err
	}
	depth := 0
	found, err := dir.Walk(ctx, root, at, func(ctx context.Context, named cid.CID) (
		entries []dir.Entry, err error,
	) {
		err = do(ctx, func() (err error) {
			entries, err = c.entries(ctx, root, path.Join(names[:depth]...), named)
			return err
		})
		depth++
		return entries, err
	})
	if err != nil {
		return dir.Entry{}, fmt.Errorf("find %q in %s: %w", at, root, err)
	}
	return found, nil
}

type treeGet struct {
	c        *Client
	root     cid.CID
	tree     Tree
	to       *os.Root
	patience *patience
	size     int64
	n        int
}

func (g *treeGet) directory(ctx context.Context, at string, named cid.CID, depth int) error {
	if depth > dir.MaxDepth {
		return fault.New(fault.InvalidArgument, dir.ReasonBad,
			"%s lies more than %d directories deep", at, dir.MaxDepth)
	}
	var entries []dir.Entry
	err := g.patience.do(ctx, func() (err error) {
		entries, err = g.c.entries(ctx, g.root, at, named)
		return err
	})
	if err != nil {
		return fmt.Errorf("read the directory %q: %w", at, err)
	}
	if depth == 0 {
		g.tree.begin(dir.Total(entries))
	}
	if err := g.clear(at, entries); err != nil {
		return err
	}
	for _, e := range entries {
		if g.n++; g.n > MaxTree {
			return fault.New(fault.InvalidArgument, ReasonTooMany,
				"the tree has more than %d files and directories", MaxTree)
		}
		inner := path.Join(at, e.Name)
		if e.IsDir() {
			err = g.inside(ctx, inner, e, depth+1)
		} else {
			err = g.file(ctx, inner, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// clear removes what is there and not of the tree, links above all: an earlier call left none.
func (g *treeGet) clear(at string, entries []dir.Entry) error {
	if !g.tree.Resume {
		return nil
	}
	there, err := fs.ReadDir(g.to.FS(), path.Join(".", at))
	if err != nil {
		return err
	}
	for _, d := range there {
		of := slices.ContainsFunc(entries, func(e dir.Entry) bool {
			return e.Name == d.Name() && e.IsDir() == d.IsDir() && (d.IsDir() || d.Type().IsRegular())
		})
		if of {
			continue
		}
		if err := g.to.RemoveAll(path.Join(at, d.Name())); err != nil {
			return err
		}
	}
	return nil
}

// inside makes a directory and fills it. Its owner must be able to; what others may do comes
// afterwards.
func (g *treeGet) inside(ctx context.Context, at string, e dir.Entry, depth int) error {
	err := g.to.Mkdir(at, 0o700)
	if g.tree.Resume && errors.Is(err, fs.ErrExist) {
		err = g.to.Chmod(at, 0o700)
	}
	if err != nil {
		return err
	}
	if err := g.directory(ctx, at, e.CID, depth); err != nil {
		return err
	}
	return g.to.Chmod(at, fs.FileMode(e.Mode))
}

// entries reads the directory at a path inside root, which must be named.
func (c *Client) entries(ctx context.Context, root cid.CID, at string, named cid.CID) (
	_ []dir.Entry, err error,
) {
	from, err := c.OpenPath(ctx, root, at, named)
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
	file, have, err := g.open(at)
	if err != nil {
		return err
	}
	f := &fetch{c: g.c, to: file, told: progress{tell: g.tree.Tell}, patience: g.patience,
		f: Fetch{Blob: e.CID, Size: e.Size, Root: g.root, Path: at, Have: have}}
	_, err = f.do(ctx)
	if err == nil {
		g.size += e.Size
		err = file.Chmod(fs.FileMode(e.Mode))
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("save %s: %w", at, err)
	}
	return nil
}

// open opens a file of the tree, with what an earlier call left in it.
func (g *treeGet) open(at string) (file *os.File, have int64, err error) {
	if !g.tree.Resume {
		file, err = g.to.OpenFile(at, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		return file, 0, err
	}
	if info, err := g.to.Lstat(at); err == nil {
		have = info.Size()
		if err := g.to.Chmod(at, 0o600); err != nil {
			return nil, 0, err
		}
	}
	file, err = g.to.OpenFile(at, os.O_RDWR|os.O_CREATE, 0o600)
	return file, have, err
}
