package server_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/server"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

// TestRemoveMany: a filter ends what it picks, in pages; named references end in their order, and
// those that stay are named with the reason; a dry run only counts.
func TestRemoveMany(t *testing.T) {
	r := newRig(t, server.Config{})
	put := func(name string, seed uint64) cid.CID {
		return mustPut(t, r, blob.Put{Kind: cid.File, Name: name}, storagetest.Bytes(10, seed))
	}
	one, two, three, pinned := put("a1", 1), put("a2", 2), put("b", 3), put("a3", 4)
	if _, err := r.client.Pin(alice(t), &storagev1.PinRequest{Cid: pinned.String()}); err != nil {
		t.Fatal(err)
	}
	tree := folder(t, r, "x", three, 10)
	other := folder(t, r, "y", one, 10)
	kept := func(c cid.CID, why string) *storagev1.Kept {
		return &storagev1.Kept{Cid: c.String(), Reason: why}
	}
	texts := func(cs ...cid.CID) (list []string) {
		for _, c := range cs {
			list = append(list, c.String())
		}
		return list
	}
	strange := storagetest.CIDOf(cid.File, []byte("never put"))
	for _, step := range []struct {
		name string
		ask  *storagev1.RemoveManyRequest
		want *storagev1.RemoveManyResponse
	}{
		{"a dry run", &storagev1.RemoveManyRequest{NamePrefix: "a", DryRun: true},
			&storagev1.RemoveManyResponse{Removed: 2, Bytes: 20, Pinned: 1}},
		{"a prefix", &storagev1.RemoveManyRequest{NamePrefix: "a"},
			&storagev1.RemoveManyResponse{Removed: 1, Bytes: 10, Pinned: 1, InDirectory: 1}},
		{"by name", &storagev1.RemoveManyRequest{Cids: texts(two, pinned, three, other, one)},
			&storagev1.RemoveManyResponse{Removed: 2, Bytes: 10 + size(t, r, other), Pinned: 1,
				InDirectory: 1, Kept: []*storagev1.Kept{kept(two, "BLOB_NOT_FOUND"),
					kept(pinned, "REFERENCE_PINNED"), kept(three, "IN_DIRECTORY")}}},
		{"by name, of a kind", &storagev1.RemoveManyRequest{Cids: texts(strange, pinned, tree),
			Kind: storagev1.Kind_KIND_DIRECTORY},
			&storagev1.RemoveManyResponse{Removed: 1, Bytes: size(t, r, tree),
				Kept: []*storagev1.Kept{kept(strange, "BLOB_NOT_FOUND")}}},
		{"all", &storagev1.RemoveManyRequest{All: true},
			&storagev1.RemoveManyResponse{Removed: 1, Bytes: 10, Pinned: 1}},
	} {
		got, err := r.client.RemoveMany(alice(t), step.ask)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if d := cmp.Diff(step.want, got, protocmp.Transform()); d != "" {
			t.Errorf("%s (-want +got)\n%s", step.name, d)
		}
	}
	_, err := r.client.RemoveMany(as(t, "alice", "file:write:j"),
		&storagev1.RemoveManyRequest{Cids: texts(pinned)})
	if !errors.Is(err, storage.ReasonForbidden) {
		t.Errorf("with a token of a job: %v", err)
	}
	got, err := r.client.RemoveMany(as(t, "bob", "file"),
		&storagev1.RemoveManyRequest{Cids: texts(pinned)})
	if err != nil || got.GetRemoved() != 0 || len(got.GetKept()) != 1 {
		t.Errorf("a stranger's: %v, %v", got, err)
	}
}

func size(t *testing.T, r rig, c cid.CID) uint64 {
	t.Helper()
	got, err := r.client.Stat(alice(t), &storagev1.StatRequest{Cid: c.String()})
	if err != nil {
		t.Fatal(err)
	}
	return got.GetReference().GetSize()
}
