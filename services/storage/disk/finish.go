package disk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
)

// FinishUpload implements storage.Uploads.
func (d *Disk) FinishUpload(ctx context.Context, a storage.Account, id storage.UploadID,
) (storage.Stored, error) {
	if err := d.enter(); err != nil {
		return storage.Stored{}, err
	}
	defer d.calls.Done()
	s, err := d.take(a, id)
	if err != nil {
		return storage.Stored{}, err
	}
	defer d.free(s)
	if s.record.CID != "" {
		if stored, done, err := d.finished(id, s); done || err != nil {
			return stored, err
		}
	}
	return d.finish(ctx, id, s)
}

// finished answers for an upload whose blob was named: it is done, or the process died between the
// name and the record of the end.
func (d *Disk) finished(id storage.UploadID, s *session) (storage.Stored, bool, error) {
	c, err := cid.Parse(s.record.CID)
	if err != nil {
		return storage.Stored{}, false, err
	}
	_, gone := os.Stat(d.uploadPath(id))
	if !s.record.Done && !errors.Is(gone, fs.ErrNotExist) {
		return storage.Stored{}, false, nil // its bytes are still here: finish again
	}
	ref, held, err := d.ref(s.account, c)
	if err != nil {
		return storage.Stored{}, false, err
	}
	if !held {
		if s.record.Done {
			return storage.Stored{}, false, storage.NotFound(c)
		}
		return storage.Stored{}, false, errors.Join(storage.NoUpload(), d.drop(id, s))
	}
	stored := storage.Stored{Ref: ref, Held: s.record.Held}
	if s.record.Done {
		return stored, true, nil
	}
	return stored, true, d.done(id, s, stored)
}

// finish hashes the bytes and keeps them as a blob, which moves the file.
func (d *Disk) finish(ctx context.Context, id storage.UploadID, s *session,
) (storage.Stored, error) {
	p, err := s.record.put(s.account)
	if err != nil {
		return storage.Stored{}, err
	}
	paid, err := d.prepay(p.Account, p.ByHost())
	if err != nil {
		return storage.Stored{}, err
	}
	defer paid.end()
	f, err := os.OpenFile(d.uploadPath(id), os.O_RDWR, 0)
	if err != nil {
		return storage.Stored{}, fmt.Errorf("open upload: %w", err)
	}
	up := &upload{d: d, p: p, tmp: f, lent: max(s.record.takes(), 1), paid: paid}
	if p.Kind == cid.OCIBlob {
		up.sha = sha256.New()
	}
	defer func() {
		if err := errors.Join(f.Close(), removeIfThere(f.Name()+outboardSuffix)); err != nil {
			d.cfg.Log.Warn("files of an upload stay", "error", err)
		}
	}()
	// A crash while an earlier finish was under way may have left its outboard.
	err = errors.Join(f.Truncate(s.record.Offset), removeIfThere(f.Name()+outboardSuffix))
	if err != nil {
		return storage.Stored{}, fmt.Errorf("cut upload: %w", err)
	}
	if err := up.rehash(ctx, f); err != nil {
		return storage.Stored{}, err
	}
	r := s.record
	r.CID = up.cid.String()
	if err := d.saveUpload(id, s, r); err != nil {
		return storage.Stored{}, err
	}
	var stored storage.Stored
	err = d.atWork(ctx, func() (err error) {
		stored, err = up.keep()
		return err
	})
	if err != nil {
		return storage.Stored{}, err
	}
	if err := d.done(id, s, stored); err != nil {
		// The blob is kept; a repeated call finds it.
		return storage.Stored{}, err
	}
	return stored, nil
}

// rehash reads what is there as receive would have seen it.
func (u *upload) rehash(ctx context.Context, f *os.File) error {
	buf := make([]byte, writeBuffer)
	r := io.NewSectionReader(f, 0, 1<<62)
	for {
		var ended error
		err := u.d.atWork(ctx, func() error {
			var n int
			n, ended = fill(r, buf)
			if u.sha != nil {
				u.sha.Write(buf[:n])
			}
			_, err := u.tree.Write(buf[:n])
			return err
		})
		switch {
		case err != nil:
			return err
		case ended == io.EOF:
			return u.d.atWork(ctx, u.identify)
		case ended != nil:
			return fmt.Errorf("read upload: %w", ended)
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// done records the end of a finished upload and forgets the oldest of too many.
func (d *Disk) done(id storage.UploadID, s *session, stored storage.Stored) error {
	r := s.record
	r.Done, r.Held, r.CID = true, stored.Held, stored.Ref.CID.String()
	r.Touched = d.cfg.Now().UnixMilli()
	if err := d.saveUpload(id, s, r); err != nil {
		return err
	}
	if err := removeIfThere(d.uploadPath(id)); err != nil { // the blob was here already
		return err
	}
	return d.forgetOldest(s.account)
}

// forgetOldest keeps an account from leaving records without bound.
func (d *Disk) forgetOldest(a storage.Account) error {
	var finished int
	var oldest storage.UploadID
	var found *session
	d.mu.Lock()
	for id, s := range d.uploadsBy[a].all { // the finished one at least is there
		if !s.record.Done {
			continue
		}
		finished++
		if found == nil || s.record.Touched < found.record.Touched {
			oldest, found = id, s
		}
	}
	d.mu.Unlock()
	if finished <= storage.MaxFinished {
		return nil
	}
	return d.drop(oldest, found)
}
