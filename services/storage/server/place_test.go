package server_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/server"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

// TestStrangersHaveNoPlaces: keys cost nothing, so one that is not on the chain is refused before
// it has sent anything, and takes no place from those that are.
func TestStrangersHaveNoPlaces(t *testing.T) {
	const stall = 10 * time.Second // after which the test fails, and does not hang
	r := newRigWith(t, server.Config{AllUploads: 1, Stall: stall}, func(d *server.Deps) {
		d.Accounts = onChain{who: storagetest.Alice()}
	})
	bob, cancel := context.WithCancel(as(t, "bob", "file"))
	defer cancel()
	put, err := r.client.Put(bob)
	if err != nil {
		t.Fatal(err)
	}
	if err := put.RecvMsg(&storagev1.PutResponse{}); !errors.Is(err, storage.ReasonNoAccount) {
		t.Errorf("a put that sends nothing: %v", err)
	}
	more, err := r.client.AppendUpload(bob)
	if err != nil {
		t.Fatal(err)
	}
	if err := more.RecvMsg(&storagev1.AppendUploadResponse{}); !errors.Is(err,
		storage.ReasonNoAccount) {
		t.Errorf("an append that sends nothing: %v", err)
	}
	mustPut(t, r, blob.Put{Kind: cid.File}, []byte("hers"))
}
