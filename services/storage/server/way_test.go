package server_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/server"
)

// TestUploadsGiveWay: when all places are taken, who has most gives one to who has fewer.
func TestUploadsGiveWay(t *testing.T) {
	const all = 3
	entered := make(chan struct{}, 2*all) // more uploads than the test makes
	r := newRigOn(t, server.Config{Uploads: all, AllUploads: all},
		func(s storage.Store) storage.Store { return announcing{s, entered} })
	done := make(chan error, all)
	var writers []*io.PipeWriter
	for range all {
		body, writer := io.Pipe()
		writers = append(writers, writer)
		go func() {
			_, err := r.blobs.Put(as(t, "alice", "file"), blob.Put{Kind: cid.File}, body)
			done <- err
		}()
		<-entered
	}
	_, err := r.blobs.Put(as(t, "bob", "file"), blob.Put{Kind: cid.File}, strings.NewReader("x"))
	if err != nil {
		t.Errorf("who has none: %v", err)
	}
	for _, w := range writers { // the client of the one that was ended learns it when it sends
		_ = w.Close()
	}
	gave := 0
	for range all {
		if err := <-done; errors.Is(err, storage.ReasonBusy) && fault.From(err).Retry() > 0 {
			gave++
		} else if err != nil {
			t.Error(err)
		}
	}
	if gave != 1 {
		t.Errorf("%d gave way, want 1", gave)
	}
}
