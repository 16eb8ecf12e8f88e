package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"

	"github.com/united-containers/ucn/kit/cid"
	room "github.com/united-containers/ucn/kit/space/pebble"
	"github.com/united-containers/ucn/services/storage"
)

// The keys of the index; a CID is in its binary form of 36 bytes.
const (
	keyVersion = 'v' //                 -> format number
	keyRef     = 'r' // account, cid    -> refRecord
	keyHolder  = 'h' // cid, account    -> nothing
	keyUsage   = 'u' // account         -> counts: all, pinned, each kind
	keyBlob    = 'b' // cid             -> size, BLAKE3 root
	keyIntent  = 'p' // cid             -> nothing: files may be here without a holder
	keyDamaged = 'd' // cid             -> nothing: the next Put replaces the files
	keyUpload  = 'w' // account, upload -> uploadRecord
	keyBlind   = 's' //                 -> cid.BlindKey
	keyOutbox  = 'o' // the outbox's own keys

	format       = 3
	indexCache   = 8 << 20
	indexMem     = 4 << 20
	blobRecord   = 8 + cid.SumSize
	accountSize  = len(storage.Account{})
	maxIndexFile = 64 // file handles Pebble keeps
)

// refRecord is a storage.Ref at rest.
type refRecord struct {
	Size    int64  `json:"size"`
	Name    string `json:"name,omitempty"`
	Job     string `json:"job,omitempty"`
	Created int64  `json:"created"` // Unix milliseconds
	Pinned  bool   `json:"pinned,omitempty"`
	Expires int64  `json:"expires,omitempty"` // Unix milliseconds
	Total   int64  `json:"total,omitempty"`
	Height  int    `json:"height,omitempty"`
}

// blob is what the index knows of a blob whoever holds it.
type blob struct {
	size int64
	root [cid.SumSize]byte
}

func (d *Disk) openIndex() error {
	d.cache = pebble.NewCache(indexCache)
	dir, options := filepath.Join(d.cfg.Dir, indexDir), &pebble.Options{
		Cache:        d.cache,
		MemTableSize: indexMem,
		MaxOpenFiles: maxIndexFile,
		Logger:       indexLog{d.cfg.Log},
	}
	room.Patient(options, dir, d.cfg.Log)
	db, err := pebble.Open(dir, options)
	if err != nil {
		d.cache.Unref()
		return fmt.Errorf("open storage index (is another process using %s?): %w", d.cfg.Dir, err)
	}
	d.db = db
	err = d.checkFormat()
	if err == nil {
		err = d.openOutbox()
	}
	if err != nil {
		return errors.Join(err, d.closeIndex())
	}
	return nil
}

func (d *Disk) closeIndex() error {
	err := d.db.Close()
	d.cache.Unref()
	if err != nil {
		return fmt.Errorf("close storage index: %w", err)
	}
	return nil
}

func (d *Disk) checkFormat() error {
	v, found, err := d.get([]byte{keyVersion})
	if err != nil {
		return err
	}
	if !found {
		return d.upgrade(false)
	}
	if len(v) == 1 && (v[0] == formatPlain || v[0] == formatSilent) {
		return d.upgrade(v[0] == formatPlain)
	}
	if len(v) != 1 || v[0] != format {
		return fmt.Errorf("storage index has format %x, this program reads %d", v, format)
	}
	return nil
}

func (d *Disk) get(key []byte) ([]byte, bool, error) {
	value, closer, err := d.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read storage index: %w", err)
	}
	value = bytes.Clone(value)
	return value, true, closer.Close()
}

func (d *Disk) ref(a storage.Account, c cid.CID) (storage.Ref, bool, error) {
	value, found, err := d.get(refKey(a, c))
	if err != nil || !found {
		return storage.Ref{}, false, err
	}
	ref, err := decodeRef(c, value)
	return ref, err == nil, err
}

func (d *Disk) refs(ctx context.Context, a storage.Account, after cid.CID, limit int,
) (found []storage.Ref, err error) {
	lower := refKey(a, after)
	if !after.IsZero() {
		lower = append(lower, 0)
	}
	it, err := d.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: lower,
		UpperBound: above(refKey(a, cid.CID{}))})
	if err != nil {
		return nil, fmt.Errorf("list storage index: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok && len(found) < limit; ok = it.Next() {
		c, err := cid.FromBytes(it.Key()[1+accountSize:])
		if err != nil {
			return nil, fmt.Errorf("storage index key %x: %w", it.Key(), err)
		}
		ref, err := decodeRef(c, it.Value())
		if err != nil {
			return nil, err
		}
		found = append(found, ref)
	}
	return found, it.Error()
}

func (d *Disk) blob(c cid.CID) (blob, bool, error) {
	value, found, err := d.get(cidKey(keyBlob, c))
	if err != nil || !found {
		return blob{}, false, err
	}
	if len(value) != blobRecord {
		return blob{}, false, fmt.Errorf("blob record of %s has %d bytes", c, len(value))
	}
	return blob{size: int64(binary.BigEndian.Uint64(value)),
		root: [cid.SumSize]byte(value[8:])}, true, nil
}

func (d *Disk) damaged(c cid.CID) (bool, error) {
	_, found, err := d.get(cidKey(keyDamaged, c))
	return found, err
}

func (d *Disk) anyHolder(c cid.CID) (held bool, err error) {
	held, err = d.anyOther(c, nil)
	return held, err
}

// anyOther reports whether an account other than except holds c.
func (d *Disk) anyOther(c cid.CID, except *storage.Account) (held bool, err error) {
	prefix := cidKey(keyHolder, c)
	it, err := d.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: above(prefix)})
	if err != nil {
		return false, fmt.Errorf("read holders: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		if except == nil || !bytes.Equal(it.Key()[len(prefix):], except[:]) {
			return true, nil
		}
	}
	return false, it.Error()
}

func (d *Disk) intents() (found []cid.CID, err error) {
	prefix := []byte{keyIntent}
	it, err := d.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: above(prefix)})
	if err != nil {
		return nil, fmt.Errorf("read intents: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		c, err := cid.FromBytes(it.Key()[1:])
		if err != nil {
			return nil, fmt.Errorf("intent %x: %w", it.Key(), err)
		}
		if found = append(found, c); len(found) > maxOrphans {
			return nil, fmt.Errorf("more than %d intents in the storage index", maxOrphans)
		}
	}
	return found, it.Error()
}

// intend makes it durable that c's files are about to appear.
func (d *Disk) intend(c cid.CID) error {
	return d.db.Set(cidKey(keyIntent, c), nil, pebble.Sync)
}

func (d *Disk) dropIntent(c cid.CID, held bool) error {
	b := d.db.NewBatch()
	var err error
	drop := func(key []byte) { err = errors.Join(err, b.Delete(key, nil)) }
	drop(cidKey(keyIntent, c))
	if !held {
		drop(cidKey(keyBlob, c))
		drop(cidKey(keyDamaged, c))
	}
	return d.commit(b, err, pebble.NoSync)
}

func (d *Disk) commit(b *pebble.Batch, err error, how *pebble.WriteOptions) error {
	if err == nil {
		err = b.Commit(how)
	}
	if err = errors.Join(err, b.Close()); err != nil {
		return fmt.Errorf("write storage index: %w", err)
	}
	return nil
}

func encodeBlob(b blob) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(b.size)), b.root[:]...)
}

func refKey(a storage.Account, c cid.CID) []byte {
	key := append(make([]byte, 0, 80), keyRef)
	return append(append(key, a[:]...), c.Bytes()...)
}

func cidKey(kind byte, c cid.CID) []byte {
	return append(append(make([]byte, 0, 80), kind), c.Bytes()...)
}

// above is the smallest key greater than every key that starts with prefix, whose bytes are never
// all 0xff here: the first is a letter.
func above(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; ; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
}

// indexLog passes Pebble's errors on. A fatal one (the index's log cannot be written) must not
// return: the process ends, and the next start recovers.
type indexLog struct{ log *slog.Logger }

func (l indexLog) Infof(string, ...any) {}

func (l indexLog) Errorf(format string, args ...any) {
	l.log.Error("storage index", "error", fmt.Sprintf(format, args...))
}

func (l indexLog) Fatalf(format string, args ...any) {
	panic("storage index: " + fmt.Sprintf(format, args...))
}
