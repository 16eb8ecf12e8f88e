package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/kit/fault"
	room "github.com/united-containers/ucn/kit/space/pebble"
	"github.com/united-containers/ucn/services/ledger"
)

// held is an open store.
type held struct {
	db     *pebble.DB
	log    *slog.Logger
	damage atomic.Pointer[error] // the first that was found
	users  sync.WaitGroup        // calls that use it; begun under Index.mu
}

var (
	errForeign = errors.New("the index is of another chain, a longer log or another version")
	errClosed  = errors.New("the index is closed")
)

// awayRetry is what a caller is told to wait for an index that is being mended: as long as the
// ledger waits before it tries again.
const awayRetry = 5 * time.Second

// away is the answer of an index that cannot be asked now.
func away(cause error) error {
	return fault.New(fault.Unavailable, ledger.ReasonLag,
		"the index is away until it is mended; try again").WithRetry(awayRetry).Because(cause)
}

// Open opens the index, deleting it first when it is damaged or of another chain. One whose disk is
// nearly full is away until Mend finds room: a ledger has more to answer than what its index knows.
func Open(c Config) (*Index, error) {
	if c.free == nil {
		c.free = freeSpace
	}
	if c.fs == nil {
		c.fs = vfs.Default
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	x := &Index{config: c}
	err := x.open()
	if errors.Is(err, unix.ENOSPC) {
		c.Log.Warn("the index is away until its disk has room", "dir", c.Dir, "error", err)
		err = nil
	}
	if err != nil {
		return nil, err
	}
	return x, nil
}

// Mend implements ledger.Index.
func (x *Index) Mend(ctx context.Context) error {
	x.mu.Lock()
	h := x.held
	if h != nil && h.damage.Load() == nil {
		x.mu.Unlock()
		return nil
	}
	if x.held = nil; h != nil {
		x.why = *h.damage.Load()
	}
	x.mu.Unlock()
	if h != nil {
		x.lost = true
		if err := h.close(); err != nil {
			x.config.Log.Warn("damaged index did not close well", "dir", x.config.Dir, "error", err)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return x.open()
}

// open puts a store in use, once more if what is there must be deleted.
func (x *Index) open() error {
	h, err := x.tryOpen()
	// A file that is named and not there is damage, too: a power loss in the first moments of an index
	// may leave the name of its manifest and not the manifest.
	if errors.Is(err, errForeign) || pebble.IsCorruptionError(err) ||
		errors.Is(err, fs.ErrNotExist) {
		x.config.Log.Warn("index is built anew from the block log", "dir", x.config.Dir, "error", err)
		x.lost = true
		h, err = x.tryOpen()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.held, x.why = h, err
	return err
}

func (x *Index) tryOpen() (*held, error) {
	c := &x.config
	if x.lost {
		if err := c.fs.RemoveAll(c.Dir); err != nil {
			return nil, fmt.Errorf("remove the damaged index: %w", err)
		}
		x.lost = false
	}
	if err := c.fs.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the index's directory: %w", err)
	}
	if err := enough(c.Dir, c.free); err != nil {
		return nil, fmt.Errorf("open the index: %w", err)
	}
	return open(c)
}

func open(c *Config) (*held, error) {
	h := &held{log: c.Log}
	cache := pebble.NewCache(cacheBytes)
	defer cache.Unref()
	options := &pebble.Options{
		Cache: cache, MemTableSize: memTableBytes, FormatMajorVersion: format,
		Logger: quiet{}, FS: c.fs,
		// Without a listener Pebble ends the process, from a read or a compaction of its own.
		EventListener: &pebble.EventListener{
			DataCorruption: func(i pebble.DataCorruptionInfo) { h.note(i.Details) },
		},
	}
	options.Levels[0].FilterPolicy = bloom.FilterPolicy(10)
	options.Levels[0].Compression = func() *block.CompressionProfile { return block.NoCompression }
	room.Patient(options, c.Dir, c.Log)
	var err error
	if h.db, err = pebble.Open(c.Dir, options); err != nil {
		return nil, fmt.Errorf("open the index: %w", err)
	}
	if err = h.claim(c.Anchor); err == nil {
		err = h.within(c.Head)
	}
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// use returns the store; its users.Done must be called after it. Fault: ledger.ReasonLag.
func (x *Index) use() (*held, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.held == nil {
		return nil, away(x.why)
	}
	if damage := x.held.damage.Load(); damage != nil {
		return nil, away(*damage)
	}
	x.held.users.Add(1)
	return x.held, nil
}

// get returns the value of a key, which must have size bytes.
func (x *Index) get(key []byte, size int) ([]byte, bool, error) {
	h, err := x.use()
	if err != nil {
		return nil, false, err
	}
	defer h.users.Done()
	value, found, err := h.get(key, size)
	return value, found, h.failed(err)
}

// note keeps the first damage and tells of it. Pebble may call it with locks of its own held.
func (h *held) note(damage error) {
	if h.damage.CompareAndSwap(nil, &damage) {
		h.log.Error("the index is damaged and will be built anew", "error", damage)
	}
}

// failed turns damage into an answer, and has it mended.
func (h *held) failed(err error) error {
	if !pebble.IsCorruptionError(err) {
		return err
	}
	h.note(err)
	return away(err)
}

// close waits for the calls that use it. Nobody may begin to.
func (h *held) close() error {
	h.users.Wait()
	if err := h.db.Close(); err != nil {
		return fmt.Errorf("close the index: %w", err)
	}
	return nil
}

// within checks that the index holds nothing that is not in the log, whose files may have been put
// back from an older copy.
func (h *held) within(head ledger.Record) error {
	value, found, err := h.get([]byte{keyHead}, 8)
	if err != nil || !found || binary.BigEndian.Uint64(value) < head.Height {
		return err
	}
	at, known, err := h.get(key(keyBlock, head.Hash), 8)
	if err != nil {
		return err
	}
	height := binary.BigEndian.Uint64(value)
	if height > head.Height || !known || binary.BigEndian.Uint64(at) != height {
		return errForeign
	}
	return nil
}

// claim ties a new index to the chain, or checks that an old one is tied to it.
func (h *held) claim(anchor ledger.Hash) error {
	owner, found, err := h.get([]byte{keyAnchor}, len(anchor))
	if err != nil {
		return err
	}
	if !found {
		err := errors.Join(h.db.Set([]byte{keyAnchor}, anchor[:], pebble.NoSync),
			h.db.Set([]byte{keyFormat}, []byte{version}, pebble.NoSync))
		if err != nil {
			return fmt.Errorf("claim the index: %w", err)
		}
		return nil
	}
	if ledger.Hash(owner) != anchor {
		return errForeign
	}
	written, found, err := h.get([]byte{keyFormat}, 1)
	if err == nil && (!found || written[0] != version) {
		err = errForeign
	}
	return err
}

func (h *held) get(key []byte, size int) ([]byte, bool, error) {
	value, closer, err := h.db.Get(key)
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

// quiet drops what Pebble says about its compactions; what fails is returned as an error.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("index: "+format, args...))
}
