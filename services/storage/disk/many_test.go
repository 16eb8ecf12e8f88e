package disk_test

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

// TestManyEndsAreOneEvent: what one write ends is told once and counted once, with a name for each;
// one alone is told as any other, and none at all not.
func TestManyEndsAreOneEvent(t *testing.T) {
	dir, box := t.TempDir(), &recorder{}
	now := time.UnixMilli(1_700_000_000_000)
	cfg := config(dir, storage.DefaultLimits())
	cfg.Outbox, cfg.Now = box.open, func() time.Time { return now }
	cfg.EventRate, cfg.EventBurst = 0.001, 12 // 10 puts, and two
	d := open(t, cfg)
	alice, yes := storagetest.Alice(), true
	var cs []cid.CID
	var names []cid.Blinded
	for seed := range uint64(9) {
		c := storagetest.MustPut(t, d, storage.Put{Account: alice, Kind: cid.File},
			storagetest.Bytes(100, seed)).Ref.CID
		cs, names = append(cs, c), append(names, d.BlindKey(alice).Blind(c))
	}
	if _, err := d.Update(t.Context(), alice, cs[0], storage.Change{Pinned: &yes}); err != nil {
		t.Fatal(err)
	}
	seen := 0
	box.told(t, &seen)
	end := func(cs ...cid.CID) error { _, err := d.RemoveMany(t.Context(), alice, cs); return err }
	files := slices.SortedFunc(slices.Values(names[1:8]), func(x, y cid.Blinded) int {
		return slices.Compare(x[:], y[:])
	})
	for _, step := range []struct {
		name string
		cs   []cid.CID
		want []storage.Event
	}{
		{"several, and one that is pinned", cs[:8], []storage.Event{
			{Time: now, What: storage.RefRemoved, Account: alice, Files: files}}},
		{"nothing that may end", cs[:8], nil},
		{"one", []cid.CID{cs[8], cs[0]}, []storage.Event{
			{Time: now, What: storage.RefRemoved, Account: alice, File: names[8]}}},
	} {
		if err := end(step.cs...); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if d := cmp.Diff(step.want, box.told(t, &seen), cmp.Comparer(time.Time.Equal),
			cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s (-want +told)\n%s", step.name, d)
		}
		checkConsistent(t, d, dir)
	}
	checkTold(t, box, d)
	_, err := d.Update(t.Context(), alice, cs[0], storage.Change{Pinned: new(bool)})
	if !errors.Is(err, storage.ReasonEventRate) {
		t.Errorf("beyond the share: %v", err)
	}
}

// TestManyEndsThatCannotBeTold happen not at all.
func TestManyEndsThatCannotBeTold(t *testing.T) {
	dir, box := t.TempDir(), &recorder{}
	cfg := config(dir, storage.DefaultLimits())
	cfg.Outbox = box.open
	d := open(t, cfg)
	p := storage.Put{Account: storagetest.Alice(), Kind: cid.File}
	one := storagetest.MustPut(t, d, p, storagetest.Bytes(100, 1)).Ref.CID
	two := storagetest.MustPut(t, d, p, storagetest.Bytes(100, 2)).Ref.CID
	box.refuse = storage.Untold(errors.New("full"))
	if _, err := d.RemoveMany(t.Context(), p.Account, []cid.CID{one, two}); !errors.Is(err,
		storage.ReasonUntold) {
		t.Errorf("untold: %v", err)
	}
	checkHeld(t, d, p.Account, one, true)
	checkConsistent(t, d, dir)
}

// TestManyEndsFitAWrite: directories that name much are ended a few at a time, each write told.
func TestManyEndsFitAWrite(t *testing.T) {
	box, limits := &recorder{}, storage.DefaultLimits()
	limits.Blobs = math.MaxInt32
	cfg := config(t.TempDir(), limits)
	cfg.Outbox = box.open
	d := open(t, cfg)
	alice := storagetest.Alice()
	var names, trees []cid.CID
	for seed := range uint64(500) {
		names = append(names, storagetest.MustPut(t, d, storage.Put{Account: alice, Kind: cid.File},
			storagetest.Bytes(16, seed)).Ref.CID)
	}
	for seed := range uint64(8) { // each lets go of 500 names: some 100 KB of index
		p := storage.Put{Account: alice, Kind: cid.Directory, Tree: storage.Tree{Names: names, Height: 1}}
		trees = append(trees, storagetest.MustPut(t, d, p, storagetest.Bytes(32, seed)).Ref.CID)
	}
	seen, ended, writes := 0, 0, 0
	box.told(t, &seen)
	for left := append(trees, names...); len(left) > 0; writes++ {
		became, err := d.RemoveMany(t.Context(), alice, left)
		if err = errors.Join(err, errors.Join(became...)); err != nil {
			t.Fatal(err)
		}
		left = left[len(became):]
		told := box.told(t, &seen)
		if len(told) != 1 || len(told[0].Files) != len(became) {
			t.Fatalf("%d ended, told as %d events", len(became), len(told))
		}
		ended += len(became)
	}
	if writes < 2 || writes > 8 || ended != len(trees)+len(names) {
		t.Errorf("%d ended in %d writes", ended, writes)
	}
	if u, err := d.Usage(t.Context(), alice); err != nil || u.Blobs != 0 {
		t.Errorf("usage %+v, %v", u, err)
	}
}
