// Package pebble keeps Pebble from running in circles on a disk that takes nothing more. It tries a
// flush or a compaction that failed again at once, without end: a full disk then costs a processor
// and thousands of lines of log a second. Patient makes what fails wait, so that it is tried once a
// second, and goes on by itself when there is room. It does not make room, and a log that cannot be
// written still ends the process.
package pebble

import (
	"log/slog"
	"sync"
	"time"

	db "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// Pause is how long a write that failed takes to say so.
	Pause = time.Second
	// Word is how often a store that keeps failing says so in the log.
	Word = time.Minute
)

// Patient makes a store's failed writes wait, and its failures in the background be logged at most
// once in Word, with how many there were. Call it on otherwise complete options. A nil log is told
// nothing.
func Patient(o *db.Options, dir string, log *slog.Logger) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	o.FS = fs{o.FS}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	v := &voice{log: log, dir: dir}
	o.AddEventListener(db.EventListener{BackgroundError: v.failed})
}

// voice says that a store fails.
type voice struct {
	log *slog.Logger
	dir string

	mu    sync.Mutex // guards last and times
	last  time.Time
	times int64
}

func (v *voice) failed(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.times++
	if now := time.Now(); v.last.IsZero() || now.Sub(v.last) >= Word {
		v.last = now
		v.log.Error("a store cannot put its files in order: it tries again every second",
			"dir", v.dir, "error", err.Error(), "times", v.times)
	}
}

// fs is a file system whose failed writes wait. Nobody else waits for them.
type fs struct{ vfs.FS }

var _ vfs.FS = fs{}

func waited(err error) error {
	if err != nil {
		time.Sleep(Pause)
	}
	return err
}

func (f fs) opened(got vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return got, waited(err)
	}
	return file{got}, nil
}

// Create implements vfs.FS.
func (f fs) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return f.opened(f.FS.Create(name, category))
}

// ReuseForWrite implements vfs.FS.
func (f fs) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return f.opened(f.FS.ReuseForWrite(from, to, category))
}

// Unwrap implements vfs.FS.
func (f fs) Unwrap() vfs.FS { return f.FS }

// file is a file whose failed writes wait.
type file struct{ vfs.File }

// Write implements vfs.File.
func (f file) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, waited(err)
}

// WriteAt implements vfs.File.
func (f file) WriteAt(p []byte, at int64) (int, error) {
	n, err := f.File.WriteAt(p, at)
	return n, waited(err)
}

// Sync implements vfs.File.
func (f file) Sync() error { return waited(f.File.Sync()) }

// SyncData implements vfs.File.
func (f file) SyncData() error { return waited(f.File.SyncData()) }

// SyncTo implements vfs.File.
func (f file) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	return full, waited(err)
}
