package pebble_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	db "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/space/pebble"
)

// tooMany ends a test that would run in circles for ever.
const tooMany = 1000

// disk takes no tables while full is set, and counts the refusals.
type disk struct {
	full    atomic.Bool
	refused atomic.Int64
	err     error
}

func (d *disk) before(op errorfs.Op) error {
	if !d.full.Load() || op.Kind != errorfs.OpFileWrite || !strings.HasSuffix(op.Path, ".sst") {
		return nil
	}
	if d.refused.Add(1) > tooMany {
		return nil
	}
	return d.err
}

// TestFailedFlushesArePaced: what cannot be flushed is tried once a second and told once a minute,
// other calls do not wait for that, and with room it goes on by itself.
func TestFailedFlushesArePaced(t *testing.T) {
	for name, err := range map[string]error{"full": unix.ENOSPC, "quota": unix.EDQUOT,
		"broken": unix.EIO} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { paced(t, &disk{err: err}) })
		})
	}
}

func paced(t *testing.T, d *disk) {
	var log bytes.Buffer
	options := &db.Options{FS: errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(d.before)),
		Logger: silent{}}
	pebble.Patient(options, "index", slog.New(slog.NewTextHandler(&log, nil)))
	store, err := db.Open("index", options)
	if err != nil {
		t.Fatal(err)
	}
	set(t, store, "a")
	d.full.Store(true)
	flushed, err := store.AsyncFlush()
	if err != nil {
		t.Fatal(err)
	}
	const minutes = 3
	time.Sleep(minutes*time.Minute - time.Second/2) // in the bubble
	if n := d.refused.Load(); n < 60*minutes-10 || n > 60*minutes+10 {
		t.Errorf("%d attempts in %d minutes, want one a second", n, minutes)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != minutes {
		t.Errorf("%d words in %d minutes, want one a minute:\n%s", n, minutes, log.String())
	}
	start := time.Now()
	if set(t, store, "b"); time.Since(start) != 0 {
		t.Errorf("a write waited %v for the flush", time.Since(start))
	}
	d.full.Store(false)
	<-flushed
	if waited := time.Since(start); waited > pebble.Pause {
		t.Errorf("with room the flush came after %v", waited)
	}
	has(t, store, "a", "b")
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func set(t *testing.T, store *db.DB, key string) {
	t.Helper()
	if err := store.Set([]byte(key), []byte("value of "+key), db.Sync); err != nil {
		t.Fatal(err)
	}
}

func has(t *testing.T, store *db.DB, keys ...string) {
	t.Helper()
	for _, key := range keys {
		value, closer, err := store.Get([]byte(key))
		if err != nil || string(value) != "value of "+key {
			t.Fatalf("%s is %q, %v", key, value, err)
		}
		if err := closer.Close(); err != nil {
			t.Error(err)
		}
	}
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, _ ...any) {
	panic(format)
}

// first is a log that hands on the error of what it is told first.
type first chan string

func (f first) Enabled(context.Context, slog.Level) bool { return true }
func (f first) WithAttrs([]slog.Attr) slog.Handler       { return f }
func (f first) WithGroup(string) slog.Handler            { return f }
func (f first) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" {
			select {
			case f <- a.Value.String():
			default:
			}
		}
		return true
	})
	return nil
}

// TestFlushOnAFullDisk: on a disk that others filled to its last byte a flush fails, says so, and
// is done once they make room; nothing that was written is lost, also not to the next start.
func TestFlushOnAFullDisk(t *testing.T) {
	dir, inside := kittest.SmallDisk(t, 64<<20)
	if !inside {
		return
	}
	said := make(first, 1)
	start := func() *db.DB {
		options := &db.Options{Logger: silent{}}
		pebble.Patient(options, dir, slog.New(said))
		store, err := db.Open(filepath.Join(dir, "index"), options)
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	store, others := start(), filepath.Join(dir, "others")
	keys := []string{strings.Repeat("a", 8192), strings.Repeat("b", 8192)}
	for _, key := range keys {
		set(t, store, key)
	}
	kittest.Occupy(t, others)
	flushed, err := store.AsyncFlush()
	if err != nil {
		t.Fatal(err)
	}
	if why := <-said; !strings.Contains(why, unix.ENOSPC.Error()) {
		t.Errorf("a flush on a full disk: %s", why)
	}
	has(t, store, keys...)
	if err := os.Remove(others); err != nil {
		t.Fatal(err)
	}
	<-flushed
	for range 2 {
		has(t, store, keys...)
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		store = start()
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}
