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
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable/block"
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

	free func(dir string) (uint64, error) // replaced by tests
}

// Index implements ledger.Index.
type Index struct {
	db   *pebble.DB
	dir  string
	free func(dir string) (uint64, error)
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

// Open opens the index, deleting it first when it is damaged or of another chain.
func Open(c Config) (*Index, error) {
	if c.free == nil {
		c.free = freeSpace
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the index's directory: %w", err)
	}
	if err := enough(c.Dir, c.free); err != nil {
		return nil, fmt.Errorf("open the index: %w", err)
	}
	index, err := open(c)
	if err == nil {
		return index, nil
	}
	if !errors.Is(err, errForeign) && !pebble.IsCorruptionError(err) {
		return nil, err
	}
	c.Log.Warn("index is built anew from the block log", "dir", c.Dir, "error", err)
	if err := os.RemoveAll(c.Dir); err != nil {
		return nil, fmt.Errorf("remove the damaged index: %w", err)
	}
	return open(c)
}

var errForeign = errors.New("the index is of another chain, a longer log or another version")

func open(c Config) (*Index, error) {
	cache := pebble.NewCache(cacheBytes)
	defer cache.Unref()
	options := &pebble.Options{
		Cache: cache, MemTableSize: memTableBytes, FormatMajorVersion: format,
		Logger: quiet{},
	}
	options.Levels[0].FilterPolicy = bloom.FilterPolicy(10)
	options.Levels[0].Compression = func() *block.CompressionProfile { return block.NoCompression }
	db, err := pebble.Open(c.Dir, options)
	if err != nil {
		return nil, fmt.Errorf("open the index: %w", err)
	}
	index := &Index{db: db, dir: c.Dir, free: c.free}
	err = index.claim(c.Anchor)
	if err == nil {
		err = index.within(c.Head)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return index, nil
}

// within checks that the index holds nothing that is not in the log, whose files may have been put
// back from an older copy.
func (x *Index) within(head ledger.Record) error {
	height, found, err := x.Height()
	if err != nil || !found || height < head.Height {
		return err
	}
	at, known, err := x.Block(head.Hash)
	if err != nil {
		return err
	}
	if height > head.Height || !known || at != height {
		return errForeign
	}
	return nil
}

// claim ties a new index to the chain, or checks that an old one is tied to it.
func (x *Index) claim(anchor ledger.Hash) error {
	held, found, err := x.get([]byte{keyAnchor}, len(anchor))
	if err != nil {
		return err
	}
	if !found {
		err := errors.Join(x.db.Set([]byte{keyAnchor}, anchor[:], pebble.NoSync),
			x.db.Set([]byte{keyFormat}, []byte{version}, pebble.NoSync))
		if err != nil {
			return fmt.Errorf("claim the index: %w", err)
		}
		return nil
	}
	if ledger.Hash(held) != anchor {
		return errForeign
	}
	written, found, err := x.get([]byte{keyFormat}, 1)
	if err == nil && (!found || written[0] != version) {
		err = errForeign
	}
	return err
}

// get returns the value of a key, which must have size bytes.
func (x *Index) get(key []byte, size int) ([]byte, bool, error) {
	value, closer, err := x.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read the index: %w", err)
	}
	own := append([]byte(nil), value...)
	if err := closer.Close(); err != nil {
		return nil, false, fmt.Errorf("read the index: %w", err)
	}
	if len(own) != size {
		return nil, false, fmt.Errorf("index holds %d bytes where %d belong: %w", len(own), size,
			pebble.ErrCorruption)
	}
	return own, true, nil
}

func key(kind byte, hash ledger.Hash) []byte {
	return append(append(make([]byte, 0, 1+len(hash)), kind), hash[:]...)
}

// Put implements ledger.Index. It refuses while the disk is nearly full.
func (x *Index) Put(ctx context.Context, entries []ledger.IndexEntry) error {
	if len(entries) == 0 || ctx.Err() != nil {
		return ctx.Err()
	}
	if err := enough(x.dir, x.free); err != nil {
		return fmt.Errorf("write the index: %w", err)
	}
	batch := x.db.NewBatch()
	var err error
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
	if err := x.db.Close(); err != nil {
		return fmt.Errorf("close the index: %w", err)
	}
	return nil
}

// quiet drops what Pebble says about its compactions; what fails is returned as an error.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("index: "+format, args...))
}
