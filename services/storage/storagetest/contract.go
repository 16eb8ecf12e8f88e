package storagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"lukechampine.com/blake3"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/storage"
)

// Make opens an empty store with the given limits; the test's cleanup closes it.
type Make func(t *testing.T, l storage.Limits) storage.Store

// Alice is the account that owns things in tests.
func Alice() storage.Account { return storage.Account{0: 0xa1, 31: 0xff} }

// Bob is the other account; its id differs from Alice's in the first byte.
func Bob() storage.Account { return storage.Account{0: 0xb0, 31: 0xff} }

// Bytes returns n bytes that are the same on every call with the same n and seed.
func Bytes(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// CIDOf names data as a blob of kind k, by means other than the store's.
func CIDOf(k cid.Kind, data []byte) cid.CID {
	if k == cid.OCIBlob {
		return cid.OfOCI(sha256.Sum256(data))
	}
	return cid.OfFile(blake3.Sum256(data))
}

// MustPut puts data and fails the test when that fails.
func MustPut(t *testing.T, s storage.Store, p storage.Put, data []byte) storage.Stored {
	t.Helper()
	stored, err := s.Put(t.Context(), p, bytes.NewReader(data))
	if err != nil {
		t.Fatalf("put %d bytes: %v", len(data), err)
	}
	return stored
}

// ReadAll reads a range for account a.
func ReadAll(ctx context.Context, s storage.Store, a storage.Account, c cid.CID,
	r storage.Range) ([]byte, error) {
	var b bytes.Buffer
	err := s.Read(ctx, storage.Read{Account: a, CID: c, Range: r}, &b)
	return b.Bytes(), err
}

// Contract runs every test of the contract of storage.Store.
func Contract(t *testing.T, open Make) {
	tests := []struct {
		name string
		run  func(*testing.T, Make)
	}{
		{"PutThenRead", putThenRead},
		{"Slices", slicesVerify},
		{"Expectations", expectations},
		{"BadRequests", badRequests},
		{"Missing", missing},
		{"Ranges", rangesOutside},
		{"TooLarge", tooLarge},
		{"QuotaBytes", quotaBytes},
		{"QuotaBlobs", quotaBlobs},
		{"SharedCountsForBoth", sharedCountsForBoth},
		{"RepeatChangesOnlyTheName", repeatChangesOnlyTheName},
		{"SkipHeld", skipHeld},
		{"BrokenBody", brokenBody},
		{"List", list},
		{"ConcurrentPuts", concurrentPuts},
		{"ConcurrentQuota", concurrentQuota},
		{"PutAndRemoveRace", putAndRemoveRace},
		{"RemoveMany", removeMany},
		{"RemoveManyRaces", removeManyRaces},
		{"Cancelled", cancelled},
		{"PinsAndExpiry", pinsAndExpiry},
		{"DirectoriesHoldWhatTheyName", directoriesHold},
		{"Uploads", uploadsResume},
		{"UploadsRefuse", uploadsRefuse},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, open) })
	}
}

func comparable() cmp.Option { return cmpopts.EquateComparable(cid.CID{}) }

func sameRef(a, b storage.Ref) bool { return cmp.Equal(a, b, comparable()) }

func small() storage.Limits {
	return storage.Limits{Blob: 1 << 20, Bytes: 2 << 20, Blobs: 20}
}

func file(a storage.Account) storage.Put {
	return storage.Put{Account: a, Kind: cid.File}
}

func wantReason(t *testing.T, err error, want fault.Reason) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func wantUsage(t *testing.T, s storage.Store, a storage.Account, want storage.Usage) {
	t.Helper()
	got, err := s.Usage(t.Context(), a)
	var kinds storage.Count
	for _, n := range got.Kinds {
		kinds.Bytes += n.Bytes
		kinds.Blobs += n.Blobs
	}
	if kinds != (storage.Count{Bytes: got.Bytes, Blobs: got.Blobs}) {
		t.Errorf("the kinds of %+v do not add up", got)
	}
	if want.Kinds == (storage.Usage{}).Kinds {
		got.Kinds = want.Kinds
	}
	if err != nil || got != want {
		t.Errorf("usage is %+v, %v; want %+v", got, err, want)
	}
}

func putThenRead(t *testing.T, open Make) {
	s := open(t, small())
	var want storage.Usage
	for _, kind := range []cid.Kind{cid.File, cid.OCIBlob} {
		for _, size := range []int{0, 1, 16384, 16385, 100_000, 1 << 20} {
			data := Bytes(size, uint64(kind))
			p := storage.Put{Account: Alice(), Kind: kind, Name: "a name", Job: "ucnj1job"}
			stored := MustPut(t, s, p, data)
			if stored.Ref.CID != CIDOf(kind, data) || stored.Held {
				t.Fatalf("%s of %d: %+v", kind, size, stored)
			}
			got, err := ReadAll(t.Context(), s, Alice(), stored.Ref.CID, storage.Range{})
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%s of %d: read %d bytes, %v", kind, size, len(got), err)
			}
			ref, err := s.Stat(t.Context(), Alice(), stored.Ref.CID)
			if err != nil || !sameRef(ref, stored.Ref) {
				t.Errorf("stat: %v\n%s", err, cmp.Diff(stored.Ref, ref, comparable()))
			}
			if ref.Size != int64(size) || ref.Name != p.Name || ref.Job != p.Job {
				t.Errorf("reference is %+v", ref)
			}
			want.Bytes += int64(size)
			want.Blobs++
			wantUsage(t, s, Alice(), want)
			if err := s.Remove(t.Context(), Alice(), ref.CID); err != nil {
				t.Fatal(err)
			}
			want = storage.Usage{}
		}
	}
}

func slicesVerify(t *testing.T, open Make) {
	s := open(t, small())
	data := Bytes(300_000, 1)
	c := MustPut(t, s, file(Alice()), data).Ref.CID
	for _, r := range []storage.Range{{}, {Offset: 1, Length: 1}, {Offset: 16383, Length: 70_000},
		{Offset: 299_999}} {
		var slice, plain bytes.Buffer
		err := s.Read(t.Context(), storage.Read{Account: Alice(), CID: c, Range: r,
			Encoding: storage.EncodingSlice}, &slice)
		if err != nil {
			t.Fatalf("slice %+v: %v", r, err)
		}
		within, err := r.Within(int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		err = cid.DecodeSlice(&plain, &slice, c, cid.Part{Offset: within.Offset,
			Length: within.Length, Size: int64(len(data))})
		want := data[within.Offset : within.Offset+within.Length]
		if err != nil || !bytes.Equal(plain.Bytes(), want) {
			t.Errorf("slice %+v: %v", r, err)
		}
	}
	layer := MustPut(t, s, storage.Put{Account: Alice(), Kind: cid.OCIBlob}, data).Ref.CID
	err := s.Read(t.Context(), storage.Read{Account: Alice(), CID: layer,
		Encoding: storage.EncodingSlice}, io.Discard)
	wantReason(t, err, storage.ReasonBadRequest)
}

func expectations(t *testing.T, open Make) {
	s := open(t, small())
	data := Bytes(50_000, 1)
	right := CIDOf(cid.OCIBlob, data)
	p := storage.Put{Account: Alice(), Kind: cid.OCIBlob, Expect: right, Size: 50_000}

	wrong := p
	wrong.Expect = CIDOf(cid.OCIBlob, []byte("other"))
	_, err := s.Put(t.Context(), wrong, bytes.NewReader(data))
	wantReason(t, err, cid.ReasonMismatch)
	for _, size := range []int64{49_999, 50_001} {
		wrong = p
		wrong.Size = size
		_, err = s.Put(t.Context(), wrong, bytes.NewReader(data))
		wantReason(t, err, storage.ReasonSize)
	}
	wantUsage(t, s, Alice(), storage.Usage{})
	_, err = s.Stat(t.Context(), Alice(), right)
	wantReason(t, err, storage.ReasonNotFound)

	if stored := MustPut(t, s, p, data); stored.Ref.CID != right {
		t.Errorf("stored as %s", stored.Ref.CID)
	}
}

func badRequests(t *testing.T, open Make) {
	s := open(t, small())
	oci := CIDOf(cid.OCIBlob, nil)
	tests := []struct {
		name string
		put  storage.Put
		want fault.Reason
	}{
		{"no kind", storage.Put{}, storage.ReasonBadRequest},
		{"unknown kind", storage.Put{Kind: 9}, storage.ReasonBadRequest},
		{"other kind", storage.Put{Kind: cid.File, Expect: oci}, storage.ReasonBadRequest},
		{"negative size", storage.Put{Kind: cid.File, Size: -1}, storage.ReasonBadRequest},
		{"size", storage.Put{Kind: cid.File, Size: 1<<20 + 1}, storage.ReasonTooLarge},
		{"name", storage.Put{Kind: cid.File, Name: "a\nb"}, storage.ReasonBadRequest},
		{"long name", storage.Put{Kind: cid.File, Name: string(make([]byte, 256))},
			storage.ReasonBadRequest},
		{"job", storage.Put{Kind: cid.File, Job: "\xff"}, storage.ReasonBadRequest},
	}
	for _, test := range tests {
		test.put.Account = Alice()
		_, err := s.Put(t.Context(), test.put, bytes.NewReader(nil))
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %s", test.name, err, test.want)
		}
	}
	for _, limit := range []int{-1, 0, storage.MaxPage + 1} {
		_, err := s.List(t.Context(), Alice(), cid.CID{}, limit)
		wantReason(t, err, storage.ReasonBadRequest)
	}
	_, err := ReadAll(t.Context(), s, Alice(), cid.CID{}, storage.Range{})
	wantReason(t, err, storage.ReasonBadRequest)
	wantUsage(t, s, Alice(), storage.Usage{})
}

func missing(t *testing.T, open Make) {
	s := open(t, small())
	c := MustPut(t, s, file(Alice()), []byte("hers")).Ref.CID
	for who, account := range map[string]storage.Account{"another's": Bob(), "nobody's": Alice()} {
		wanted := c
		if account == Alice() {
			wanted = CIDOf(cid.File, []byte("never put"))
		}
		_, err := ReadAll(t.Context(), s, account, wanted, storage.Range{})
		if !errors.Is(err, storage.ReasonNotFound) {
			t.Errorf("read %s: %v", who, err)
		}
		_, err = s.Stat(t.Context(), account, wanted)
		if !errors.Is(err, storage.ReasonNotFound) {
			t.Errorf("stat %s: %v", who, err)
		}
		err = s.Remove(t.Context(), account, wanted)
		if !errors.Is(err, storage.ReasonNotFound) {
			t.Errorf("remove %s: %v", who, err)
		}
	}
	if _, err := ReadAll(t.Context(), s, Alice(), c, storage.Range{}); err != nil {
		t.Errorf("hers: %v", err)
	}
}

func rangesOutside(t *testing.T, open Make) {
	s := open(t, small())
	data := Bytes(40_000, 1)
	c := MustPut(t, s, storage.Put{Account: Alice(), Kind: cid.OCIBlob}, data).Ref.CID
	const most = int64(^uint64(0) >> 1)
	for _, r := range []storage.Range{{Offset: 40_001}, {Offset: -1}, {Length: -1},
		{Length: 40_001}, {Offset: 39_999, Length: 2}, {Offset: most, Length: most},
		{Offset: 1, Length: most}} {
		got, err := ReadAll(t.Context(), s, Alice(), c, r)
		if !errors.Is(err, storage.ReasonRange) || len(got) > 0 {
			t.Errorf("%+v: %d bytes, %v", r, len(got), err)
		}
	}
	for _, r := range []storage.Range{{Offset: 40_000}, {Offset: 39_999, Length: 1},
		{Offset: 16_000, Length: 1000}} {
		within, err := r.Within(40_000)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ReadAll(t.Context(), s, Alice(), c, r)
		if err != nil || !bytes.Equal(got, data[within.Offset:within.Offset+within.Length]) {
			t.Errorf("%+v: %d bytes, %v", r, len(got), err)
		}
	}
}

func repeatChangesOnlyTheName(t *testing.T, open Make) {
	s := open(t, small())
	p := file(Alice())
	p.Name, p.Job = "first", "job1"
	first := MustPut(t, s, p, []byte("same"))
	p.Name, p.Job = "", "job2"
	if again := MustPut(t, s, p, []byte("same")); !again.Held || !sameRef(again.Ref, first.Ref) {
		t.Errorf("repeated: %+v", again)
	}
	p.Name = "second"
	first.Ref.Name = "second"
	if again := MustPut(t, s, p, []byte("same")); !sameRef(again.Ref, first.Ref) {
		t.Errorf("renamed: %+v", again)
	}
	p.Name, p.KeepName = "third", true
	if again := MustPut(t, s, p, []byte("same")); !sameRef(again.Ref, first.Ref) {
		t.Errorf("renamed although the name was to be kept: %+v", again)
	}
	wantUsage(t, s, Alice(), storage.Usage{Bytes: 4, Blobs: 1})
}

func skipHeld(t *testing.T, open Make) {
	s := open(t, small())
	data := Bytes(20_000, 1)
	p := file(Alice())
	p.Expect, p.SkipHeld = CIDOf(cid.File, data), true
	if MustPut(t, s, p, data).Held {
		t.Error("held before it was put")
	}
	stored, err := s.Put(t.Context(), p, failing{t})
	if err != nil || !stored.Held || stored.Ref.CID != p.Expect {
		t.Errorf("skipped: %+v, %v", stored, err)
	}
	// Knowing a CID is not having the bytes: Bob gets nothing for it.
	p.Account = Bob()
	_, err = s.Put(t.Context(), p, bytes.NewReader(nil))
	wantReason(t, err, cid.ReasonMismatch)
	wantUsage(t, s, Bob(), storage.Usage{})
}

func brokenBody(t *testing.T, open Make) {
	s := open(t, small())
	broken := errors.New("line cut")
	for _, end := range []error{broken, io.ErrUnexpectedEOF} {
		body := io.MultiReader(bytes.NewReader(Bytes(400_000, 1)), endsWith{end})
		_, err := s.Put(t.Context(), file(Alice()), body)
		if !errors.Is(err, end) {
			t.Errorf("got %v, want %v", err, end)
		}
	}
	wantUsage(t, s, Alice(), storage.Usage{})
	c := MustPut(t, s, file(Alice()), Bytes(400_000, 1)).Ref.CID
	err := s.Read(t.Context(), storage.Read{Account: Alice(), CID: c}, brokenWriter{broken})
	if !errors.Is(err, broken) || fault.KindOf(err) == fault.DataLoss {
		t.Errorf("broken reader: %v", err)
	}
}

type endsWith struct{ err error }

func (e endsWith) Read([]byte) (int, error) { return 0, e.err }

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

func list(t *testing.T, open Make) {
	s := open(t, small())
	want := map[cid.CID]bool{}
	for i := range 10 {
		p := storage.Put{Account: Alice(), Kind: cid.File}
		if i%2 == 0 {
			p.Kind = cid.OCIBlob
		}
		want[MustPut(t, s, p, []byte{byte(i)}).Ref.CID] = true
	}
	MustPut(t, s, file(Bob()), []byte("Bob's"))
	var after cid.CID
	for pages := 0; ; pages++ {
		page, err := s.List(t.Context(), Alice(), after, 3)
		if err != nil || pages > 4 {
			t.Fatalf("page %d: %v", pages, err)
		}
		if len(page) == 0 {
			break
		}
		for _, ref := range page {
			if !want[ref.CID] || bytes.Compare(ref.CID.Bytes(), after.Bytes()) <= 0 {
				t.Errorf("%s is not hers or out of order", ref.CID)
			}
			delete(want, ref.CID)
			after = ref.CID
		}
	}
	if len(want) > 0 {
		t.Errorf("%d references were not listed", len(want))
	}
}
