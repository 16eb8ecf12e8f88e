package disk

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
)

const (
	uploadsDir = "uploads"
	// commitEvery is how many bytes an append may lose when the process dies.
	commitEvery = 8 << 20
	// maxRecords bounds the uploads of all accounts together.
	maxRecords = 100_000
)

// uploadRecord is an upload at rest. Its file may be longer than Offset: what is beyond was not
// acknowledged, and is cut before the next byte is written.
type uploadRecord struct {
	Kind    cid.Kind `json:"kind"`
	Expect  string   `json:"expect,omitempty"`
	Size    int64    `json:"size,omitempty"`
	Name    string   `json:"name,omitempty"`
	Job     string   `json:"job,omitempty"`
	Keep    bool     `json:"keep_name,omitempty"`
	Expires int64    `json:"expires,omitempty"`
	Offset  int64    `json:"offset"`
	Created int64    `json:"created"`
	Touched int64    `json:"touched"`
	// CID is set before the bytes become a blob, Done once they have.
	CID  string `json:"cid,omitempty"`
	Done bool   `json:"done,omitempty"`
	Held bool   `json:"held,omitempty"`
}

// session is what is known in memory of one upload. Only its worker changes record.
type session struct {
	account storage.Account
	record  uploadRecord
	busy    bool // a worker has it; guarded by Disk.mu
}

// takes is what an upload holds of its account's quota.
func (r uploadRecord) takes() int64 {
	if r.Done {
		return 0
	}
	return max(r.Size, r.Offset)
}

func uploadKey(a storage.Account, id storage.UploadID) []byte {
	return append(append([]byte{keyUpload}, a[:]...), id[:]...)
}

func (d *Disk) uploadPath(id storage.UploadID) string {
	return filepath.Join(d.cfg.Dir, uploadsDir, hex.EncodeToString(id[:]))
}

// loadUploads reads all records at start.
func (d *Disk) loadUploads() error {
	return d.each([]byte{keyUpload}, func(key, value []byte) error {
		s := &session{account: storage.Account(key[1 : 1+accountSize])}
		if err := json.Unmarshal(value, &s.record); err != nil {
			return fmt.Errorf("decode upload %x: %w", key, err)
		}
		d.know(storage.UploadID(key[1+accountSize:]), s)
		return nil
	})
}

// pend adds to the bytes on their way into an account. Called with d.mu held, or alone.
func (d *Disk) pend(a storage.Account, more int64) {
	if d.pending[a] += more; d.pending[a] == 0 {
		delete(d.pending, a)
	}
}

// StartUpload implements storage.Uploads.
func (d *Disk) StartUpload(ctx context.Context, p storage.Put) (storage.Upload, error) {
	if err := d.enter(); err != nil {
		return storage.Upload{}, err
	}
	defer d.calls.Done()
	if err := errors.Join(ctx.Err(), p.Validate(d.cfg.Limits)); err != nil {
		return storage.Upload{}, err
	}
	if p.Kind == cid.Directory {
		return storage.Upload{}, storage.BadRequest("a directory is put whole, not uploaded in pieces")
	}
	if err := d.room(p.Size, d.cfg.Reserve); err != nil {
		return storage.Upload{}, err
	}
	paid, err := d.prepay(p.Account, p.ByHost()) // the end is counted when it comes
	if err != nil {
		return storage.Upload{}, err
	}
	paid.end()
	var id storage.UploadID
	if _, err := rand.Read(id[:]); err != nil {
		return storage.Upload{}, fmt.Errorf("name an upload: %w", err)
	}
	now := d.cfg.Now().UnixMilli()
	s := &session{account: p.Account, busy: true, record: uploadRecord{Kind: p.Kind,
		Expect: p.Expect.String(), Size: p.Size, Name: p.Name, Job: p.Job, Keep: p.KeepName,
		Expires: millis(p.Expires), Created: now, Touched: now}}
	if err := d.admitUpload(id, s); err != nil {
		return storage.Upload{}, err
	}
	defer d.free(s)
	if err := d.begun(id, s); err != nil {
		d.forget(id, s)
		return storage.Upload{}, errors.Join(err, removeIfThere(d.uploadPath(id)))
	}
	return d.shown(id, s)
}

// admitUpload takes a place and the announced bytes of the quota.
func (d *Disk) admitUpload(id storage.UploadID, s *session) error {
	lock := d.lockAccount(s.account)
	lock.Lock()
	defer lock.Unlock()
	usage, err := d.usage(s.account)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if most := d.cfg.Limits.OpenUploads(); d.openUploads(s.account).Blobs >= int64(most) {
		return storage.TooManyUploads(most)
	}
	if len(d.uploads) >= maxRecords {
		return storage.TooManyOfAll(maxRecords)
	}
	if err := d.cfg.Limits.Admit(usage, d.pending[s.account], s.record.takes()); err != nil {
		return err
	}
	d.know(id, s)
	return nil
}

// accountUploads are the uploads of one account, so that no call looks at those of others.
type accountUploads struct {
	open storage.Count // the unfinished ones, with what they hold of the quota
	all  map[storage.UploadID]*session
}

// count adds what a record is to the open ones; sign is 1 or -1.
func (u *accountUploads) count(r uploadRecord, sign int64) {
	if !r.Done {
		u.open.Blobs += sign
		u.open.Bytes += sign * r.takes()
	}
}

// know adds an upload to what is in memory. Called with d.mu held, or alone.
func (d *Disk) know(id storage.UploadID, s *session) {
	of := d.uploadsBy[s.account]
	if of == nil {
		of = &accountUploads{all: map[storage.UploadID]*session{}}
		d.uploadsBy[s.account] = of
	}
	of.all[id], d.uploads[id] = s, s
	of.count(s.record, 1)
	d.pend(s.account, s.record.takes())
}

// openUploads counts an account's unfinished uploads. Called with d.mu held.
func (d *Disk) openUploads(a storage.Account) storage.Count {
	if of := d.uploadsBy[a]; of != nil {
		return of.open
	}
	return storage.Count{}
}

func (d *Disk) begun(id storage.UploadID, s *session) error {
	err := d.step(stepUploadCreate)
	if err == nil {
		err = writeNew(d.uploadPath(id))
	}
	if err == nil {
		err = syncDir(filepath.Join(d.cfg.Dir, uploadsDir))
	}
	if err != nil {
		return diskError(stepUploadCreate, err)
	}
	return d.saveUpload(id, s, s.record)
}

func writeNew(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// saveUpload makes a record durable, then believes it.
func (d *Disk) saveUpload(id storage.UploadID, s *session, r uploadRecord) error {
	if err := d.room(0, indexRoom); err != nil {
		return err
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode upload: %w", err)
	}
	if err = d.step(stepUploadRecord); err == nil {
		err = d.db.Set(uploadKey(s.account, id), raw, pebble.Sync)
	}
	if err != nil {
		return diskError(stepUploadRecord, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pend(s.account, r.takes()-s.record.takes())
	of := d.uploadsBy[s.account]
	of.count(s.record, -1)
	of.count(r, 1)
	s.record = r
	return nil
}

// forget drops an upload from memory.
func (d *Disk) forget(id storage.UploadID, s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.uploads, id)
	d.pend(s.account, -s.record.takes())
	of := d.uploadsBy[s.account]
	of.count(s.record, -1)
	if delete(of.all, id); len(of.all) == 0 {
		delete(d.uploadsBy, s.account)
	}
}

// take makes the caller the upload's worker; call free afterwards.
func (d *Disk) take(a storage.Account, id storage.UploadID) (*session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.uploads[id]
	if s == nil || s.account != a {
		return nil, storage.NoUpload()
	}
	if s.busy {
		return nil, storage.UploadBusy()
	}
	s.busy = true
	return s, nil
}

func (d *Disk) free(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.busy = false
}

func (d *Disk) shown(id storage.UploadID, s *session) (storage.Upload, error) {
	d.mu.Lock()
	r := s.record
	d.mu.Unlock()
	p, err := r.put(s.account)
	if err != nil {
		return storage.Upload{}, err
	}
	u := storage.Upload{ID: id, Put: p, Offset: r.Offset, Created: time.UnixMilli(r.Created),
		Expires: time.UnixMilli(r.Touched).Add(d.cfg.UploadIdle)}
	if r.Done {
		u.CID, err = cid.Parse(r.CID)
	}
	return u, err
}

func (r uploadRecord) put(a storage.Account) (p storage.Put, err error) {
	p = storage.Put{Account: a, Kind: r.Kind, Size: r.Size, Name: r.Name, Job: r.Job,
		KeepName: r.Keep, Expires: timeOf(r.Expires)}
	if r.Expect != "" {
		p.Expect, err = cid.Parse(r.Expect)
	}
	return p, err
}

// Upload implements storage.Uploads.
func (d *Disk) Upload(ctx context.Context, a storage.Account, id storage.UploadID,
) (storage.Upload, error) {
	if err := d.enter(); err != nil {
		return storage.Upload{}, err
	}
	defer d.calls.Done()
	d.mu.Lock()
	s := d.uploads[id]
	d.mu.Unlock()
	if s == nil || s.account != a {
		return storage.Upload{}, storage.NoUpload()
	}
	u, err := d.shown(id, s)
	return u, errors.Join(err, ctx.Err())
}

// ListUploads implements storage.Uploads.
func (d *Disk) ListUploads(ctx context.Context, a storage.Account) (
	all []storage.Upload, err error,
) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.calls.Done()
	for id, s := range d.uploadsOf(a) {
		u, err := d.shown(id, s)
		if err != nil {
			return nil, err
		}
		if u.CID.IsZero() {
			all = append(all, u)
		}
	}
	slices.SortFunc(all, func(x, y storage.Upload) int {
		return cmp.Or(x.Created.Compare(y.Created), bytes.Compare(x.ID[:], y.ID[:]))
	})
	return all, ctx.Err()
}

func (d *Disk) uploadsOf(a storage.Account) map[storage.UploadID]*session {
	d.mu.Lock()
	defer d.mu.Unlock()
	if of := d.uploadsBy[a]; of != nil {
		return maps.Clone(of.all)
	}
	return nil
}

// AbortUpload implements storage.Uploads.
func (d *Disk) AbortUpload(ctx context.Context, a storage.Account, id storage.UploadID) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.calls.Done()
	if err := ctx.Err(); err != nil {
		return err
	}
	s, err := d.take(a, id)
	if err != nil {
		return err
	}
	defer d.free(s)
	return d.drop(id, s)
}

// drop ends an upload: first its record, durably, then its file, which a collection would find.
func (d *Disk) drop(id storage.UploadID, s *session) error {
	err := d.step(stepUploadDrop)
	if err == nil {
		err = d.db.Delete(uploadKey(s.account, id), pebble.Sync)
	}
	if err != nil {
		return diskError(stepUploadDrop, err)
	}
	d.forget(id, s)
	return removeIfThere(d.uploadPath(id))
}

// uploads gives up those without progress, and forgets those finished long ago.
func (p *pass) uploads() error {
	idle := p.now.Add(-p.d.cfg.UploadIdle).UnixMilli()
	p.d.mu.Lock()
	var due []storage.UploadID
	for id, s := range p.d.uploads {
		if !s.busy && s.record.Touched <= idle {
			due = append(due, id)
		}
	}
	p.d.mu.Unlock()
	for _, id := range due {
		if err := p.giveUp(id, idle); err != nil {
			return err
		}
	}
	return nil
}

func (p *pass) giveUp(id storage.UploadID, idle int64) error {
	p.d.mu.Lock()
	s := p.d.uploads[id]
	if s == nil || s.busy || s.record.Touched > idle {
		p.d.mu.Unlock()
		return nil
	}
	s.busy = true
	p.d.mu.Unlock()
	defer p.d.free(s)
	if !s.record.Done {
		p.got.Uploads++
		p.got.Bytes += s.record.Offset
	}
	if p.dry {
		return nil
	}
	return errors.Join(p.d.drop(id, s), p.ctx.Err())
}
