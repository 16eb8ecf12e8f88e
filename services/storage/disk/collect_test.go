package disk_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

// TestIdleUploadsExpire: an upload is given up when it did not get on for the idle time, and one
// that does lives on; its bytes and its place are free again, and the record of a finished one goes
// as late.
func TestIdleUploadsExpire(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := storage.DefaultLimits()
		l.Uploads = 3
		cfg := config(dir, l)
		cfg.UploadIdle = time.Hour
		d := open(t, cfg)
		ctx, a := t.Context(), storagetest.Alice()
		start := func() storage.UploadID {
			u, err := d.StartUpload(ctx, storage.Put{Account: a, Kind: cid.File})
			if err != nil {
				t.Fatal(err)
			}
			return u.ID
		}
		push := func(id storage.UploadID, at int64) error {
			_, err := d.AppendUpload(ctx, a, id, at, bytes.NewReader(make([]byte, 1000)))
			return err
		}
		idle, busy, finished := start(), start(), start()
		if err := errors.Join(push(idle, 0), push(busy, 0), push(finished, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := d.FinishUpload(ctx, a, finished); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Minute)
		if err := push(busy, 1000); err != nil {
			t.Fatal(err)
		}
		if got, err := d.Collect(ctx, false); err != nil || got.Uploads != 0 {
			t.Errorf("before the idle time: %+v, %v", got, err)
		}
		time.Sleep(20 * time.Minute)
		if got, err := d.Collect(ctx, true); err != nil || got.Uploads != 1 || got.Bytes != 1000 {
			t.Errorf("a dry run: %+v, %v", got, err)
		}
		if got, err := d.Collect(ctx, false); err != nil || got.Uploads != 1 || got.Bytes != 1000 {
			t.Errorf("after the idle time: %+v, %v", got, err)
		}
		wantReason(t, push(idle, 1000), storage.ReasonNoUpload)
		_, err := d.FinishUpload(ctx, a, finished)
		wantReason(t, err, storage.ReasonNoUpload)
		if err := push(busy, 2000); err != nil {
			t.Errorf("the one that got on: %v", err)
		}
		usage, err := d.Usage(ctx, a)
		if err != nil || usage.Uploads != (storage.Count{Bytes: 3000, Blobs: 1}) {
			t.Errorf("usage %+v, %v", usage, err)
		}
		if left, err := os.ReadDir(filepath.Join(dir, "uploads")); err != nil || len(left) != 1 {
			t.Errorf("files of uploads: %v, %v", left, err)
		}
		closed(t, d) // its goroutines belong to this bubble
	})
}

func wantReason(t *testing.T, err error, want fault.Reason) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// TestOrphansOfUploadsGo: files of uploads that nobody knows and temporary files of nobody go once
// they are older than the grace; younger ones and an upload's own stay.
func TestOrphansOfUploadsGo(t *testing.T) {
	dir := t.TempDir()
	cfg := config(dir, storage.DefaultLimits())
	cfg.Grace = time.Hour
	d := open(t, cfg)
	u, err := d.StartUpload(t.Context(), storage.Put{Account: storagetest.Alice(), Kind: cid.File})
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadDir(filepath.Join(dir, "uploads"))
	if err != nil || len(own) != 1 {
		t.Fatal(own, err)
	}
	old := time.Now().Add(-2 * time.Hour)
	orphan := "00112233445566778899aabbccddeeff"
	age(t, filepath.Join(dir, "uploads", own[0].Name()), old)
	for path, at := range map[string]time.Time{
		"uploads/" + orphan: old, "uploads/" + orphan + ".bao": old, "tmp/put-1": old,
		"uploads/0f" + orphan[2:]: time.Now(), "tmp/put-2": time.Now(),
	} {
		if err := os.WriteFile(filepath.Join(dir, path), make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		age(t, filepath.Join(dir, path), at)
	}
	if got, err := d.Collect(t.Context(), false); err != nil || got.Blobs != 3 || got.Bytes != 300 {
		t.Errorf("%+v, %v", got, err)
	}
	for path, want := range map[string]bool{
		"uploads/" + orphan: false, "uploads/" + orphan + ".bao": false, "tmp/put-1": false,
		"uploads/0f" + orphan[2:]: true, "tmp/put-2": true, "uploads/" + own[0].Name(): true,
	} {
		if _, err := os.Stat(filepath.Join(dir, path)); (err == nil) != want {
			t.Errorf("%s: %v, want there: %v", path, err, want)
		}
	}
	if err := d.AbortUpload(t.Context(), storagetest.Alice(), u.ID); err != nil {
		t.Error(err)
	}
}

func age(t *testing.T, path string, at time.Time) {
	t.Helper()
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

// TestUploadsAreCounted: what an account has under way is the same number however it came about,
// also after a restart, and another call at the same upload is told that it is busy.
func TestUploadsAreCounted(t *testing.T) {
	cfg := config(t.TempDir(), storage.DefaultLimits())
	d := open(t, cfg)
	ctx, a := t.Context(), storagetest.Alice()
	want := func(d storage.Store, blobs, bytes int64) {
		t.Helper()
		u, err := d.Usage(ctx, a)
		if err != nil || u.Uploads != (storage.Count{Bytes: bytes, Blobs: blobs}) {
			t.Errorf("uploads %+v, %v; want %d of %d bytes", u.Uploads, err, blobs, bytes)
		}
	}
	start := func(account storage.Account, size int64) storage.UploadID {
		u, err := d.StartUpload(ctx, storage.Put{Account: account, Kind: cid.File, Size: size})
		if err != nil {
			t.Fatal(err)
		}
		return u.ID
	}
	first, second := start(a, 5000), start(a, 0)
	start(storagetest.Bob(), 7)
	want(d, 2, 5000)
	body, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := d.AppendUpload(ctx, a, second, 0, body)
		done <- err
	}()
	if _, err := writer.Write(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	_, err := d.AppendUpload(ctx, a, second, 0, bytes.NewReader(nil))
	wantReason(t, err, storage.ReasonUploadBusy)
	_, err = d.FinishUpload(ctx, a, second)
	wantReason(t, err, storage.ReasonUploadBusy)
	wantReason(t, d.AbortUpload(ctx, a, second), storage.ReasonUploadBusy)
	if err := errors.Join(writer.Close(), <-done); err != nil {
		t.Fatal(err)
	}
	want(d, 2, 5010)
	if _, err := d.FinishUpload(ctx, a, second); err != nil {
		t.Fatal(err)
	}
	want(d, 1, 5000)
	closed(t, d)
	d = open(t, cfg)
	want(d, 1, 5000)
	if err := d.AbortUpload(ctx, a, first); err != nil {
		t.Fatal(err)
	}
	want(d, 0, 0)
}
