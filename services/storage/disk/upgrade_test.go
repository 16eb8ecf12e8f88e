package disk_test

import (
	"encoding/binary"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/disk"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

// index opens the index of a store that is closed, and hands it to do.
func index(t *testing.T, dir string, do func(db *pebble.DB) error) {
	t.Helper()
	db, err := pebble.Open(filepath.Join(dir, "index"), &pebble.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = do(db)
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestFormatOneIsUpgraded: an index of the first format, whose usage was two numbers of 8 bytes and
// whose references had neither pins nor expiry, opens with everything in it, counted by kind.
func TestFormatOneIsUpgraded(t *testing.T) {
	dir := t.TempDir()
	d := open(t, config(dir, storage.DefaultLimits()))
	alice, bob := storagetest.Alice(), storagetest.Bob()
	files := [][]byte{storagetest.Bytes(70_000, 1), storagetest.Bytes(10, 2), nil}
	for _, data := range files {
		storagetest.MustPut(t, d, storage.Put{Account: alice, Kind: cid.File, Name: "n"}, data)
	}
	layer := storagetest.Bytes(5000, 3)
	storagetest.MustPut(t, d, storage.Put{Account: alice, Kind: cid.OCIBlob, Job: "j"}, layer)
	storagetest.MustPut(t, d, storage.Put{Account: bob, Kind: cid.OCIBlob}, layer)
	closed(t, d)
	index(t, dir, func(db *pebble.DB) error {
		b := db.NewBatch()
		plain := func(a storage.Account, bytes, blobs uint64) {
			value := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, bytes), blobs)
			if err := b.Set(append([]byte{'u'}, a[:]...), value, nil); err != nil {
				t.Fatal(err)
			}
		}
		plain(alice, 75_010, 4)
		plain(bob, 5000, 1)
		if err := b.Set([]byte{'v'}, []byte{1}, nil); err != nil {
			return err
		}
		return b.Commit(pebble.Sync)
	})
	for range 2 { // the second time it is of the new format
		d = open(t, config(dir, storage.DefaultLimits()))
		want := storage.Usage{Bytes: 75_010, Blobs: 4}
		want.Kinds[cid.File] = storage.Count{Bytes: 70_010, Blobs: 3}
		want.Kinds[cid.OCIBlob] = storage.Count{Bytes: 5000, Blobs: 1}
		if u, err := d.Usage(t.Context(), alice); err != nil || u != want {
			t.Errorf("usage %+v, %v; want %+v", u, err, want)
		}
		want = storage.Usage{Bytes: 5000, Blobs: 1}
		want.Kinds[cid.OCIBlob] = storage.Count{Bytes: 5000, Blobs: 1}
		if u, err := d.Usage(t.Context(), bob); err != nil || u != want {
			t.Errorf("usage %+v, %v; want %+v", u, err, want)
		}
		checkConsistent(t, d, dir)
		closed(t, d)
	}
	d = open(t, config(dir, storage.DefaultLimits()))
	change := storage.Change{Pinned: new(bool)}
	*change.Pinned = true
	ref, err := d.Update(t.Context(), alice, storagetest.CIDOf(cid.File, files[0]), change)
	if err != nil || !ref.Pinned || ref.Name != "n" {
		t.Errorf("pin after the upgrade: %+v, %v", ref, err)
	}
	if err := d.Remove(t.Context(), bob, storagetest.CIDOf(cid.OCIBlob, layer)); err != nil {
		t.Error(err)
	}
	checkConsistent(t, d, dir)
}

// TestFormatsOfTheFutureAreRefused: an older program never writes into a newer index.
func TestFormatsOfTheFutureAreRefused(t *testing.T) {
	dir := t.TempDir()
	closed(t, open(t, config(dir, storage.DefaultLimits())))
	index(t, dir, func(db *pebble.DB) error {
		return db.Set([]byte{'v'}, []byte{99}, pebble.Sync)
	})
	if d, err := disk.Open(config(dir, storage.DefaultLimits())); err == nil ||
		!strings.Contains(err.Error(), "format") {
		t.Errorf("%v, %v", d, err)
	}
}
