package disk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
)

// writeBuffer is what is written at once. It is also how far a writer may write past the reserve:
// all at once stay within MinReserve.
const writeBuffer = 64 << 10

// Put implements storage.Blobs.
func (d *Disk) Put(ctx context.Context, p storage.Put, body io.Reader) (storage.Stored, error) {
	if err := d.enter(); err != nil {
		return storage.Stored{}, err
	}
	defer d.calls.Done()
	if err := p.Validate(d.cfg.Limits); err != nil {
		return storage.Stored{}, err
	}
	held, err := d.holds(p)
	if err != nil {
		return storage.Stored{}, err
	}
	if held.good && p.SkipHeld {
		if stored, done, err := d.skip(p); done || err != nil {
			return stored, err
		}
	}
	up, err := d.begin(p, held)
	if err != nil {
		return storage.Stored{}, err
	}
	defer up.end()
	if err := up.receive(ctx, body); err != nil {
		return storage.Stored{}, err
	}
	var stored storage.Stored
	err = d.atWork(ctx, func() (err error) {
		stored, err = up.keep()
		return err
	})
	return stored, err
}

// atWork does a piece of work on bytes that are there, in one of the writers' places. Nobody holds
// a place while waiting for who sends, so that slow senders keep nobody out, and nobody takes one
// while holding a lock.
func (d *Disk) atWork(ctx context.Context, do func() error) error {
	select {
	case d.writers <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-d.writers }()
	return do()
}

// holding is what an account has of the blob that a Put expects.
type holding struct {
	ref  *storage.Ref // nil: none
	good bool         // and its bytes are in place and not known to be damaged
}

func (d *Disk) holds(p storage.Put) (h holding, err error) {
	if p.Expect.IsZero() {
		return h, nil
	}
	ref, held, err := d.ref(p.Account, p.Expect)
	if err != nil || !held {
		return h, err
	}
	h.ref = &ref
	h.good, err = d.sound(p.Expect)
	return h, err
}

// sound reports whether the files of c are in place and not known to be damaged.
func (d *Disk) sound(c cid.CID) (bool, error) {
	b, found, err := d.blob(c)
	if err != nil || !found {
		return false, err
	}
	damaged, err := d.damaged(c)
	return !damaged && d.whole(c, b.size), err
}

// skip answers a Put of what the account holds without its bytes. It is not done when a Remove came
// first.
func (d *Disk) skip(p storage.Put) (stored storage.Stored, done bool, err error) {
	lock := d.lockBlob(p.Expect)
	lock.Lock()
	defer lock.Unlock()
	_, held, err := d.ref(p.Account, p.Expect)
	if err != nil || !held {
		return storage.Stored{}, false, err
	}
	b, found, err := d.blob(p.Expect)
	if err != nil || !found {
		return storage.Stored{}, false, err
	}
	up := upload{d: d, p: p, blob: b, cid: p.Expect}
	stored, err = up.claim()
	return stored, err == nil, err
}

// upload is one Put under way: a temporary file and a reservation of quota.
type upload struct {
	d        *Disk
	p        storage.Put
	again    *storage.Ref // what the account holds already, in whose place this counts; or nil
	reserved int64        // bytes of d.pending that are ours
	lent     int64        // bytes of d.pending that a resumable upload holds for us
	paid     *prepaid

	tmp  *os.File
	tree cid.Hasher
	sha  hash.Hash // for OCI blobs

	cid    cid.CID
	blob   blob
	placed bool // its files, which were not in place or damaged
}

func (d *Disk) begin(p storage.Put, held holding) (*upload, error) {
	up := &upload{d: d, p: p, again: held.ref}
	err := up.reserve(p.Size)
	if err == nil && !held.good {
		up.paid, err = d.prepay(p.Account, p.ByHost())
	}
	if err != nil {
		up.end()
		return nil, err
	}
	if err := up.open(); err != nil {
		up.end()
		return nil, err
	}
	return up, nil
}

func (u *upload) open() error {
	if err := u.d.room(u.p.Size, u.d.cfg.Reserve); err != nil {
		return err
	}
	err := u.d.step(stepCreate)
	if err == nil {
		u.tmp, err = os.CreateTemp(filepath.Join(u.d.cfg.Dir, tmpDir), "put-*")
	}
	if err != nil {
		return diskError(stepCreate, err)
	}
	u.d.mu.Lock()
	u.d.open[filepath.Base(u.tmp.Name())] = true
	u.d.mu.Unlock()
	if u.p.Kind == cid.OCIBlob {
		u.sha = sha256.New()
	}
	return nil
}

// end gives back what the upload still holds: its reservation and its temporary files. Files that
// resist are removed at the next start.
func (u *upload) end() {
	u.paid.end()
	u.d.mu.Lock()
	u.unreserve()
	u.d.mu.Unlock()
	if u.tmp == nil {
		return
	}
	defer func() {
		u.d.mu.Lock()
		defer u.d.mu.Unlock()
		delete(u.d.open, filepath.Base(u.tmp.Name()))
	}()
	err := errors.Join(u.tmp.Close(), removeIfThere(u.tmp.Name()),
		removeIfThere(u.tmp.Name()+outboardSuffix))
	if err != nil {
		u.d.cfg.Log.Warn("temporary files of an upload stay until restart", "error", err)
	}
}

// unreserve is called with d.mu held.
func (u *upload) unreserve() {
	if u.d.pending[u.p.Account] -= u.reserved; u.d.pending[u.p.Account] == 0 {
		delete(u.d.pending, u.p.Account)
	}
	u.reserved = 0
}

// reserve takes total bytes of the account's quota for this upload. What is held already is needed
// once: these bytes may turn out to be others, and are on the disk until then.
func (u *upload) reserve(total int64) error {
	lock := u.d.lockAccount(u.p.Account)
	lock.Lock()
	defer lock.Unlock()
	usage, err := u.d.usage(u.p.Account)
	if err != nil {
		return err
	}
	if u.again != nil {
		usage.Bytes, usage.Blobs = usage.Bytes-u.again.Size, usage.Blobs-1
	}
	u.d.mu.Lock()
	defer u.d.mu.Unlock()
	more := max(0, total-u.reserved)
	if err := u.d.cfg.Limits.Admit(usage, u.d.pending[u.p.Account], more); err != nil {
		return err
	}
	u.reserved += more
	u.d.pending[u.p.Account] += more
	return nil
}

// receive writes body to the temporary file and hashes it on the way.
func (u *upload) receive(ctx context.Context, body io.Reader) error {
	buf := make([]byte, writeBuffer)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := fill(body, buf)
		if n > 0 {
			if err := u.d.atWork(ctx, func() error { return u.write(buf[:n]) }); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return u.d.atWork(ctx, u.identify)
		}
		if err != nil {
			return fmt.Errorf("receive blob: %w", err)
		}
	}
}

// fill reads until buf is full. Unlike io.ReadFull it takes only a clean end for the end: a body
// that breaks off with io.ErrUnexpectedEOF has not ended.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var k int
		k, err = r.Read(buf[n:])
		n += k
	}
	return n, err
}

func (u *upload) write(p []byte) error {
	size := u.tree.Size() + int64(len(p))
	if err := u.d.cfg.Limits.AdmitSize(size); err != nil {
		return err
	}
	if u.p.Size != 0 && size > u.p.Size {
		return u.p.Verify(u.p.Expect, size)
	}
	if err := u.reserve(size); err != nil {
		return err
	}
	if err := u.d.room(int64(len(p)), u.d.cfg.Reserve); err != nil {
		return err
	}
	err := u.d.step(stepWrite)
	if err == nil {
		_, err = u.tmp.Write(p)
	}
	if err != nil {
		return diskError(stepWrite, err)
	}
	if u.sha != nil {
		u.sha.Write(p)
	}
	_, err = u.tree.Write(p)
	return err
}

// identify computes the CID and, for more than one group, writes the outboard beside the data.
func (u *upload) identify() (err error) {
	u.blob.size = u.tree.Size()
	var outboard io.WriterAt
	if u.blob.size > cid.GroupSize {
		if err := u.d.room(cid.OutboardSize(u.blob.size), u.d.cfg.Reserve); err != nil {
			return err
		}
		if err := u.d.step(stepTree); err != nil {
			return diskError(stepTree, err)
		}
		f, err := os.OpenFile(u.tmp.Name()+outboardSuffix, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return diskError(stepTree, err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		outboard = f
	}
	if u.blob.root, err = u.tree.Finish(outboard); err != nil {
		return diskError(stepTree, err)
	}
	switch u.p.Kind {
	case cid.OCIBlob:
		u.cid = cid.OfOCI([cid.SumSize]byte(u.sha.Sum(nil)))
	case cid.Directory:
		u.cid = cid.OfDirectory(u.blob.root)
	default:
		u.cid = cid.OfFile(u.blob.root)
	}
	return u.p.Verify(u.cid, u.blob.size)
}

// keep moves the files to their place, unless they are there, and commits the reference.
func (u *upload) keep() (storage.Stored, error) {
	lock := u.d.lockBlob(u.cid)
	lock.Lock()
	defer lock.Unlock()
	here, err := u.d.sound(u.cid)
	if err != nil {
		return storage.Stored{}, err
	}
	if here {
		return u.claim()
	}
	stored, err := u.place()
	if err != nil {
		if undone := u.d.settle(u.cid); undone != nil {
			u.d.cfg.Log.Error("a failed upload is undone at the next start", "cid",
				u.cid.String(), "error", undone)
		}
	}
	return stored, err
}

// place makes the files durable under their final names, then commits. The outboard goes first: a
// data file is never without it.
func (u *upload) place() (storage.Stored, error) {
	if err := u.sync(); err != nil {
		return storage.Stored{}, err
	}
	if err := u.d.room(0, indexRoom); err != nil {
		return storage.Stored{}, err
	}
	final := u.d.path(u.cid)
	if u.blob.size > cid.GroupSize {
		err := u.effect(stepRenameTree, func() error {
			return os.Rename(u.tmp.Name()+outboardSuffix, final+outboardSuffix)
		})
		if err != nil {
			return storage.Stored{}, err
		}
	}
	err := u.effect(stepRename, func() error { return u.move(final) })
	if err != nil {
		return storage.Stored{}, err
	}
	err = u.effect(stepSyncDir, func() error { return syncDir(filepath.Dir(final)) })
	if err != nil {
		return storage.Stored{}, err
	}
	u.placed = true
	return u.claim()
}

// move gives the data its final name. An upload that can be resumed keeps its own name as well, so
// that nothing of it is lost when a later step fails.
func (u *upload) move(final string) error {
	if u.lent == 0 {
		return os.Rename(u.tmp.Name(), final)
	}
	if err := removeIfThere(final); err != nil {
		return err
	}
	return os.Link(u.tmp.Name(), final)
}

// sync makes the temporary files and the intent durable.
func (u *upload) sync() error {
	if err := u.effect(stepSync, u.tmp.Sync); err != nil {
		return err
	}
	if u.blob.size > cid.GroupSize {
		err := u.effect(stepSyncTree, func() error { return syncFile(u.tmp.Name() + outboardSuffix) })
		if err != nil {
			return err
		}
	}
	return u.effect(stepIntend, func() error { return u.d.intend(u.cid) })
}

func (u *upload) effect(s step, do func() error) error {
	err := u.d.step(s)
	if err == nil {
		err = do()
	}
	if err != nil {
		return diskError(s, err)
	}
	return nil
}

// claim commits the account's reference. The caller holds the blob's lock.
func (u *upload) claim() (storage.Stored, error) {
	lock := u.d.lockAccount(u.p.Account)
	lock.Lock()
	defer lock.Unlock()
	old, held, err := u.d.ref(u.p.Account, u.cid)
	if err != nil {
		return storage.Stored{}, err
	}
	ref, before := u.renewed(old), &old
	if held && ref == old && !u.placed {
		damaged, err := u.d.damaged(u.cid)
		if err != nil || !damaged {
			return storage.Stored{Ref: ref, Held: true}, err // nothing is to be written
		}
	}
	if !held {
		if err := u.admit(); err != nil {
			return storage.Stored{}, err
		}
		ref, before = u.ref(), nil
	}
	err = u.effect(stepClaim, func() error { return u.commit(ref, before) })
	if err != nil {
		return storage.Stored{}, err
	}
	if err := u.d.step(stepClaimed); err != nil {
		return storage.Stored{}, diskError(stepClaimed, err)
	}
	return storage.Stored{Ref: ref, Held: held}, nil
}

// ref is the reference of an account that held none.
func (u *upload) ref() storage.Ref {
	return storage.Ref{CID: u.cid, Size: u.blob.size, Name: u.p.Name, Job: u.p.Job,
		Created: u.d.cfg.Now().Truncate(time.Millisecond), Expires: timeOf(millis(u.p.Expires)),
		Total: u.p.Tree.Total, Height: u.p.Tree.Height}
}

// renewed is the reference of an account that puts what it holds.
func (u *upload) renewed(ref storage.Ref) storage.Ref {
	if u.p.KeepName {
		return ref
	}
	if u.p.Name != "" {
		ref.Name = u.p.Name
	}
	ref.Expires = storage.Wanted(ref.Expires, timeOf(millis(u.p.Expires)))
	return ref
}

// admit turns the reservation into a last check against the quota, under the account's lock.
func (u *upload) admit() error {
	usage, err := u.d.usage(u.p.Account)
	if err != nil {
		return err
	}
	u.d.mu.Lock()
	defer u.d.mu.Unlock()
	u.unreserve()
	return u.d.cfg.Limits.Admit(usage, u.d.pending[u.p.Account]-u.lent, u.blob.size)
}
