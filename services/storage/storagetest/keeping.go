package storagetest

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
)

func collect(t *testing.T, s storage.Store, dry bool) storage.Collected {
	t.Helper()
	got, err := s.Collect(t.Context(), dry)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// change updates a reference and fails the test when that fails.
func change(t *testing.T, s storage.Store, c cid.CID, pinned bool, expires time.Time) {
	t.Helper()
	ref, err := s.Update(t.Context(), Alice(), c, storage.Change{Pinned: &pinned, Expires: &expires})
	if err != nil || ref.Pinned != pinned || ref.Expires.UnixMilli() != expires.UnixMilli() {
		t.Fatalf("%+v, %v", ref, err)
	}
}

func pinsAndExpiry(t *testing.T, open Make) {
	s := open(t, small())
	past := time.Now().Add(-time.Hour)
	c := MustPut(t, s, file(Alice()), Bytes(1000, 1)).Ref.CID
	MustPut(t, s, file(Bob()), Bytes(1000, 1))
	change(t, s, c, true, past)
	if got := collect(t, s, false); got.References != 0 {
		t.Errorf("a pinned reference went: %+v", got)
	}
	wantReason(t, s.Remove(t.Context(), Alice(), c), storage.ReasonPinned)
	u, err := s.Usage(t.Context(), Alice())
	if err != nil || u.Pinned != (storage.Count{Bytes: 1000, Blobs: 1}) {
		t.Errorf("usage %+v, %v", u, err)
	}
	change(t, s, c, false, time.Now().Add(time.Hour))
	collect(t, s, false)
	change(t, s, c, false, past)
	if got := collect(t, s, true); got.References != 1 {
		t.Errorf("a dry run counts %+v", got)
	}
	wantUsage(t, s, Alice(), storage.Usage{Bytes: 1000, Blobs: 1})
	if got := collect(t, s, false); got.References != 1 || got.Blobs != 0 {
		t.Errorf("an expired reference whose blob Bob holds: %+v", got)
	}
	wantUsage(t, s, Alice(), storage.Usage{})
	if _, err := ReadAll(t.Context(), s, Bob(), c, storage.Range{}); err != nil {
		t.Errorf("Bob's went with it: %v", err)
	}
	_, err = s.Update(t.Context(), Alice(), c, storage.Change{})
	wantReason(t, err, storage.ReasonNotFound)
	p := file(Alice())
	p.Expires = time.Now().Add(time.Hour)
	MustPut(t, s, p, Bytes(1000, 1))
	if ref := MustPut(t, s, file(Alice()), Bytes(1000, 1)).Ref; !ref.Expires.IsZero() {
		t.Errorf("put for good, it still expires: %+v", ref)
	}
}

func directoriesHold(t *testing.T, open Make) {
	s := open(t, small())
	past := time.Now().Add(-time.Hour)
	inside := MustPut(t, s, file(Alice()), Bytes(1000, 1)).Ref.CID
	p := storage.Put{Account: Alice(), Kind: cid.Directory,
		Tree: storage.Tree{Names: []cid.CID{inside}, Total: 1000, Height: 1}}
	tree := MustPut(t, s, p, []byte("a store does not look inside"))
	if tree.Ref.CID.Kind() != cid.Directory || tree.Ref.Total != 1000 || tree.Ref.Height != 1 {
		t.Errorf("%+v", tree)
	}
	change(t, s, inside, false, past)
	if got := collect(t, s, false); got.References != 0 {
		t.Errorf("what a directory names went: %+v", got)
	}
	wantReason(t, s.Remove(t.Context(), Alice(), inside), storage.ReasonInDirectory)
	if err := s.Remove(t.Context(), Alice(), tree.Ref.CID); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, s, false); got.References != 1 || got.Blobs != 1 {
		t.Errorf("after the directory went: %+v", got)
	}
	wantUsage(t, s, Alice(), storage.Usage{})
	_, err := s.Put(t.Context(), p, bytes.NewReader([]byte("names what is gone")))
	wantReason(t, err, storage.ReasonIncomplete)
	wantUsage(t, s, Alice(), storage.Usage{})
}

func uploadsResume(t *testing.T, open Make) {
	s := open(t, small())
	ctx, data := t.Context(), Bytes(300_000, 1)
	p := storage.Put{Account: Alice(), Kind: cid.OCIBlob, Size: int64(len(data)), Name: "n",
		Expect: CIDOf(cid.OCIBlob, data)}
	u, err := s.StartUpload(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	broke := errors.New("the line broke")
	first := io.MultiReader(bytes.NewReader(data[:100_000]), broken{broke})
	if _, err := s.AppendUpload(ctx, Alice(), u.ID, 0, first); !errors.Is(err, broke) {
		t.Errorf("a broken body: %v", err)
	}
	if u, err = s.Upload(ctx, Alice(), u.ID); err != nil || u.Offset != 100_000 {
		t.Fatalf("%+v, %v", u, err)
	}
	_, err = s.AppendUpload(ctx, Alice(), u.ID, 0, bytes.NewReader(data))
	wantReason(t, err, storage.ReasonOffset)
	// What comes before the byte too much may be kept: it is right.
	_, err = s.AppendUpload(ctx, Alice(), u.ID, u.Offset,
		io.MultiReader(bytes.NewReader(data[u.Offset:]), bytes.NewReader([]byte{1})))
	wantReason(t, err, storage.ReasonSize)
	if u, err = s.Upload(ctx, Alice(), u.ID); err != nil {
		t.Fatal(err)
	}
	if u, err = s.AppendUpload(ctx, Alice(), u.ID, u.Offset,
		bytes.NewReader(data[u.Offset:])); err != nil || u.Offset != int64(len(data)) {
		t.Fatalf("%+v, %v", u, err)
	}
	usage, err := s.Usage(ctx, Alice())
	if err != nil || usage.Uploads != (storage.Count{Bytes: int64(len(data)), Blobs: 1}) {
		t.Errorf("usage %+v, %v", usage, err)
	}
	for range 2 {
		stored, err := s.FinishUpload(ctx, Alice(), u.ID)
		if err != nil || stored.Ref.CID != p.Expect || stored.Held || stored.Ref.Name != "n" {
			t.Fatalf("%+v, %v", stored, err)
		}
	}
	got, err := ReadAll(ctx, s, Alice(), p.Expect, storage.Range{})
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	wantUsage(t, s, Alice(), storage.Usage{Bytes: int64(len(data)), Blobs: 1})
	_, err = s.AppendUpload(ctx, Alice(), u.ID, u.Offset, bytes.NewReader(data))
	wantReason(t, err, storage.ReasonUploadDone)
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

func uploadsRefuse(t *testing.T, open Make) {
	l := small()
	l.Uploads = 2
	s, ctx := open(t, l), t.Context()
	var ids []storage.UploadID
	for range 2 {
		u, err := s.StartUpload(ctx, file(Alice()))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, u.ID)
	}
	_, err := s.StartUpload(ctx, file(Alice()))
	wantReason(t, err, storage.ReasonBusy)
	if _, err := s.StartUpload(ctx, file(Bob())); err != nil {
		t.Errorf("another account: %v", err)
	}
	_, err = s.StartUpload(ctx, storage.Put{Account: Bob(), Kind: cid.Directory})
	wantReason(t, err, storage.ReasonBadRequest)
	_, err = s.Upload(ctx, Bob(), ids[0])
	wantReason(t, err, storage.ReasonNoUpload)
	wantReason(t, s.AbortUpload(ctx, Bob(), ids[0]), storage.ReasonNoUpload)
	if all, err := s.ListUploads(ctx, Alice()); err != nil || len(all) != 2 {
		t.Errorf("%v, %v", all, err)
	}
	_, err = s.AppendUpload(ctx, Alice(), ids[0], 0, bytes.NewReader(Bytes(int(l.Blob)+1, 1)))
	wantReason(t, err, storage.ReasonTooLarge)
	if err := s.AbortUpload(ctx, Alice(), ids[0]); err != nil {
		t.Error(err)
	}
	_, err = s.FinishUpload(ctx, Alice(), ids[0])
	wantReason(t, err, storage.ReasonNoUpload)
	p := file(Alice())
	p.Size = 10
	u, err := s.StartUpload(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.FinishUpload(ctx, Alice(), u.ID)
	wantReason(t, err, storage.ReasonSize)
	if err := s.AbortUpload(ctx, Alice(), u.ID); err != nil {
		t.Error(err)
	}
	if usage, err := s.Usage(ctx, Alice()); err != nil || usage.Uploads.Blobs != 1 ||
		usage.Bytes != 0 {
		t.Errorf("usage %+v, %v", usage, err)
	}
}
