package segment

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// How a Faulty disk strikes.
type How int

// The ways of a Faulty disk.
const (
	Never How = iota
	// KillBefore ends the process before the effect, KillTorn in its middle, KillAfter when it is
	// done and nobody knows.
	KillBefore
	KillTorn
	KillAfter
	// Full has no room for the effect and those after it.
	Full
)

// String names it for test output.
func (h How) String() string {
	return []string{"never", "before", "torn", "after", "full"}[h]
}

// ErrKilled is what a process that was killed would never see.
var ErrKilled = errors.New("the process is dead")

// Faulty is a disk that strikes at one of its effects. It syncs nothing for real: it knows what
// a power loss may take.
type Faulty struct {
	local
	How How
	// At is the effect it strikes at, from 0; Span how many that need room Full refuses.
	At, Span int
	Random   *rand.Rand

	mu    sync.Mutex
	count int
	dead  bool
	undo  []undo // of what is not durable, oldest first
	own   []*os.File
}

// undo takes an effect back; file is nil for what a directory's sync makes durable.
type undo struct {
	file *os.File
	back func() error
}

// WithDisk puts a log on a disk.
func WithDisk(c Config, d *Faulty) Config {
	c.disk = d
	return c
}

// SnapshotsWithDisk keeps snapshots on a disk.
func SnapshotsWithDisk(dir string, d *Faulty) *Snapshots {
	s := OpenSnapshots(dir)
	s.disk = d
	return s
}

// Count returns how many effects there were.
func (d *Faulty) Count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count
}

// Died tells whether it has struck.
func (d *Faulty) Died() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

// PowerLoss takes back some of what was not durable: the newest effects, down to a random one.
func (d *Faulty) PowerLoss() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	keep := d.Random.IntN(len(d.undo) + 1)
	for i := len(d.undo) - 1; i >= keep; i-- {
		if err := d.undo[i].back(); err != nil {
			return err
		}
	}
	return nil
}

// Close lets go of its own handles.
func (d *Faulty) Close() {
	for _, f := range d.own {
		_ = f.Close()
	}
}

// effect does something to the disk, or strikes. room says that it needs space. mu is not held.
func (d *Faulty) effect(room bool, do, torn func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return ErrKilled
	}
	now := d.count
	d.count++
	if d.How == Full && now >= d.At && d.Span > 0 && room {
		d.Span--
		if torn != nil && d.Random.IntN(2) == 0 {
			_ = torn()
		}
		return unix.ENOSPC
	}
	if d.How == Never || d.How == Full || now != d.At {
		return do()
	}
	d.dead = true
	switch {
	case d.How == KillTorn && torn != nil:
		_ = torn()
	case d.How == KillAfter:
		_ = do()
	}
	return ErrKilled
}

// made notes how to take back an effect that was done.
func (d *Faulty) made(file *os.File, back func() error) {
	d.undo = append(d.undo, undo{file, back})
}

// durable forgets how to take back what is durable now.
func (d *Faulty) durable(file *os.File) {
	kept := d.undo[:0]
	for _, u := range d.undo {
		if u.file != file {
			kept = append(kept, u)
		}
	}
	d.undo = kept
}

type faultyFile struct {
	file
	disk *Faulty
	own  *os.File // outlives the log's handle, and any renaming
}

func (d *Faulty) open(path string, fresh bool) (file, error) {
	var f file
	do := func() (err error) {
		f, err = d.local.open(path, fresh)
		return err
	}
	if !fresh {
		if err := d.alive(); err != nil {
			return nil, err
		}
		if err := do(); err != nil {
			return nil, err
		}
	} else if err := d.effect(true, func() error {
		d.made(nil, func() error { return d.local.remove(path) })
		return do()
	}, nil); err != nil {
		if f != nil {
			_ = f.Close()
		}
		return nil, err
	}
	own, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.own = append(d.own, own)
	d.mu.Unlock()
	return faultyFile{f, d, own}, nil
}

func (d *Faulty) alive() error {
	if d.Died() {
		return ErrKilled
	}
	return nil
}

func (d *Faulty) reserve(f file, size int64) error {
	own := f.(faultyFile)
	return d.effect(true, func() error {
		own.note(0, 0)
		return d.local.reserve(own.file, size)
	}, nil)
}

func (d *Faulty) rename(from, to string) error {
	return d.effect(true, func() error {
		d.made(nil, func() error { return os.Rename(to, from) })
		return d.local.rename(from, to)
	}, nil)
}

func (d *Faulty) remove(path string) error {
	return d.effect(false, func() error {
		if b, err := os.ReadFile(path); err == nil {
			d.made(nil, func() error { return os.WriteFile(path, b, 0o600) })
		}
		return d.local.remove(path)
	}, nil)
}

func (d *Faulty) syncDir(string) error {
	return d.effect(true, func() error { d.durable(nil); return nil }, nil)
}

// WriteAt tears at a random byte.
func (f faultyFile) WriteAt(b []byte, at int64) (n int, err error) {
	write := func(b []byte) func() error {
		return func() error {
			f.note(at, int64(len(b)))
			n, err = f.file.WriteAt(b, at)
			return err
		}
	}
	err = f.disk.effect(true, write(b), func() error {
		return write(b[:f.disk.Random.IntN(len(b))])()
	})
	return n, err
}

func (f faultyFile) Sync() error {
	return f.disk.effect(true, func() error { f.disk.durable(f.own); return nil }, nil)
}

func (f faultyFile) Truncate(size int64) error {
	return f.disk.effect(false, func() error {
		f.note(size, 1<<30)
		return f.file.Truncate(size)
	}, nil)
}

// note makes it possible to take back what happens to a range of the file, and to its size.
func (f faultyFile) note(at, length int64) {
	info, err := f.own.Stat()
	if err != nil {
		panic(err)
	}
	old := make([]byte, max(0, min(length, info.Size()-at)))
	if _, err := f.own.ReadAt(old, at); err != nil && !errors.Is(err, io.EOF) {
		panic(err)
	}
	f.disk.made(f.own, func() error {
		if _, err := f.own.WriteAt(old, at); err != nil {
			return err
		}
		return f.own.Truncate(info.Size())
	})
}
