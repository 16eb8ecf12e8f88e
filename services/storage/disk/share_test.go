package disk_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/disk"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

// sharing opens a store whose accounts may make burst events at once and one a second.
func sharing(t *testing.T, burst int) (d *disk.Disk, pass func(time.Duration)) {
	t.Helper()
	now := time.UnixMilli(1_700_000_000_000)
	cfg := config(t.TempDir(), storage.DefaultLimits())
	cfg.Outbox, cfg.Now = (&recorder{}).open, func() time.Time { return now }
	cfg.EventRate, cfg.EventBurst = 1, burst
	return open(t, cfg), func(d time.Duration) { now = now.Add(d) }
}

// TestAnAccountIsBoundOverTime: whatever it tries, it makes its burst and the rate.
func TestAnAccountIsBoundOverTime(t *testing.T) {
	d, pass := sharing(t, 8)
	p := storage.Put{Account: storagetest.Alice(), Kind: cid.File}
	c := storagetest.MustPut(t, d, p, storagetest.Bytes(100, 1)).Ref.CID
	made, pinned := 1, false
	for range 20 {
		for range 10 {
			want := !pinned
			_, err := d.Update(t.Context(), p.Account, c, storage.Change{Pinned: &want})
			switch {
			case err == nil:
				made, pinned = made+1, want
			case !errors.Is(err, storage.ReasonEventRate):
				t.Fatal(err)
			}
		}
		pass(time.Second)
	}
	if want := 8 + 19; made != want {
		t.Errorf("%d events in 20 s, want %d", made, want)
	}
	if disk.EventsKept/disk.DefaultEventBurst < 16 {
		t.Error("one account's burst is more than a sixteenth of what is kept")
	}
}

// unread fails the test that reads it.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("bytes were asked for")
	return 0, io.ErrUnexpectedEOF
}

// TestNoBytesAreTakenBeyondTheShare: a put that cannot be told is refused before its bytes, also
// one whose share others under way will need; one that fails gives its own back.
func TestNoBytesAreTakenBeyondTheShare(t *testing.T) {
	d, pass := sharing(t, 1)
	p := storage.Put{Account: storagetest.Alice(), Kind: cid.File, Size: 100}
	inside := func() {
		_, put := d.Put(t.Context(), p, unread{t})
		_, start := d.StartUpload(t.Context(), p)
		if !errors.Is(put, storage.ReasonEventRate) || !errors.Is(start, storage.ReasonEventRate) {
			t.Errorf("put %v, start %v", put, start)
		}
	}
	broken := errors.New("cut")
	_, err := d.Put(t.Context(), p, readerFunc(func([]byte) (int, error) {
		inside()
		return 0, broken
	}))
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	u, err := d.StartUpload(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.AppendUpload(t.Context(), p.Account, u.ID, 0,
		bytes.NewReader(storagetest.Bytes(100, 2)))
	if err != nil {
		t.Fatal(err)
	}
	storagetest.MustPut(t, d, p, storagetest.Bytes(100, 1))
	inside()
	if _, err := d.FinishUpload(t.Context(), p.Account, u.ID); !errors.Is(err,
		storage.ReasonEventRate) {
		t.Errorf("finish: %v", err)
	}
	pass(time.Second)
	if _, err := d.FinishUpload(t.Context(), p.Account, u.ID); err != nil {
		t.Errorf("finish later: %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestJobsHaveAShareOfTheirOwn: what the hosts of an account's jobs put is stored although the
// account used up its share, and has a bound as well.
func TestJobsHaveAShareOfTheirOwn(t *testing.T) {
	d, pass := sharing(t, 2)
	own := storage.Put{Account: storagetest.Alice(), Kind: cid.File}
	job := own
	job.Job, job.KeepName = "job", true
	put := func(p storage.Put, seed uint64) error {
		_, err := d.Put(t.Context(), p, bytes.NewReader(storagetest.Bytes(100, seed)))
		return err
	}
	if err := errors.Join(put(own, 1), put(own, 2), put(job, 3), put(job, 4)); err != nil {
		t.Fatal(err)
	}
	if one, two := put(own, 5), put(job, 5); !errors.Is(one, storage.ReasonEventRate) ||
		!errors.Is(two, storage.ReasonEventRate) {
		t.Errorf("beyond: %v, %v", one, two)
	}
	pass(250 * time.Millisecond) // an eighth of what the account itself waits is enough
	if err := errors.Join(put(job, 5), put(job, 6)); err != nil {
		t.Errorf("later: %v", err)
	}
	if err := put(own, 7); !errors.Is(err, storage.ReasonEventRate) {
		t.Errorf("the account's own, later: %v", err)
	}
}

// TestWhatChangesNothingIsNotWritten: saying again what is so costs no write, which nothing counts.
func TestWhatChangesNothingIsNotWritten(t *testing.T) {
	dir, steps := t.TempDir(), map[string]int{}
	d, err := disk.OpenWithHook(config(dir, storage.DefaultLimits()), func(step string) error {
		steps[step]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, d) })
	p := storage.Put{Account: storagetest.Alice(), Kind: cid.File, Name: "n"}
	data := storagetest.Bytes(100, 1)
	p.Expect = storagetest.MustPut(t, d, p, data).Ref.CID
	written := func() int { return steps["commit reference"] + steps["commit change"] }
	before := written()
	yes, no := true, false
	for range 3 {
		if _, err := d.Update(t.Context(), p.Account, p.Expect, storage.Change{Pinned: &no}); err != nil {
			t.Fatal(err)
		}
		for _, p.SkipHeld = range []bool{true, false} {
			if !storagetest.MustPut(t, d, p, data).Held {
				t.Error("not held")
			}
		}
	}
	if before == 0 || written() != before {
		t.Errorf("%d writes before, %d after", before, written())
	}
	if _, err := d.Update(t.Context(), p.Account, p.Expect, storage.Change{Pinned: &yes}); err != nil {
		t.Fatal(err)
	}
	if p.Name = "m"; storagetest.MustPut(t, d, p, data).Ref.Name != "m" || written() != before+2 {
		t.Errorf("changes made %d writes", written()-before)
	}
	flip(t, onDisk(t, dir, p.Expect, ""), 0)
	_, err = storagetest.ReadAll(t.Context(), d, p.Account, p.Expect, storage.Range{})
	if !errors.Is(err, storage.ReasonDataLoss) {
		t.Error(err)
	}
	storagetest.MustPut(t, d, p, data)
	checkHeld(t, d, p.Account, p.Expect, true)
}

// TestAHeldBlobIsNoWayAroundTheQuota: bytes that are said to be a blob which is held count against
// the quota in its place until they are known to be that; to send it again there is always room.
func TestAHeldBlobIsNoWayAroundTheQuota(t *testing.T) {
	limits := storage.Limits{Blob: 1 << 20, Bytes: 300_000, Blobs: 3}
	d := open(t, config(t.TempDir(), limits))
	p := storage.Put{Account: storagetest.Alice(), Kind: cid.File}
	data := storagetest.Bytes(200_000, 1)
	p.Expect = storagetest.MustPut(t, d, p, data).Ref.CID
	for _, p.Size = range []int64{0, 400_000} {
		_, err := d.Put(t.Context(), p, bytes.NewReader(storagetest.Bytes(400_000, 2)))
		if !errors.Is(err, storage.ReasonQuota) {
			t.Errorf("%d bytes announced: %v", p.Size, err)
		}
	}
	p.Size = 0
	inside := readerFunc(func([]byte) (int, error) {
		_, err := d.Put(t.Context(), p, bytes.NewReader(storagetest.Bytes(300_000, 2)))
		if !errors.Is(err, storage.ReasonQuota) {
			t.Errorf("beside another: %v", err)
		}
		return 0, io.EOF
	})
	_, err := d.Put(t.Context(), p, io.MultiReader(bytes.NewReader(data), inside))
	if err != nil {
		t.Errorf("the held blob again: %v", err)
	}
}
