package disk_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/disk"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

// onDisk is the one file in the store whose name is that of c, with a suffix.
func onDisk(t *testing.T, dir string, c cid.CID, suffix string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "blobs", "*", c.String()+suffix))
	if err != nil || len(found) != 1 {
		t.Fatalf("files of %s%s: %v, %v", c, suffix, found, err)
	}
	return found[0]
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func TestDamageIsFoundAndRepaired(t *testing.T) {
	const size = 200_000
	tests := []struct {
		name   string
		damage func(t *testing.T, dir string, c cid.CID)
		good   int // bytes that may be served before it is found
	}{
		{"first bit", func(t *testing.T, dir string, c cid.CID) {
			flip(t, onDisk(t, dir, c, ""), 0)
		}, 0},
		{"last bit", func(t *testing.T, dir string, c cid.CID) {
			flip(t, onDisk(t, dir, c, ""), size-1)
		}, size - 1},
		{"outboard", func(t *testing.T, dir string, c cid.CID) {
			flip(t, onDisk(t, dir, c, ".bao"), 8)
		}, 0},
		{"cut short", func(t *testing.T, dir string, c cid.CID) {
			if err := os.Truncate(onDisk(t, dir, c, ""), 100_000); err != nil {
				t.Fatal(err)
			}
		}, 100_000},
		{"data gone", func(t *testing.T, dir string, c cid.CID) {
			if err := os.Remove(onDisk(t, dir, c, "")); err != nil {
				t.Fatal(err)
			}
		}, 0},
		{"outboard gone", func(t *testing.T, dir string, c cid.CID) {
			if err := os.Remove(onDisk(t, dir, c, ".bao")); err != nil {
				t.Fatal(err)
			}
		}, 0},
	}
	for _, kind := range []cid.Kind{cid.File, cid.OCIBlob} {
		for _, test := range tests {
			t.Run(kind.String()+"/"+test.name, func(t *testing.T) {
				var log bytes.Buffer
				cfg := config(t.TempDir(), storage.DefaultLimits())
				cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
				d := open(t, cfg)
				data := storagetest.Bytes(size, 1)
				p := storage.Put{Account: storagetest.Alice(), Kind: kind, SkipHeld: true,
					Expect: storagetest.CIDOf(kind, data)}
				c := storagetest.MustPut(t, d, p, data).Ref.CID
				test.damage(t, cfg.Dir, c)

				checkDamaged(t, d, c, data, test.good)
				if !strings.Contains(log.String(), c.String()) {
					t.Errorf("the log does not name the blob: %s", log.String())
				}
				storagetest.MustPut(t, d, p, data)
				checkHeld(t, d, p.Account, c, true)
				checkConsistent(t, d, cfg.Dir)
			})
		}
	}
}

func checkDamaged(t *testing.T, d *disk.Disk, c cid.CID, data []byte, good int) {
	t.Helper()
	got, err := storagetest.ReadAll(t.Context(), d, storagetest.Alice(), c, storage.Range{})
	if !errors.Is(err, storage.ReasonDataLoss) || !strings.Contains(err.Error(), c.String()) {
		t.Errorf("got %v, want %s with the CID", err, storage.ReasonDataLoss)
	}
	if len(got) > good || !bytes.Equal(got, data[:len(got)]) {
		t.Errorf("%d bytes were served, at most %d are good", len(got), good)
	}
}

func TestUndamagedRangesOfADamagedBlobAreServed(t *testing.T) {
	cfg := config(t.TempDir(), storage.DefaultLimits())
	d := open(t, cfg)
	data := storagetest.Bytes(200_000, 1)
	p := storage.Put{Account: storagetest.Alice(), Kind: cid.OCIBlob}
	c := storagetest.MustPut(t, d, p, data).Ref.CID
	flip(t, onDisk(t, cfg.Dir, c, ""), 199_000)
	r := storage.Range{Offset: 5, Length: 100_000}
	got, err := storagetest.ReadAll(t.Context(), d, p.Account, c, r)
	if err != nil || !bytes.Equal(got, data[5:100_005]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	r = storage.Range{Offset: 199_990, Length: 1}
	got, err = storagetest.ReadAll(t.Context(), d, p.Account, c, r)
	if !errors.Is(err, storage.ReasonDataLoss) || len(got) > 0 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	cfg := config(t.TempDir(), storage.DefaultLimits())
	first := open(t, cfg)
	if second, err := disk.Open(cfg); err == nil {
		closed(t, second)
		t.Fatal("opened twice")
	} else if !strings.Contains(err.Error(), cfg.Dir) {
		t.Errorf("the error does not name the directory: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Usage(t.Context(), storagetest.Alice()); !errors.Is(err,
		storage.ReasonClosed) {
		t.Errorf("after close: %v", err)
	}
	open(t, cfg)
}

func TestConfigurationIsChecked(t *testing.T) {
	good := config("somewhere", storage.DefaultLimits())
	bad := map[string]func(*disk.Config){
		"no directory":   func(c *disk.Config) { c.Dir = "" },
		"small reserve":  func(c *disk.Config) { c.Reserve = disk.MinReserve - 1 },
		"no quota":       func(c *disk.Config) { c.Limits.Bytes = 0 },
		"negative blobs": func(c *disk.Config) { c.Limits.Blobs = -1 },
	}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, spoil := range bad {
		cfg := good
		spoil(&cfg)
		if cfg.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
