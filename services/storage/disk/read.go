package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
)

// Read implements storage.Blobs.
func (d *Disk) Read(ctx context.Context, r storage.Read, w io.Writer) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.calls.Done()
	if err := r.Validate(); err != nil {
		return err
	}
	ref, held, err := d.ref(r.Account, r.CID)
	if err != nil {
		return err
	}
	if !held {
		return storage.NotFound(r.CID)
	}
	within, err := r.Range.Within(ref.Size)
	if err != nil {
		return err
	}
	r.Range = within
	return d.read(ctx, r, w)
}

func (d *Disk) read(ctx context.Context, r storage.Read, w io.Writer) error {
	tree, files, err := d.tree(r.CID)
	if err != nil {
		return d.unreadable(r.CID, err)
	}
	defer files.close()
	out := &sink{w: w}
	walk := tree.Copy
	if r.Encoding == storage.EncodingSlice {
		walk = tree.CopySlice
	}
	err = walk(ctx, out, r.Range.Offset, r.Range.Length)
	switch {
	case err == nil:
		return nil
	case out.err != nil:
		return fmt.Errorf("send %s: %w", r.CID, out.err)
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return d.damage(r.CID, err)
	}
}

// handles are the open files of one blob; outboard is nil when it has none.
type handles struct{ data, outboard *os.File }

func (h handles) close() {
	for _, f := range []*os.File{h.data, h.outboard} {
		if f != nil {
			_ = f.Close() // opened for reading: nothing can be lost
		}
	}
}

func (d *Disk) tree(c cid.CID) (cid.Tree, handles, error) {
	// A repair or removal may swap the two files between the two opens; their contents are functions
	// of the CID, so any mix is as good.
	b, found, err := d.blob(c)
	if err != nil {
		return cid.Tree{}, handles{}, err
	}
	if !found {
		return cid.Tree{}, handles{}, fmt.Errorf("no blob record: %w", fs.ErrNotExist)
	}
	if c.Kind() != cid.OCIBlob {
		b.root = c.Sum()
	}
	var h handles
	if h.data, err = os.Open(d.path(c)); err != nil {
		return cid.Tree{}, handles{}, err
	}
	t := cid.Tree{Data: h.data, Size: b.size, Root: b.root}
	if b.size > cid.GroupSize {
		if h.outboard, err = os.Open(d.path(c) + outboardSuffix); err != nil {
			h.close()
			return cid.Tree{}, handles{}, err
		}
		t.Outboard = h.outboard
	}
	return t, h, nil
}

// unreadable sorts an error of opening: files that are gone are damage, unless the reference went
// with them while we looked; the rest may pass.
func (d *Disk) unreadable(c cid.CID, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open %s: %w", c, err)
	}
	held, asked := d.anyHolder(c)
	if asked != nil {
		return asked
	}
	if !held {
		return storage.NotFound(c)
	}
	return d.damage(c, err)
}

// damage notes that c does not verify, so that the next Put replaces its files, and reports it.
func (d *Disk) damage(c cid.CID, found error) error {
	if err := d.noteDamage(c); err != nil {
		found = errors.Join(found, err)
	}
	d.cfg.Log.Error("stored bytes are damaged", "cid", c.String(), "found", found)
	return storage.DataLoss(c, found)
}

// sink remembers that it was the reader's side that failed.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err != nil {
		s.err = err
	}
	return n, err
}
