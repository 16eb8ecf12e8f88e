package storagetest

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/storage"
)

// endAll calls RemoveMany until it has looked at all, and returns why each stays.
func endAll(t *testing.T, s storage.Store, a storage.Account, cs []cid.CID) []fault.Reason {
	t.Helper()
	var why []fault.Reason
	for len(cs) > 0 {
		became, err := s.RemoveMany(t.Context(), a, cs)
		if err != nil || len(became) < 1 || len(became) > len(cs) {
			t.Fatalf("%d of %d, %v", len(became), len(cs), err)
		}
		for _, err := range became {
			if err != nil && fault.ReasonOf(err) == "" {
				t.Fatal(err)
			}
			why = append(why, fault.ReasonOf(err))
		}
		cs = cs[len(became):]
	}
	return why
}

// removeMany: each is ended as by itself after those before it, what stays says why, and bytes stay
// while others hold them.
func removeMany(t *testing.T, open Make) {
	s := open(t, small())
	put := func(p storage.Put, seed uint64) cid.CID {
		return MustPut(t, s, p, Bytes(20_000, seed)).Ref.CID
	}
	plain, shared, pinned := put(file(Alice()), 1), put(file(Alice()), 2), put(file(Alice()), 3)
	inside, kept := put(file(Alice()), 4), put(file(Alice()), 5)
	his := put(file(Bob()), 6)
	put(file(Bob()), 2)
	change(t, s, pinned, true, time.Now().Add(time.Hour))
	change(t, s, inside, false, time.Now().Add(-time.Hour))
	tree := func(names ...cid.CID) cid.CID {
		p := storage.Put{Account: Alice(), Kind: cid.Directory,
			Tree: storage.Tree{Names: names, Total: 1, Height: 1}}
		return put(p, uint64(10+len(names)))
	}
	one, two := tree(inside), tree(inside, kept)
	got := endAll(t, s, Alice(), []cid.CID{plain, plain, shared, pinned, inside, one, inside, two,
		inside, his})
	want := []fault.Reason{"", storage.ReasonNotFound, "", storage.ReasonPinned,
		storage.ReasonInDirectory, "", storage.ReasonInDirectory, "", "", storage.ReasonNotFound}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("number %d: %q, want %q", i, got[i], want[i])
		}
	}
	for _, c := range []cid.CID{plain, shared, inside, one, two} {
		_, err := s.Stat(t.Context(), Alice(), c)
		wantReason(t, err, storage.ReasonNotFound)
	}
	wantUsage(t, s, Alice(), storage.Usage{Bytes: 40_000, Blobs: 2,
		Pinned: storage.Count{Bytes: 20_000, Blobs: 1}})
	wantUsage(t, s, Bob(), storage.Usage{Bytes: 40_000, Blobs: 2})
	if _, err := ReadAll(t.Context(), s, Bob(), shared, storage.Range{}); err != nil {
		t.Errorf("Bob's went with it: %v", err)
	}
	if why := endAll(t, s, Alice(), []cid.CID{kept}); why[0] != "" {
		t.Errorf("a file of a directory that is gone stays: %s", why[0])
	}
	if got := collect(t, s, false); got.References != 0 || got.Blobs != 0 {
		t.Errorf("left for a collection: %+v", got)
	}
	for _, n := range []int{0, storage.MaxPage + 1} {
		_, err := s.RemoveMany(t.Context(), Alice(), make([]cid.CID, n))
		wantReason(t, err, storage.ReasonBadRequest)
	}
}

// removeManyRaces: accounts put and end the same blobs at once; at the end nobody holds anything,
// and meanwhile what one holds is whole.
func removeManyRaces(t *testing.T, open Make) {
	s := open(t, small())
	var cs []cid.CID
	for seed := range uint64(3) {
		cs = append(cs, CIDOf(cid.File, Bytes(20_000, seed)))
	}
	var wg sync.WaitGroup
	for i := range 4 {
		account := storage.Account{byte(i)}
		wg.Go(func() {
			for range 6 {
				for seed := range uint64(3) {
					data := Bytes(20_000, seed)
					if _, err := s.Put(t.Context(), file(account), bytes.NewReader(data)); err != nil {
						t.Error(err)
						return
					}
					got, err := ReadAll(t.Context(), s, account, cs[seed], storage.Range{})
					if err != nil || !bytes.Equal(got, data) {
						t.Errorf("read %d bytes, %v", len(got), err)
					}
				}
				for left := cs; len(left) > 0; {
					became, err := s.RemoveMany(t.Context(), account, left)
					if err = errors.Join(err, errors.Join(became...)); err != nil {
						t.Error(err)
						return
					}
					left = left[len(became):]
				}
			}
		})
	}
	wg.Wait()
	for i := range 4 {
		wantUsage(t, s, storage.Account{byte(i)}, storage.Usage{})
	}
}
