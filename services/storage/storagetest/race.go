package storagetest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
)

func concurrentPuts(t *testing.T, open Make) {
	// All sixteen may be on their way at once, and the quota counts each until it knows better.
	s := open(t, storage.Limits{Blob: 1 << 20, Bytes: 16 << 20, Blobs: 20})
	data := Bytes(200_000, 1)
	var wg sync.WaitGroup
	fresh := make(chan bool, 16)
	for range cap(fresh) {
		wg.Go(func() {
			stored, err := s.Put(t.Context(), file(Alice()), bytes.NewReader(data))
			if err != nil {
				t.Error(err)
			}
			fresh <- !stored.Held
		})
	}
	wg.Wait()
	close(fresh)
	count := 0
	for f := range fresh {
		if f {
			count++
		}
	}
	if count != 1 {
		t.Errorf("%d puts believed to be the first", count)
	}
	wantUsage(t, s, Alice(), storage.Usage{Bytes: 200_000, Blobs: 1})
}

func concurrentQuota(t *testing.T, open Make) {
	s := open(t, storage.Limits{Blob: 100_000, Bytes: 350_000, Blobs: 100})
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			_, err := s.Put(t.Context(), file(Alice()), bytes.NewReader(Bytes(100_000, uint64(i))))
			if err != nil && !errors.Is(err, storage.ReasonQuota) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	u, err := s.Usage(t.Context(), Alice())
	if err != nil || u.Bytes > 350_000 || u.Bytes != 100_000*u.Blobs {
		t.Errorf("usage is %+v, %v", u, err)
	}
	if refs, err := s.List(t.Context(), Alice(), cid.CID{}, 100); err != nil ||
		int64(len(refs)) != u.Blobs {
		t.Errorf("%d references, usage %+v, %v", len(refs), u, err)
	}
	for u.Blobs < 3 { // what failed attempts reserved is free again
		MustPut(t, s, file(Alice()), Bytes(100_000, 100+uint64(u.Blobs)))
		u.Blobs++
	}
}

func putAndRemoveRace(t *testing.T, open Make) {
	s := open(t, small())
	data := Bytes(40_000, 1)
	c := CIDOf(cid.File, data)
	var wg sync.WaitGroup
	for i := range 4 {
		account := storage.Account{byte(i)}
		wg.Go(func() {
			for range 8 {
				if _, err := s.Put(t.Context(), file(account), bytes.NewReader(data)); err != nil {
					t.Error(err)
					return
				}
				got, err := ReadAll(t.Context(), s, account, c, storage.Range{})
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("read %d bytes, %v", len(got), err)
				}
				if err := s.Remove(t.Context(), account, c); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := range 4 {
		wantUsage(t, s, storage.Account{byte(i)}, storage.Usage{})
	}
}

func cancelled(t *testing.T, open Make) {
	s := open(t, small())
	c := MustPut(t, s, file(Alice()), []byte("here")).Ref.CID
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, put := s.Put(ctx, file(Alice()), bytes.NewReader([]byte("new")))
	_, read := ReadAll(ctx, s, Alice(), c, storage.Range{})
	remove := s.Remove(ctx, Alice(), c)
	for name, err := range map[string]error{"put": put, "read": read, "remove": remove} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantUsage(t, s, Alice(), storage.Usage{Bytes: 4, Blobs: 1})
}
