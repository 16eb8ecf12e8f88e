package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

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

type refusal struct {
	name string
	err  error
	want fault.Reason
	kind fault.Kind
}

func check(t *testing.T, tests []refusal) {
	t.Helper()
	for _, test := range tests {
		if !errors.Is(test.err, test.want) || fault.KindOf(test.err) != test.kind {
			t.Errorf("%s: got %v, want %s", test.name, test.err, test.want)
		}
	}
}

func mustPut(t *testing.T, r rig, p blob.Put, data []byte) cid.CID {
	t.Helper()
	stored, err := r.blobs.Put(alice(t), p, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return stored.CID
}

// folder puts a directory with one file in it.
func folder(t *testing.T, r rig, name string, c cid.CID, size int64) cid.CID {
	t.Helper()
	raw, _, err := dir.Encode([]dir.Entry{{Name: name, CID: c, Size: size, Mode: 0o644}})
	if err != nil {
		t.Fatal(err)
	}
	return mustPut(t, r, blob.Put{Kind: cid.Directory}, raw)
}

func TestRangesAndPathsAreRefused(t *testing.T) {
	r := newRig(t, server.Config{})
	file := mustPut(t, r, blob.Put{Kind: cid.File}, storagetest.Bytes(1000, 1))
	tree := folder(t, r, "a", file, 1000)
	get := func(request *storagev1.GetRequest) error {
		stream, err := r.client.Get(alice(t), request)
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	part := func(c cid.CID, path string, offset, length uint64) error {
		return get(&storagev1.GetRequest{Cid: c.String(), Path: path, Offset: offset, Length: length})
	}
	list := func(request *storagev1.ListDirectoryRequest) error {
		_, err := r.client.ListDirectory(alice(t), request)
		return err
	}
	check(t, []refusal{
		{"begins behind the end", part(file, "", 1001, 0), storage.ReasonRange, fault.OutOfRange},
		{"ends behind the end", part(file, "", 999, 2), storage.ReasonRange, fault.OutOfRange},
		{"overflows", part(file, "", 1, 1<<63-1), storage.ReasonRange, fault.OutOfRange},
		{"offset of 64 bits", part(file, "", 1<<63, 1), storage.ReasonRange, fault.OutOfRange},
		{"length of 64 bits", part(file, "", 0, 1<<64-1), storage.ReasonRange, fault.OutOfRange},
		{"outside, by a path", part(tree, "a", 0, 1001), storage.ReasonRange, fault.OutOfRange},
		{"a path in a file", part(file, "a", 0, 0), storage.ReasonNotDirectory,
			fault.FailedPrecondition},
		{"a path that leads nowhere", part(tree, "b", 0, 0), dir.ReasonNoPath, fault.NotFound},
		{"a path that leads out", part(tree, "../a", 0, 0), dir.ReasonPath, fault.InvalidArgument},
		{"a slice of an image's blob", get(&storagev1.GetRequest{Cid: storagetest.CIDOf(cid.OCIBlob,
			nil).String(), Encoding: storagev1.Encoding_ENCODING_BAO_SLICE}),
			storage.ReasonBadRequest, fault.InvalidArgument},
		{"a file is no directory", list(&storagev1.ListDirectoryRequest{Cid: file.String()}),
			storage.ReasonNotDirectory, fault.FailedPrecondition},
		{"a page too large", list(&storagev1.ListDirectoryRequest{Cid: tree.String(),
			PageSize: 1001}), storage.ReasonBadRequest, fault.InvalidArgument},
	})
}

// TestCursorsBelongToTheirQuery: a place in one list says nothing about another.
func TestCursorsBelongToTheirQuery(t *testing.T) {
	r := newRig(t, server.Config{})
	file := mustPut(t, r, blob.Put{Kind: cid.File}, []byte("1"))
	other := mustPut(t, r, blob.Put{Kind: cid.File}, []byte("2"))
	listed, err := r.client.List(alice(t), &storagev1.ListRequest{PageSize: 1})
	if err != nil || listed.GetNextPageToken() == "" {
		t.Fatal(listed, err)
	}
	raw, _, err := dir.Encode([]dir.Entry{{Name: "a", CID: file, Size: 1, Mode: 0o600},
		{Name: "b", CID: other, Size: 1, Mode: 0o600}})
	if err != nil {
		t.Fatal(err)
	}
	tree := mustPut(t, r, blob.Put{Kind: cid.Directory}, raw)
	place, err := r.client.ListDirectory(alice(t), &storagev1.ListDirectoryRequest{
		Cid: tree.String(), PageSize: 1})
	if err != nil || place.GetNextPageToken() == "" {
		t.Fatal(place, err)
	}
	elsewhere := folder(t, r, "z", file, 1)
	list := func(token string) error {
		_, err := r.client.List(alice(t), &storagev1.ListRequest{PageToken: token})
		return err
	}
	remove := func(token string) error {
		_, err := r.client.RemoveMany(alice(t), &storagev1.RemoveManyRequest{All: true,
			PageToken: token})
		return err
	}
	directory := func(c cid.CID, token string) error {
		_, err := r.client.ListDirectory(alice(t), &storagev1.ListDirectoryRequest{Cid: c.String(),
			PageToken: token})
		return err
	}
	bad := func(name string, err error) refusal {
		return refusal{name, err, storage.ReasonBadRequest, fault.InvalidArgument}
	}
	check(t, []refusal{
		bad("a bare CID", list(file.String())),
		bad("of a directory", list(place.GetNextPageToken())),
		bad("of a list, to remove", remove(listed.GetNextPageToken())),
		bad("of a list, in a directory", directory(tree, listed.GetNextPageToken())),
		bad("of another directory", directory(elsewhere, place.GetNextPageToken())),
		bad("no token", directory(tree, "%")),
	})
	if err := list(listed.GetNextPageToken()); err != nil {
		t.Errorf("its own: %v", err)
	}
	if usage, err := r.client.Usage(alice(t), &storagev1.UsageRequest{}); err != nil ||
		usage.GetBlobs() != 4 {
		t.Errorf("usage %v, %v", usage, err)
	}
}

func TestKeepingIsRefused(t *testing.T) {
	r := newRig(t, server.Config{})
	hers := mustPut(t, r, blob.Put{Kind: cid.File}, []byte("hers"))
	folder(t, r, "a", hers, 4)
	pinned := mustPut(t, r, blob.Put{Kind: cid.File}, []byte("pinned"))
	if _, err := r.client.Pin(alice(t), &storagev1.PinRequest{Cid: pinned.String()}); err != nil {
		t.Fatal(err)
	}
	pin := func(ctx context.Context, c string) error {
		_, err := r.client.Pin(ctx, &storagev1.PinRequest{Cid: c})
		return err
	}
	unpin := func(ctx context.Context, c string) error {
		_, err := r.client.Unpin(ctx, &storagev1.UnpinRequest{Cid: c})
		return err
	}
	expire := func(ctx context.Context, c string, ms uint64) error {
		_, err := r.client.SetExpiry(ctx, &storagev1.SetExpiryRequest{Cid: c, ExpiresMs: ms})
		return err
	}
	remove := func(ctx context.Context, c string) error {
		_, err := r.client.Remove(ctx, &storagev1.RemoveRequest{Cid: c})
		return err
	}
	many := func(request *storagev1.RemoveManyRequest) error {
		_, err := r.client.RemoveMany(alice(t), request)
		return err
	}
	collect := func(who string, scopes ...string) error {
		_, err := r.client.CollectGarbage(as(t, who, scopes...), &storagev1.CollectGarbageRequest{})
		return err
	}
	bob, text, gone := as(t, "bob", "file"), hers.String(), anyFile()
	check(t, []refusal{
		{"pin a stranger's", pin(bob, text), storage.ReasonNotFound, fault.NotFound},
		{"unpin a stranger's", unpin(bob, pinned.String()), storage.ReasonNotFound, fault.NotFound},
		{"expire a stranger's", expire(bob, text, 0), storage.ReasonNotFound, fault.NotFound},
		{"remove a stranger's", remove(bob, text), storage.ReasonNotFound, fault.NotFound},
		{"pin what is not there", pin(alice(t), gone), storage.ReasonNotFound, fault.NotFound},
		{"pin nothing", pin(alice(t), ""), cid.ReasonBad, fault.InvalidArgument},
		{"pin for a job", pin(as(t, "alice", "file:write:j"), text), rpc.ReasonScopeMissing,
			fault.PermissionDenied},
		{"expire in the past", expire(alice(t), text, 1), storage.ReasonBadRequest,
			fault.InvalidArgument},
		{"expire after all time", expire(alice(t), text, 1<<63), storage.ReasonBadRequest,
			fault.InvalidArgument},
		{"remove what is pinned", remove(alice(t), pinned.String()), storage.ReasonPinned,
			fault.FailedPrecondition},
		{"remove from a folder", remove(alice(t), text), storage.ReasonInDirectory,
			fault.FailedPrecondition},
		{"remove which", many(&storagev1.RemoveManyRequest{}), storage.ReasonBadRequest,
			fault.InvalidArgument},
		{"remove all and some", many(&storagev1.RemoveManyRequest{All: true, Job: "j"}),
			storage.ReasonBadRequest, fault.InvalidArgument},
		{"remove an unknown kind", many(&storagev1.RemoveManyRequest{Kind: 9}),
			storage.ReasonBadRequest, fault.InvalidArgument},
		{"remove a long job's", many(&storagev1.RemoveManyRequest{Job: strings.Repeat("j", 129)}),
			storage.ReasonBadRequest, fault.InvalidArgument},
		{"remove what is no CID", many(&storagev1.RemoveManyRequest{Cids: []string{"x"}}),
			cid.ReasonBad, fault.InvalidArgument},
		{"remove too many", many(&storagev1.RemoveManyRequest{Cids: make([]string, 1001)}),
			storage.ReasonBadRequest, fault.InvalidArgument},
		{"remove all and these", many(&storagev1.RemoveManyRequest{All: true, Cids: []string{gone}}),
			storage.ReasonBadRequest, fault.InvalidArgument},
		{"collect without its scope", collect("alice", "job"), rpc.ReasonScopeMissing,
			fault.PermissionDenied},
		{"collect, not the operator", collect("alice", "file"), storage.ReasonNotOperator,
			fault.PermissionDenied},
	})
}

func TestUploadsAreRefused(t *testing.T) {
	r := newRig(t, server.Config{})
	start := func(ctx context.Context, h *storagev1.PutHeader) (string, error) {
		response, err := r.client.StartUpload(ctx, &storagev1.StartUploadRequest{Header: h})
		return response.GetUpload().GetId(), err
	}
	refused := func(h *storagev1.PutHeader) error { _, err := start(alice(t), h); return err }
	must := func(h *storagev1.PutHeader) string {
		id, err := start(alice(t), h)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	kind := storagev1.Kind_KIND_FILE
	ten := must(&storagev1.PutHeader{Kind: kind, Size: 10})
	job := must(&storagev1.PutHeader{Kind: kind, Job: "j1"})
	wrong := must(&storagev1.PutHeader{Kind: kind, ExpectedCid: anyFile()})
	full := must(&storagev1.PutHeader{Kind: kind})
	at := func(ctx context.Context, id string, offset uint64, chunks ...[]byte) error {
		return appendTo(ctx, r.client, &storagev1.AppendHeader{Upload: id, Offset: offset}, chunks...)
	}
	finish := func(ctx context.Context, id string) error {
		_, err := r.client.FinishUpload(ctx, &storagev1.FinishUploadRequest{Upload: id})
		return err
	}
	bob, x := as(t, "bob", "file"), []byte("x")
	if err := at(alice(t), wrong, 0, x); err != nil {
		t.Fatal(err)
	}
	mustPut(t, r, blob.Put{Kind: cid.File}, storagetest.Bytes(4<<20, 1)) // of a quota of 6 MiB
	check(t, []refusal{
		{"no header", refused(nil), storage.ReasonBadRequest, fault.InvalidArgument},
		{"a directory in pieces", refused(&storagev1.PutHeader{
			Kind: storagev1.Kind_KIND_DIRECTORY}), storage.ReasonBadRequest, fault.InvalidArgument},
		{"larger than a blob", refused(&storagev1.PutHeader{Kind: kind, Size: 4<<20 + 1}),
			storage.ReasonTooLarge, fault.InvalidArgument},
		{"a size of 64 bits", refused(&storagev1.PutHeader{Kind: kind, Size: 1 << 63}),
			storage.ReasonBadRequest, fault.InvalidArgument},
		{"more than the quota leaves", refused(&storagev1.PutHeader{Kind: kind, Size: 3 << 20}),
			storage.ReasonQuota, fault.ResourceExhausted},
		{"expires in the past", refused(&storagev1.PutHeader{Kind: kind, ExpiresMs: 1}),
			storage.ReasonBadRequest, fault.InvalidArgument},
		{"no CID", refused(&storagev1.PutHeader{Kind: kind, ExpectedCid: "x"}), cid.ReasonBad,
			fault.InvalidArgument},
		{"no id", at(alice(t), "", 0, x), storage.ReasonBadRequest, fault.InvalidArgument},
		{"an unknown id", at(alice(t), noUpload, 0, x), storage.ReasonNoUpload, fault.NotFound},
		{"a stranger's", at(bob, ten, 0, x), storage.ReasonNoUpload, fault.NotFound},
		{"a stranger's end", finish(bob, ten), storage.ReasonNoUpload, fault.NotFound},
		{"another job's", at(as(t, "alice", "file:write:j2"), job, 0, x), rpc.ReasonScopeMissing,
			fault.PermissionDenied},
		{"another job's end", finish(as(t, "alice", "file:write:j2"), job), rpc.ReasonScopeMissing,
			fault.PermissionDenied},
		{"ahead of its offset", at(alice(t), ten, 5, x), storage.ReasonOffset, fault.Aborted},
		{"an offset of 64 bits", at(alice(t), ten, 1<<63, x), storage.ReasonBadRequest,
			fault.InvalidArgument},
		{"more than it announced", at(alice(t), ten, 0, make([]byte, 11)), storage.ReasonSize,
			fault.InvalidArgument},
		{"an empty chunk", at(alice(t), full, 0, nil), storage.ReasonBadRequest,
			fault.InvalidArgument},
		{"no header first", appendTo(alice(t), r.client, nil, x), storage.ReasonBadRequest,
			fault.InvalidArgument},
		{"less than it announced", finish(alice(t), ten), storage.ReasonSize, fault.InvalidArgument},
		{"other bytes than announced", finish(alice(t), wrong), cid.ReasonMismatch,
			fault.InvalidArgument},
		{"beyond the quota", at(alice(t), full, 0, make([]byte, 1<<20), make([]byte, 1<<20),
			make([]byte, 1<<19)), storage.ReasonQuota, fault.ResourceExhausted},
	})
	if err := finish(alice(t), full); err != nil {
		t.Fatal(err)
	}
	check(t, []refusal{{"after its end", at(alice(t), full, 0, x), storage.ReasonUploadDone,
		fault.FailedPrecondition}})
}

// onChain says who is on the chain, or that nobody can be asked.
type onChain struct {
	who storage.Account
	err error
}

func (o onChain) Exists(_ context.Context, a storage.Account) (bool, error) {
	return a == o.who, o.err
}

// TestStrangersToTheChainHaveNoQuota: neither by a put nor by an upload; and while the ledger
// cannot be asked, they are told to try again.
func TestStrangersToTheChainHaveNoQuota(t *testing.T) {
	attempts := func(r rig, who string) (put, upload error) {
		_, put = r.blobs.Put(as(t, who, "file"), blob.Put{Kind: cid.File}, strings.NewReader("x"))
		_, upload = r.client.StartUpload(as(t, who, "file"), &storagev1.StartUploadRequest{
			Header: &storagev1.PutHeader{Kind: storagev1.Kind_KIND_FILE}})
		return put, upload
	}
	r := newRigWith(t, server.Config{}, func(d *server.Deps) {
		d.Accounts = onChain{who: storagetest.Alice()}
	})
	put, upload := attempts(r, "bob")
	check(t, []refusal{
		{"put", put, storage.ReasonNoAccount, fault.FailedPrecondition},
		{"upload", upload, storage.ReasonNoAccount, fault.FailedPrecondition},
	})
	if put, upload = attempts(r, "alice"); put != nil || upload != nil {
		t.Errorf("one of the chain: %v, %v", put, upload)
	}
	r = newRigWith(t, server.Config{}, func(d *server.Deps) {
		d.Accounts = onChain{err: errors.New("away")}
	})
	put, upload = attempts(r, "alice")
	check(t, []refusal{
		{"put, ledger away", put, storage.ReasonNoAccount, fault.Unavailable},
		{"upload, ledger away", upload, storage.ReasonNoAccount, fault.Unavailable},
	})
}

// TestDirectoriesOfAJob: a host may bind together what it made and what it was given, and learns
// nothing of what else its owner holds.
func TestDirectoriesOfAJob(t *testing.T) {
	r := newRig(t, server.Config{})
	secret := mustPut(t, r, blob.Put{Kind: cid.File}, []byte("secret"))
	input := mustPut(t, r, blob.Put{Kind: cid.File}, []byte("input"))
	host := as(t, "alice", "file:write:j1", "file:read:"+input.String())
	out, err := r.blobs.Put(host, blob.Put{Kind: cid.File}, strings.NewReader("out"))
	if err != nil {
		t.Fatal(err)
	}
	put := func(entries ...dir.Entry) error {
		raw, _, err := dir.Encode(entries)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.blobs.Put(host, blob.Put{Kind: cid.Directory}, bytes.NewReader(raw))
		return err
	}
	entry := func(name string, c cid.CID, size int) dir.Entry {
		return dir.Entry{Name: name, CID: c, Size: int64(size), Mode: 0o600}
	}
	missing := storagetest.CIDOf(cid.File, []byte("missing"))
	check(t, []refusal{
		{"names what its owner holds", put(entry("s", secret, 6)), rpc.ReasonScopeMissing,
			fault.PermissionDenied},
		{"lies about the size of it", put(entry("s", secret, 7)), rpc.ReasonScopeMissing,
			fault.PermissionDenied},
		{"names what nobody holds", put(entry("s", missing, 6)), rpc.ReasonScopeMissing,
			fault.PermissionDenied},
		{"lies about its own", put(entry("o", out.CID, 4)), storage.ReasonIncomplete,
			fault.FailedPrecondition},
	})
	if err := put(entry("in", input, 5), entry("out", out.CID, 3)); err != nil {
		t.Errorf("of input and output: %v", err)
	}
	if _, err := r.blobs.Put(alice(t), blob.Put{Kind: cid.Directory},
		io.LimitReader(endless{}, dir.MaxBytes+1)); err == nil {
		t.Error("a directory of more than its bound was taken")
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }
