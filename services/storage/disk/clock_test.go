package disk_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/clock"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

// TestAJumpOfTheClockExpiresNothing: by three hours, both ways. A file kept for one hour and an
// upload that may pause for one go when an hour has passed, not before and not hours later.
func TestAJumpOfTheClockExpiresNothing(t *testing.T) {
	for _, jump := range []time.Duration{3 * time.Hour, -3 * time.Hour} {
		t.Run(jump.String(), func(t *testing.T) { clockJumps(t, jump) })
	}
}

func clockJumps(t *testing.T, jump time.Duration) {
	wall, elapsed := time.UnixMilli(1_800_000_000_000), time.Duration(0)
	steady := clock.New(clock.Deps{
		Wall: func() time.Time { return wall }, Elapsed: func() time.Duration { return elapsed },
	})
	cfg := config(t.TempDir(), storage.DefaultLimits())
	cfg.Now, cfg.UploadIdle = steady.Now, time.Hour
	d := open(t, cfg)
	p := storage.Put{Account: storagetest.Alice(), Kind: cid.File, Expires: wall.Add(time.Hour)}
	put, err := d.Put(t.Context(), p, bytes.NewReader(storagetest.Bytes(1000, 1)))
	if err != nil {
		t.Fatal(err)
	}
	data := storagetest.Bytes(2000, 2)
	up, err := d.StartUpload(t.Context(), storage.Put{
		Account: storagetest.Alice(), Kind: cid.File, Size: int64(len(data)), Name: "n",
	})
	if err != nil {
		t.Fatal(err)
	}
	present := func(want bool) {
		t.Helper()
		if _, err := d.Collect(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		_, err := storagetest.ReadAll(t.Context(), d, storagetest.Alice(), put.Ref.CID, storage.Range{})
		if (err == nil) != want {
			t.Errorf("after %v the file reads as %v", elapsed, err)
		}
		_, err = d.Upload(t.Context(), storagetest.Alice(), up.ID)
		if err != nil && fault.KindOf(err) != fault.NotFound || (err == nil) != want {
			t.Errorf("after %v the upload is told as %v", elapsed, err)
		}
	}
	wall = wall.Add(jump)
	present(true)
	wall, elapsed = wall.Add(50*time.Minute), 50*time.Minute
	present(true)
	wall, elapsed = wall.Add(20*time.Minute), 70*time.Minute
	present(false)
}
