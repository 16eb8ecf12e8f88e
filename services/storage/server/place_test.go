package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/dir"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
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

// accountOf returns the account of a name: alice, bob, and one of many.
func accountOf(name string) (a storage.Account, known bool) {
	switch number, of := strings.CutPrefix(name, "many-"); {
	case name == "alice":
		return storagetest.Alice(), true
	case name == "bob":
		return storagetest.Bob(), true
	case of:
		return storage.Account{0: 0xee, 1: number[0], 2: number[1], 3: number[2]}, true
	}
	return a, false
}

// largeDirectory is one of more than 64 KiB, all of whose files that account holds.
func largeDirectory(t *testing.T, r rig, who string) []byte {
	t.Helper()
	file, err := r.blobs.Put(as(t, who, "file"), blob.Put{Kind: cid.File}, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	var entries []dir.Entry
	for n := range 1000 {
		entries = append(entries, dir.Entry{Name: fmt.Sprintf("%04d-%050d", n, n), CID: file.CID,
			Size: 1, Mode: 0o644})
	}
	raw, _, err := dir.Encode(entries)
	if err != nil || len(raw) <= 64<<10 {
		t.Fatalf("%d bytes: %v", len(raw), err)
	}
	return raw
}

// sending is a directory of which the bytes are sent, and not the end.
func sending(t *testing.T, r rig, ctx context.Context, raw []byte) putting {
	t.Helper()
	stream, err := r.client.Put(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*storagev1.PutRequest{
		{Part: &storagev1.PutRequest_Header{Header: &storagev1.PutHeader{
			Kind: storagev1.Kind_KIND_DIRECTORY}}},
		{Part: &storagev1.PutRequest_Chunk{Chunk: raw}},
	} {
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	return stream
}

type putting = grpc.ClientStreamingClient[storagev1.PutRequest, storagev1.PutResponse]

// placed waits until so many directories have places.
func placed(t *testing.T, r rig, want int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); r.server.Directories() < want; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("only %d directories have places, want %d", r.server.Directories(), want)
		}
	}
}

// TestDirectoriesInMemoryAreFew: a directory is in memory while it is received, so of one account
// there are few large ones at once; who is refused is told when to come again, and small ones,
// files and others go on.
func TestDirectoriesInMemoryAreFew(t *testing.T) {
	const each = 8
	r := newRig(t, server.Config{})
	raw := map[string][]byte{"alice": largeDirectory(t, r, "alice"),
		"bob": largeDirectory(t, r, "bob")}
	put := func(who string, raw []byte) error {
		_, err := r.blobs.Put(as(t, who, "file"), blob.Put{Kind: cid.Directory}, bytes.NewReader(raw))
		return err
	}
	var streams []putting
	for range each {
		streams = append(streams, sending(t, r, alice(t), raw["alice"]))
	}
	placed(t, r, each)
	err := put("alice", raw["alice"])
	if !errors.Is(err, storage.ReasonBusy) || fault.From(err).Retry() <= 0 {
		t.Errorf("one more: %v", err)
	}
	if err := put("bob", raw["bob"]); err != nil {
		t.Errorf("another's: %v", err)
	}
	if err := put("alice", nil); err != nil {
		t.Errorf("a small one: %v", err)
	}
	mustPut(t, r, blob.Put{Kind: cid.File}, []byte("a file"))
	for _, stream := range streams {
		if _, err := stream.CloseAndRecv(); err != nil {
			t.Errorf("one that was let in: %v", err)
		}
	}
	if err := put("alice", raw["alice"]); err != nil || r.server.Directories() != 0 {
		t.Errorf("later: %v, %d have places", err, r.server.Directories())
	}
}

// TestSlowDirectoriesKeepNobodyOut: as many accounts as there are places for directories, each with
// one that does not get on.
func TestSlowDirectoriesKeepNobodyOut(t *testing.T) {
	var past atomic.Int64
	r := newRigWith(t, server.Config{}, func(d *server.Deps) {
		d.Now = func() time.Time { return time.Now().Add(time.Duration(past.Load())) }
	})
	raw := largeDirectory(t, r, "bob")
	put := func(raw []byte) error {
		_, err := r.blobs.Put(as(t, "bob", "file"), blob.Put{Kind: cid.Directory},
			bytes.NewReader(raw))
		return err
	}
	past.Store(int64(-time.Hour)) // they have just begun, however long that takes here
	many, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, server.MaxDirectories)
	for n := range server.MaxDirectories {
		ctx := rpc.WithToken(many, fmt.Sprintf("many-%03d+file", n))
		stream := sending(t, r, ctx, make([]byte, 64<<10+1))
		go func() { ended <- stream.RecvMsg(&storagev1.PutResponse{}) }()
	}
	placed(t, r, server.MaxDirectories)
	if err := put(nil); err != nil {
		t.Errorf("a small one: %v", err)
	}
	past.Store(int64(-2 * time.Hour))
	if err := put(raw); !errors.Is(err, storage.ReasonBusy) || fault.From(err).Retry() <= 0 {
		t.Errorf("while all have just begun: %v", err)
	}
	past.Store(0)
	if err := put(raw); err != nil {
		t.Fatalf("after a while: %v", err)
	}
	if err := <-ended; !errors.Is(err, storage.ReasonBusy) || fault.From(err).Retry() <= 0 {
		t.Errorf("one that gave way: %v", err)
	}
	if n := r.server.Directories(); n != server.MaxDirectories-1 {
		t.Errorf("%d have places, want all but one", n)
	}
	cancel()
	for range server.MaxDirectories - 1 {
		<-ended
	}
}

// TestDirectoriesComeInTime: one that gets on, and never ends, is given up.
func TestDirectoriesComeInTime(t *testing.T) {
	r := newRig(t, server.Config{DirectoryTime: 100 * time.Millisecond})
	stream := sending(t, r, alice(t), make([]byte, 64<<10+1))
	if err := stream.RecvMsg(&storagev1.PutResponse{}); !errors.Is(err, storage.ReasonStalled) {
		t.Error(err)
	}
}
