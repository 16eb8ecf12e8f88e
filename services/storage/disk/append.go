package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/storage"
)

// AppendUpload implements storage.Uploads.
func (d *Disk) AppendUpload(ctx context.Context, a storage.Account, id storage.UploadID,
	offset int64, body io.Reader,
) (storage.Upload, error) {
	if err := d.enter(); err != nil {
		return storage.Upload{}, err
	}
	defer d.calls.Done()
	s, err := d.take(a, id)
	if err != nil {
		return storage.Upload{}, err
	}
	defer d.free(s)
	switch {
	case s.record.CID != "":
		return storage.Upload{}, fault.New(fault.FailedPrecondition, storage.ReasonUploadDone,
			"the upload is finished and takes no more bytes")
	case offset != s.record.Offset:
		return storage.Upload{}, storage.WrongOffset(s.record.Offset)
	}
	err = d.extend(ctx, id, s, body)
	u, shownErr := d.shown(id, s)
	return u, errors.Join(err, shownErr)
}

// extend writes body behind what is there and commits every commitEvery bytes and at the end,
// whatever ends it.
func (d *Disk) extend(ctx context.Context, id storage.UploadID, s *session, body io.Reader,
) (err error) {
	f, err := os.OpenFile(d.uploadPath(id), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open upload: %w", err)
	}
	w := &appender{d: d, id: id, s: s, f: f, at: s.record.Offset}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(w.at); err != nil {
		return fmt.Errorf("cut upload: %w", err)
	}
	broke := w.copy(ctx, body)
	if err := w.commit(); err != nil {
		return err
	}
	if broke != nil {
		return fmt.Errorf("receive upload: %w", broke)
	}
	return nil
}

// appender writes to an upload's file.
type appender struct {
	d    *Disk
	id   storage.UploadID
	s    *session
	f    *os.File
	at   int64
	took int64 // of the quota beyond what the record takes
}

// copy writes body to its clean end.
func (w *appender) copy(ctx context.Context, body io.Reader) error {
	buf := make([]byte, writeBuffer)
	for {
		n, ended := fill(body, buf)
		if n > 0 {
			if err := w.d.atWork(ctx, func() error { return w.write(buf[:n]) }); err != nil {
				return err
			}
		}
		switch {
		case ended == io.EOF:
			return nil
		case ended != nil:
			return ended
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

func (w *appender) write(p []byte) error {
	end := w.at + int64(len(p))
	r := w.s.record
	if err := w.d.cfg.Limits.AdmitSize(end); err != nil {
		return err
	}
	if r.Size != 0 && end > r.Size {
		return storage.Put{Size: r.Size}.Verify(cid.CID{}, end)
	}
	if err := w.reserve(end); err != nil {
		return err
	}
	if err := w.d.room(int64(len(p)), w.d.cfg.Reserve); err != nil {
		return err
	}
	err := w.d.step(stepUploadWrite)
	if err == nil {
		_, err = w.f.WriteAt(p, w.at)
	}
	if err != nil {
		return diskError(stepUploadWrite, err)
	}
	if w.at = end; w.at-r.Offset >= commitEvery {
		return w.commit()
	}
	return nil
}

// reserve takes quota for an upload of end bytes.
func (w *appender) reserve(end int64) error {
	more := end - w.s.record.takes() - w.took
	if more <= 0 {
		return nil
	}
	lock := w.d.lockAccount(w.s.account)
	lock.Lock()
	defer lock.Unlock()
	usage, err := w.d.usage(w.s.account)
	if err != nil {
		return err
	}
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	if err := w.d.cfg.Limits.Admit(usage, w.d.pending[w.s.account], more); err != nil {
		return err
	}
	w.took += more
	w.d.pend(w.s.account, more)
	return nil
}

// commit makes all bytes written durable, then the offset that says so.
func (w *appender) commit() error {
	defer w.giveBack()
	if w.at == w.s.record.Offset {
		return nil
	}
	err := w.d.step(stepUploadSync)
	if err == nil {
		err = w.f.Sync()
	}
	if err != nil {
		return diskError(stepUploadSync, err)
	}
	r := w.s.record
	r.Offset, r.Touched = w.at, w.d.cfg.Now().UnixMilli()
	return w.d.saveUpload(w.id, w.s, r)
}

// giveBack ends the reservation beside the record, which counts by itself what it has.
func (w *appender) giveBack() {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	w.d.pend(w.s.account, -w.took)
	w.took = 0
}
