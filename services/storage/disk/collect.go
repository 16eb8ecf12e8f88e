package disk

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/storage"
)

const (
	// DefaultUploadIdle is after how long without progress an upload is given up.
	DefaultUploadIdle = 24 * time.Hour
	// DefaultGrace is how old a file that nobody refers to must be before it goes.
	DefaultGrace = time.Hour

	collectPage = 1000 // references and uploads looked at between two looks at ctx
)

// Update implements storage.Keeping.
func (d *Disk) Update(ctx context.Context, a storage.Account, c cid.CID, change storage.Change,
) (storage.Ref, error) {
	if err := d.enter(); err != nil {
		return storage.Ref{}, err
	}
	defer d.calls.Done()
	if err := ctx.Err(); err != nil {
		return storage.Ref{}, err
	}
	lock := d.lockAccount(a)
	lock.Lock()
	defer lock.Unlock()
	old, held, err := d.ref(a, c)
	if err != nil {
		return storage.Ref{}, err
	}
	if !held {
		return storage.Ref{}, storage.NotFound(c)
	}
	return d.update(a, old, change)
}

func (d *Disk) update(a storage.Account, old storage.Ref, what storage.Change) (
	storage.Ref, error,
) {
	ref := old
	if what.Pinned != nil {
		ref.Pinned = *what.Pinned
	}
	if what.Expires != nil {
		if ref.Expires = *what.Expires; !ref.Expires.IsZero() {
			ref.Expires = timeOf(ref.Expires.UnixMilli())
		}
	}
	if ref == old {
		return ref, nil // nothing is to be written
	}
	by, err := d.linkedBy(a, old.CID, nil)
	if err != nil {
		return storage.Ref{}, err
	}
	if err := d.room(0, indexRoom); err != nil {
		return storage.Ref{}, err
	}
	if err := d.step(stepUpdate); err != nil {
		return storage.Ref{}, diskError(stepUpdate, err)
	}
	b, err := d.change(a)
	if err != nil {
		return storage.Ref{}, err
	}
	b.replace(old, ref, !by.IsZero())
	b.tell(storage.RefChanged, ref)
	return ref, b.commit()
}

// Collect implements storage.Keeping.
func (d *Disk) Collect(ctx context.Context, dryRun bool) (storage.Collected, error) {
	if err := d.enter(); err != nil {
		return storage.Collected{}, err
	}
	defer d.calls.Done()
	d.collecting.Lock()
	defer d.collecting.Unlock()
	p := pass{d: d, ctx: ctx, dry: dryRun, now: d.cfg.Now()}
	for _, part := range []func() error{p.expire, p.uploads, p.intents, p.files, p.leftovers} {
		if err := part(); err != nil {
			return p.got, fmt.Errorf("collect garbage: %w", err)
		}
	}
	return p.got, nil
}

// pass is one collection.
type pass struct {
	d   *Disk
	ctx context.Context
	dry bool
	now time.Time
	got storage.Collected
}

// expire ends the references whose time has come, oldest first.
func (p *pass) expire() error {
	end := binary.BigEndian.AppendUint64([]byte{keyExpiry}, uint64(p.now.UnixMilli()+1))
	from := []byte{keyExpiry}
	for {
		keys, err := p.d.page(from, end, collectPage)
		if err != nil || len(keys) == 0 {
			return err
		}
		for _, key := range keys {
			if err := p.expireOne(key); err != nil {
				return err
			}
		}
		from = append(keys[len(keys)-1], 0)
	}
}

func (p *pass) expireOne(key []byte) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	const at = 1 + 8
	a := storage.Account(key[at : at+accountSize])
	c, err := cid.FromBytes(key[at+accountSize:])
	if err != nil {
		return fmt.Errorf("storage index key %x: %w", key, err)
	}
	freed := int64(0)
	if !p.dry {
		freed, err = p.d.remove(a, c, ending{storage.RefExpired, func(ref storage.Ref) error {
			if !mayExpire(ref) || ref.Expires.After(p.now) {
				return storage.Pinned(c) // changed meanwhile
			}
			return nil
		}})
	}
	switch fault.ReasonOf(err) {
	case storage.ReasonPinned, storage.ReasonInDirectory, storage.ReasonNotFound:
		return nil
	}
	if err == nil {
		p.got.References++
		p.freed(freed)
	}
	return err
}

func (p *pass) freed(bytes int64) {
	if bytes > 0 {
		p.got.Blobs++
		p.got.Bytes += bytes
	}
}

// intents frees what an earlier removal or upload could not.
func (p *pass) intents() error {
	intents, err := p.d.intents()
	if err != nil || p.dry {
		return err
	}
	for _, c := range intents {
		if err := p.intent(c); err != nil {
			return err
		}
	}
	return p.ctx.Err()
}

func (p *pass) intent(c cid.CID) error {
	size, was, err := p.d.settleLocked(c)
	if err == nil && was {
		p.freed(size)
	}
	return err
}

// settleLocked settles the intent on c, if it still is there, and says how large its files were.
func (d *Disk) settleLocked(c cid.CID) (size int64, was bool, err error) {
	lock := d.lockBlob(c) // a Put holds it from its intent to its end
	lock.Lock()
	defer lock.Unlock()
	if _, was, err = d.get(cidKey(keyIntent, c)); err != nil || !was {
		return 0, was, err
	}
	size = d.sizeOf(c)
	return size, true, d.settle(c)
}

// files frees old files in blobs/ whose blob nobody holds.
func (p *pass) files() error {
	for i := range shards {
		dir := filepath.Join(p.d.cfg.Dir, blobsDir, fmt.Sprintf("%02x", i))
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if err := p.ctx.Err(); err != nil {
				return err
			}
			if err := p.file(dir, entry); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *pass) file(dir string, entry fs.DirEntry) error {
	c, err := cid.Parse(strings.TrimSuffix(entry.Name(), outboardSuffix))
	if err != nil {
		return nil // not ours: an operator's own
	}
	held, err := p.d.anyHolder(c)
	if err != nil || held || !p.old(entry) {
		return err
	}
	lock := p.d.lockBlob(c)
	lock.Lock()
	defer lock.Unlock()
	if held, err = p.d.anyHolder(c); err != nil || held {
		return err
	}
	size := fileSize(filepath.Join(dir, entry.Name()))
	if !p.dry {
		if err := p.d.settle(c); err != nil {
			return err
		}
	}
	p.freed(size)
	return nil
}

// old reports whether a file has outlived its grace; one that is gone has not.
func (p *pass) old(entry fs.DirEntry) bool {
	info, err := entry.Info()
	return err == nil && p.now.Sub(info.ModTime()) >= p.d.cfg.Grace
}

// leftovers removes files of uploads without a record and temporary files that no call has open.
func (p *pass) leftovers() error {
	for _, name := range []string{tmpDir, uploadsDir} {
		dir := filepath.Join(p.d.cfg.Dir, name)
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			path := filepath.Join(dir, entry.Name())
			if !p.old(entry) || p.d.used(path) {
				continue
			}
			p.freed(fileSize(path))
			if !p.dry {
				if err := removeIfThere(path); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// used reports whether a file belongs to an upload.
func (d *Disk) used(path string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	base := strings.TrimSuffix(filepath.Base(path), outboardSuffix)
	if d.open[base] {
		return true
	}
	raw, err := hex.DecodeString(base)
	if err != nil || len(raw) != len(storage.UploadID{}) {
		return false
	}
	_, known := d.uploads[storage.UploadID(raw)]
	return known
}

func (d *Disk) sizeOf(c cid.CID) int64 {
	return fileSize(d.path(c)) + fileSize(d.path(c)+outboardSuffix)
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// ending is why a reference ends. allowed may refuse, under the account's lock.
type ending struct {
	what    storage.What
	allowed func(storage.Ref) error
}

// remove ends a reference, frees the bytes if it was the last, and says how many.
func (d *Disk) remove(a storage.Account, c cid.CID, how ending) (freed int64, err error) {
	lock := d.lockBlob(c)
	lock.Lock()
	defer lock.Unlock()
	orphaned, err := d.release(a, c, how)
	if err != nil || !orphaned {
		return 0, err
	}
	size := d.sizeOf(c)
	if err := d.settle(c); err != nil {
		// The reference is gone and that is durable; the intent frees the bytes at the next pass.
		d.cfg.Log.Error("bytes of a removed blob not freed yet", "cid", c.String(), "error", err)
		return 0, nil
	}
	return size, nil
}

// page returns up to limit keys of [from, end).
func (d *Disk) page(from, end []byte, limit int) (keys [][]byte, err error) {
	err = d.eachBetween(from, end, func(key, _ []byte) error {
		if keys = append(keys, key); len(keys) == limit {
			return errStop
		}
		return nil
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return keys, err
}
