package storagetest

import (
	"bytes"
	"io"
	"testing"

	"github.com/united-containers/ucn/services/storage"
)

func tooLarge(t *testing.T, open Make) {
	s := open(t, small())
	_, err := s.Put(t.Context(), file(Alice()), bytes.NewReader(Bytes(1<<20+1, 1)))
	wantReason(t, err, storage.ReasonTooLarge)
	wantUsage(t, s, Alice(), storage.Usage{})
}

func quotaBytes(t *testing.T, open Make) {
	s := open(t, small())
	first := MustPut(t, s, file(Alice()), Bytes(1<<20, 1)).Ref
	second := MustPut(t, s, file(Alice()), Bytes(1<<20, 2)).Ref
	full := storage.Usage{Bytes: 2 << 20, Blobs: 2}
	_, err := s.Put(t.Context(), file(Alice()), bytes.NewReader([]byte("x")))
	wantReason(t, err, storage.ReasonQuota)
	announced := file(Alice())
	announced.Size = 1
	_, err = s.Put(t.Context(), announced, failing{t})
	wantReason(t, err, storage.ReasonQuota)
	wantUsage(t, s, Alice(), full)

	again := file(Alice())
	again.Expect = first.CID
	if !MustPut(t, s, again, Bytes(1<<20, 1)).Held {
		t.Error("a held blob was counted again")
	}
	MustPut(t, s, file(Bob()), Bytes(1<<20, 3))
	if err := s.Remove(t.Context(), Alice(), second.CID); err != nil {
		t.Fatal(err)
	}
	MustPut(t, s, file(Alice()), Bytes(1<<20, 4))
	wantUsage(t, s, Alice(), full)
}

// failing is a body that must not be read.
type failing struct{ t *testing.T }

func (f failing) Read([]byte) (int, error) {
	f.t.Error("the body was read")
	return 0, io.EOF
}

func quotaBlobs(t *testing.T, open Make) {
	s := open(t, storage.Limits{Blob: 100, Bytes: 1 << 20, Blobs: 2})
	MustPut(t, s, file(Alice()), nil)
	MustPut(t, s, file(Alice()), []byte("1"))
	_, err := s.Put(t.Context(), file(Alice()), bytes.NewReader([]byte("2")))
	wantReason(t, err, storage.ReasonQuota)
	wantUsage(t, s, Alice(), storage.Usage{Bytes: 1, Blobs: 2})
}

func sharedCountsForBoth(t *testing.T, open Make) {
	s := open(t, small())
	data := Bytes(70_000, 1)
	c := MustPut(t, s, file(Alice()), data).Ref.CID
	if MustPut(t, s, file(Bob()), data).Held {
		t.Error("Bob was told that somebody else holds the blob")
	}
	one := storage.Usage{Bytes: 70_000, Blobs: 1}
	wantUsage(t, s, Alice(), one)
	wantUsage(t, s, Bob(), one)
	if err := s.Remove(t.Context(), Alice(), c); err != nil {
		t.Fatal(err)
	}
	wantUsage(t, s, Alice(), storage.Usage{})
	_, err := ReadAll(t.Context(), s, Alice(), c, storage.Range{})
	wantReason(t, err, storage.ReasonNotFound)
	got, err := ReadAll(t.Context(), s, Bob(), c, storage.Range{})
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("Bob reads %d bytes, %v", len(got), err)
	}
	if err := s.Remove(t.Context(), Bob(), c); err != nil {
		t.Fatal(err)
	}
	wantReason(t, s.Remove(t.Context(), Bob(), c), storage.ReasonNotFound)
}
