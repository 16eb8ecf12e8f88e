// Package pebble keeps the ledger's index of transactions and block hashes in Pebble.
//
// The index is a projection of the block log: nothing is lost with it, so it syncs nothing. After
// a crash it holds a prefix of what was put, and Height says how far; whatever is damaged or of
// another chain is deleted and built anew from the log.
package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/ledger"
)

// format is the on-disk version. Pebble drops old ones; a store it cannot read is built anew.
const format = pebble.FormatTableFormatV6

// Sizes in bytes.
const (
	cacheBytes    = 16 << 20
	memTableBytes = 16 << 20
)

// First bytes of keys.
const (
	keyAnchor      = 'a'
	keyHead        = 'h'
	keyBlock       = 'b'
	keyTransaction = 't'
	keyGranted     = 'g'
	keyFormat      = 'f'
	keyTime        = 'i'
	keyNode        = 'n'
	keyList        = 'l'
)

// version is of what this package writes; an index of another one is built anew. Version 1, which
// had neither lists nor a version, ends there too.
const version = 5

// minFree is the space in bytes below which nothing is put: Pebble ends the whole process when a
// disk runs full under it, and a ledger must not die of its index. Memory tables, their flushing
// and a compaction fit many times.
const minFree = 8 * memTableBytes

// Config says where an index is and whose it is.
type Config struct {
	// Dir is the directory, made if missing. Everything in it is Pebble's.
	Dir string
	// Anchor is the chain's; an index of another one is deleted.
	Anchor ledger.Hash
	// Head is the last block of the log; an index that knows of later or other blocks is deleted.
	Head ledger.Record
	// Log is told when the index is built anew; nil for nobody.
	Log *slog.Logger

	free func(dir string) (uint64, error) // replaced by tests, as is fs
	fs   vfs.FS
}

// Index implements ledger.Index.
type Index struct {
	config Config
	// lost is set while what is in the directory must be deleted before it is opened. Open, then
	// Mend, alone use it.
	lost bool

	// mu guards the store in use, or why there is none.
	mu   sync.Mutex
	held *held
	why  error
}

var _ ledger.Index = (*Index)(nil)

// freeSpace returns how many bytes may still be written to the file system of a directory.
func freeSpace(dir string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	return s.Bavail * uint64(max(s.Bsize, 0)), nil
}

// enough refuses a disk that may run full under the index.
func enough(dir string, free func(string) (uint64, error)) error {
	left, err := free(dir)
	if err == nil && left < minFree {
		err = fmt.Errorf("the disk of %s has %d bytes left, the index needs %d: %w", dir, left,
			uint64(minFree), unix.ENOSPC)
	}
	return err
}

func key(kind byte, hash ledger.Hash) []byte {
	return append(append(make([]byte, 0, 1+len(hash)), kind), hash[:]...)
}

// Put implements ledger.Index. It refuses while the disk is nearly full.
func (x *Index) Put(ctx context.Context, entries []ledger.IndexEntry) error {
	if len(entries) == 0 || ctx.Err() != nil {
		return ctx.Err()
	}
	if err := enough(x.config.Dir, x.config.free); err != nil {
		return fmt.Errorf("write the index: %w", err)
	}
	h, err := x.use()
	if err != nil {
		return err
	}
	defer h.users.Done()
	batch := h.db.NewBatch()
	for i := 0; i < len(entries) && err == nil; i++ {
		err = put(batch, entries[i])
	}
	if err == nil {
		err = batch.Commit(pebble.NoSync)
	}
	if err := errors.Join(err, batch.Close()); err != nil {
		return fmt.Errorf("write the index: %w", err)
	}
	return nil
}

func put(batch *pebble.Batch, e ledger.IndexEntry) error {
	height := binary.BigEndian.AppendUint64(nil, e.Height)
	if err := batch.Set(key(keyBlock, e.Hash), height, nil); err != nil {
		return err
	}
	for i, id := range e.Transactions {
		place := binary.BigEndian.AppendUint32(height, uint32(i))
		if err := batch.Set(key(keyTransaction, id), place, nil); err != nil {
			return err
		}
	}
	for _, account := range e.Granted {
		if err := batch.Set(key(keyGranted, account), height, nil); err != nil {
			return err
		}
	}
	if err := putLists(batch, &e); err != nil {
		return err
	}
	return batch.Set([]byte{keyHead}, height, nil)
}

// Height implements ledger.Index.
func (x *Index) Height() (uint64, bool, error) {
	value, found, err := x.get([]byte{keyHead}, 8)
	if !found || err != nil {
		return 0, false, err
	}
	return binary.BigEndian.Uint64(value), true, nil
}

// Transaction implements ledger.Index.
func (x *Index) Transaction(id ledger.Hash) (ledger.Location, bool, error) {
	value, found, err := x.get(key(keyTransaction, id), 12)
	if !found || err != nil {
		return ledger.Location{}, false, err
	}
	place := ledger.Location{
		Height: binary.BigEndian.Uint64(value), Index: binary.BigEndian.Uint32(value[8:]),
	}
	return place, true, nil
}

// Block implements ledger.Index.
func (x *Index) Block(hash ledger.Hash) (uint64, bool, error) {
	value, found, err := x.get(key(keyBlock, hash), 8)
	if !found || err != nil {
		return 0, false, err
	}
	return binary.BigEndian.Uint64(value), true, nil
}

// Granted implements ledger.Index.
func (x *Index) Granted(account ledger.Hash) (bool, error) {
	_, found, err := x.get(key(keyGranted, account), 8)
	return found, err
}

// Close implements ledger.Index.
func (x *Index) Close() error {
	x.mu.Lock()
	h := x.held
	x.held, x.why = nil, errClosed
	x.mu.Unlock()
	if h == nil {
		return nil
	}
	return h.close()
}
