package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/dir"
	"github.com/united-containers/ucn/kit/fault"
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

// TestDirectoriesInMemoryAreFew: a directory is in memory while it is received, so of one account
// there are few at once; who is refused is told when to come again, and files and others go on.
func TestDirectoriesInMemoryAreFew(t *testing.T) {
	const each = 8
	r := newRig(t, server.Config{})
	raw, _, err := dir.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	put := func(who string, body io.Reader) error {
		_, err := r.blobs.Put(as(t, who, "file"), blob.Put{Kind: cid.Directory}, body)
		return err
	}
	done := make(chan error, each)
	var writers []*io.PipeWriter
	for range each {
		body, writer := io.Pipe()
		writers = append(writers, writer)
		go func() { done <- put("alice", body) }()
	}
	for end := time.Now().Add(time.Minute); r.server.Directories() < each; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("only %d directories are being put", r.server.Directories())
		}
	}
	err = put("alice", bytes.NewReader(raw))
	if !errors.Is(err, storage.ReasonBusy) || fault.From(err).Retry() <= 0 {
		t.Errorf("one more: %v", err)
	}
	if err := put("bob", bytes.NewReader(raw)); err != nil {
		t.Errorf("another's: %v", err)
	}
	mustPut(t, r, blob.Put{Kind: cid.File}, []byte("a file"))
	for _, writer := range writers {
		if err := writer.Close(); err != nil {
			t.Error(err)
		}
	}
	for range each {
		if err := <-done; err != nil {
			t.Errorf("one that was let in: %v", err)
		}
	}
	if err := put("alice", bytes.NewReader(raw)); err != nil || r.server.Directories() != 0 {
		t.Errorf("later: %v, %d are being put", err, r.server.Directories())
	}
}
