package storagetest_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

func TestMemoryKeepsTheContract(t *testing.T) {
	storagetest.Contract(t, func(_ *testing.T, l storage.Limits) storage.Store {
		return storagetest.NewMemory(l)
	})
}

func TestMemoryFailsOnRequest(t *testing.T) {
	m := storagetest.NewMemory(storage.DefaultLimits())
	p := storage.Put{Account: storagetest.Alice(), Kind: cid.File}
	boom := errors.New("boom")
	fail := func(string) error { return boom }

	m.FailWith(storagetest.Fail{Before: fail})
	if _, err := m.Put(t.Context(), p, bytes.NewReader([]byte("a"))); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	m.FailWith(storagetest.Fail{After: fail})
	if _, err := m.Put(t.Context(), p, bytes.NewReader([]byte("b"))); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	m.FailWith(storagetest.Fail{})
	if u, err := m.Usage(t.Context(), p.Account); err != nil || u.Blobs != 1 {
		t.Errorf("usage %+v, %v: want what was persisted before it failed", u, err)
	}
	c := storagetest.MustPut(t, m, p, storagetest.Bytes(50_000, 1)).Ref.CID
	m.Damage(c, 20_000)
	got, err := storagetest.ReadAll(t.Context(), m, p.Account, c, storage.Range{})
	if !errors.Is(err, storage.ReasonDataLoss) || len(got) > 20_000 {
		t.Errorf("damaged: %d bytes, %v", len(got), err)
	}
}
