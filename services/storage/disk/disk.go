// Package disk keeps blobs as files on a local disk, with their Bao outboards beside them and the
// index of references and usage in Pebble.
//
// Layout under Config.Dir:
//
//	blobs/<first hash byte, hex>/<cid>      the bytes
//	blobs/<first hash byte, hex>/<cid>.bao  the outboard, when the blob is more than one group
//	tmp/                                    puts under way; emptied at start
//	uploads/<id>                            uploads that can be resumed; the index has their offsets
//	index/                                  Pebble, locked against a second process
//
// A Put syncs its temporary files, writes an intent to the index, renames, syncs the directory and
// commits reference, usage and the end of the intent in one synced batch. A Remove commits its
// intent with the reference's end before it unlinks. Open finishes or undoes every intent it finds,
// so kill -9 between any two of these writes leaves a whole blob or none. OCI blobs carry a BLAKE3
// root in the index, computed while their SHA2-256 was, so that their ranges verify too.
//
// It does not replicate, and it does not scrub: damage is found when a blob is read.
package disk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
)

const (
	blobsDir   = "blobs"
	tmpDir     = "tmp"
	indexDir   = "index"
	dirMode    = 0o700
	shards     = 256
	lockStripe = 256
	// maxWriters bounds the pieces of uploads that are hashed and written at once. Further ones wait.
	// An upload holds 64 KiB, and 32 bytes for every 16 KiB of its blob.
	maxWriters = 64
	// maxOrphans bounds the intents one start settles before it says so; there are at most as many
	// as writers and removers that were under way, so more is a broken index.
	maxOrphans = 1 << 20
)

// Config says where and how much. The zero value but for Dir is not valid; start from Default.
type Config struct {
	// Dir is the store's own directory, on one file system. It is created when missing.
	Dir string
	// Limits bounds blobs and accounts.
	Limits storage.Limits
	// Reserve is how many bytes of the file system stay free; a Put that would go below is
	// ReasonFull. It keeps the index writable and must be at least MinReserve.
	Reserve int64
	// UploadIdle is after how long without progress an upload is given up, DefaultUploadIdle when 0;
	// Grace is how old a file without holder must be before a pass frees it, DefaultGrace when 0.
	UploadIdle, Grace time.Duration
	// Outbox opens the outbox of events inside the index; nil tells nobody what happens.
	Outbox OpenOutbox
	// EventRate and EventBurst bound the changes of one account that are told, per second over time
	// and at once; what is beyond is ReasonEventRate. What hosts of its jobs put counts apart, with
	// eight times the rate. DefaultEventRate and DefaultEventBurst when 0.
	EventRate  float64
	EventBurst int
	// Now is the clock, time.Now when nil.
	Now func() time.Time
	// Log receives damage found and recovery done; discarded when nil.
	Log *slog.Logger
}

// MinReserve is the least Reserve: room for the index to write what a Remove needs.
const MinReserve = 16 << 20

// Default is the configuration for dir: default limits and 256 MiB of reserve.
func Default(dir string) Config {
	return Config{Dir: dir, Limits: storage.DefaultLimits(), Reserve: 256 << 20}
}

// Validate refuses a configuration that Open would refuse.
func (c Config) Validate() error {
	if c.Dir == "" {
		return errors.New("storage directory is not set")
	}
	if c.Reserve < MinReserve {
		return fmt.Errorf("storage reserve is %d bytes, at least %d", c.Reserve, MinReserve)
	}
	if c.UploadIdle < 0 || c.Grace < 0 {
		return errors.New("upload idle time and grace must not be negative")
	}
	if !(c.EventRate >= 0) || c.EventBurst < 0 {
		return errors.New("event rate and burst must not be negative")
	}
	return c.Limits.Validate()
}

// Disk is a storage.Store on a local disk.
type Disk struct {
	cfg     Config
	db      *pebble.DB
	cache   *pebble.Cache
	seed    maphash.Seed
	writers chan struct{}
	hook    func(step) error // for tests: called before each effect

	// blobLocks serialize what changes one blob's files and holders, accountLocks what changes one
	// account's usage. A blob's lock is taken before an account's.
	blobLocks    [lockStripe]sync.Mutex
	accountLocks [lockStripe]sync.Mutex

	collecting sync.Mutex // one pass at a time
	damaging   sync.Mutex // held while damage is noted, so that it is told once

	outbox Outbox
	shares *shares
	blind  cid.BlindKey // under which events name blobs

	// mu guards pending, the bytes on their way into each account; open, the temporary files that
	// calls have; uploads, those that can be resumed, and the same by account; and closed.
	mu        sync.Mutex
	pending   map[storage.Account]int64
	open      map[string]bool
	uploads   map[storage.UploadID]*session
	uploadsBy map[storage.Account]*accountUploads
	closed    bool
	calls     sync.WaitGroup
}

var _ storage.Store = (*Disk)(nil)

// Open creates or opens the store and settles what a crash left behind. A directory another process
// has open is an error.
func Open(cfg Config) (*Disk, error) { return open(cfg, nil) }

func open(cfg Config, hook func(step) error) (*Disk, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("storage configuration: %w", err)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.UploadIdle = cmp.Or(cfg.UploadIdle, DefaultUploadIdle)
	cfg.Grace = cmp.Or(cfg.Grace, DefaultGrace)
	cfg.EventRate = cmp.Or(cfg.EventRate, DefaultEventRate)
	cfg.EventBurst = cmp.Or(cfg.EventBurst, DefaultEventBurst)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	d := &Disk{
		cfg:     cfg,
		seed:    maphash.MakeSeed(),
		writers: make(chan struct{}, maxWriters),
		shares:  newShares(cfg.EventRate, cfg.EventBurst),
		hook:    hook,
		pending: make(map[storage.Account]int64),
		open:    make(map[string]bool),
		uploads: make(map[storage.UploadID]*session),

		uploadsBy: make(map[storage.Account]*accountUploads),
	}
	if err := d.makeDirs(); err != nil {
		return nil, fmt.Errorf("create storage directories: %w", err)
	}
	// Pebble would try to write the index for ever, without a pause.
	if err := d.room(0, MinReserve); err != nil {
		return nil, fmt.Errorf("open the storage in %s: %w", cfg.Dir, err)
	}
	if err := d.openIndex(); err != nil {
		return nil, err
	}
	if err := d.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("recover storage: %w", err), d.closeIndex())
	}
	return d, nil
}

// Close waits for the calls under way and closes the index. Later calls are ReasonClosed.
func (d *Disk) Close() error {
	d.mu.Lock()
	was := d.closed
	d.closed = true
	d.mu.Unlock()
	if was {
		return nil
	}
	d.calls.Wait()
	return d.closeIndex()
}

func (d *Disk) enter() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return storage.Closed()
	}
	d.calls.Add(1)
	return nil
}

func (d *Disk) makeDirs() error {
	made := []string{d.cfg.Dir, filepath.Join(d.cfg.Dir, tmpDir), filepath.Join(d.cfg.Dir, blobsDir),
		filepath.Join(d.cfg.Dir, uploadsDir)}
	for i := range shards {
		made = append(made, filepath.Join(d.cfg.Dir, blobsDir, fmt.Sprintf("%02x", i)))
	}
	for _, dir := range made {
		if err := os.MkdirAll(dir, dirMode); err != nil {
			return err
		}
	}
	for _, dir := range []string{made[2], made[0], filepath.Dir(filepath.Clean(made[0]))} {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// recover removes unfinished uploads and settles every intent.
func (d *Disk) recover() error {
	tmp := filepath.Join(d.cfg.Dir, tmpDir)
	left, err := os.ReadDir(tmp)
	if err != nil {
		return err
	}
	for _, entry := range left {
		if err := os.RemoveAll(filepath.Join(tmp, entry.Name())); err != nil {
			return err
		}
	}
	if err := d.loadUploads(); err != nil {
		return err
	}
	intents, err := d.intents()
	if err != nil {
		return err
	}
	for _, c := range intents {
		if err := d.settle(c); err != nil {
			return fmt.Errorf("settle %s: %w", c, err)
		}
	}
	if len(left)+len(intents) > 0 {
		d.cfg.Log.Info("storage recovered", "uploads", len(left), "intents", len(intents))
	}
	return nil
}

// settle ends the intent on c: without holders its files go, with holders they stay. The caller
// holds c's lock, or is alone.
func (d *Disk) settle(c cid.CID) error {
	held, err := d.anyHolder(c)
	if err != nil {
		return err
	}
	if !held {
		if err := d.unlink(c); err != nil {
			return err
		}
	}
	return d.dropIntent(c, held)
}

func (d *Disk) lockBlob(c cid.CID) *sync.Mutex {
	sum := c.Sum()
	return &d.blobLocks[maphash.Bytes(d.seed, sum[:])%lockStripe]
}

func (d *Disk) lockAccount(a storage.Account) *sync.Mutex {
	return &d.accountLocks[maphash.Bytes(d.seed, a[:])%lockStripe]
}

// Stat implements storage.References.
func (d *Disk) Stat(ctx context.Context, a storage.Account, c cid.CID) (storage.Ref, error) {
	if err := d.enter(); err != nil {
		return storage.Ref{}, err
	}
	defer d.calls.Done()
	if err := ctx.Err(); err != nil {
		return storage.Ref{}, err
	}
	ref, held, err := d.ref(a, c)
	if err == nil && !held {
		err = storage.NotFound(c)
	}
	return ref, err
}

// List implements storage.References.
func (d *Disk) List(ctx context.Context, a storage.Account, after cid.CID, limit int,
) ([]storage.Ref, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.calls.Done()
	if limit < 1 || limit > storage.MaxPage {
		return nil, storage.BadRequest("page of %d references, 1 to %d", limit, storage.MaxPage)
	}
	return d.refs(ctx, a, after, limit)
}

// Usage implements storage.References.
func (d *Disk) Usage(ctx context.Context, a storage.Account) (storage.Usage, error) {
	if err := d.enter(); err != nil {
		return storage.Usage{}, err
	}
	defer d.calls.Done()
	if err := ctx.Err(); err != nil {
		return storage.Usage{}, err
	}
	u, err := d.usage(a)
	if err != nil {
		return storage.Usage{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	u.Uploads = d.openUploads(a)
	return u, nil
}

// Remove implements storage.Blobs.
func (d *Disk) Remove(ctx context.Context, a storage.Account, c cid.CID) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.calls.Done()
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := d.remove(a, c, ending{storage.RefRemoved, func(ref storage.Ref) error {
		if ref.Pinned {
			return storage.Pinned(c)
		}
		return nil
	}})
	return err
}
