package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/rpc"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/server"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

// tokens takes "alice scope scope" for a token of Alice with these scopes.
type tokens struct{}

func (tokens) Authenticate(_ context.Context, bearer string) (rpc.Caller, error) {
	parts := strings.Split(bearer, "+")
	who, known := accountOf(parts[0])
	if !known {
		return rpc.Caller{}, fault.New(fault.Unauthenticated, rpc.ReasonBadSignature, "who?")
	}
	return rpc.Caller{Account: who, Scopes: parts[1:]}, nil
}

type rig struct {
	server    *server.Server
	store     *storagetest.Memory
	client    storagev1.StorageServiceClient
	blobs     *blob.Client
	telemetry *kittest.Telemetry
}

func small() storage.Limits {
	return storage.Limits{Blob: 4 << 20, Bytes: 6 << 20, Blobs: 100}
}

// newRig runs the server behind kit/rpc, as in production but for the store and the tokens.
func newRig(t *testing.T, cfg server.Config) rig {
	t.Helper()
	return newRigOn(t, cfg, func(s storage.Store) storage.Store { return s })
}

// newRigOn is newRig with something between server and store.
func newRigOn(t *testing.T, cfg server.Config, wrap func(storage.Store) storage.Store) rig {
	t.Helper()
	return newRigWith(t, cfg, func(d *server.Deps) { d.Store = wrap(d.Store) })
}

// newRigWith is newRig with what the server gets changed.
func newRigWith(t *testing.T, cfg server.Config, change func(*server.Deps)) rig {
	t.Helper()
	log := kittest.NewLog(t)
	tel := kittest.NewTelemetry(t, log)
	service := tel.MustService(t, "storage")
	store := storagetest.NewMemory(small())
	deps := server.Deps{Store: store, Limits: small(), Meter: service.Meters, Log: service.Log}
	change(&deps)
	s, err := server.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	var pipe rpc.Pipe
	listener, err := pipe.Listen("storage")
	if err != nil {
		t.Fatal(err)
	}
	g, err := rpc.NewServer(rpc.DefaultServer(), rpc.ServerDeps{Log: service.Log, Auth: tokens{},
		Tracers: service.Tracers, Meters: service.Meters, Listener: listener})
	if err != nil {
		t.Fatal(err)
	}
	s.Register(g)
	kittest.Run(t, s)
	kittest.Run(t, g)
	conn, err := rpc.NewPipeDialer(&pipe, rpc.ClientDeps{}).Dial(t.Context(), "storage")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	client := storagev1.NewStorageServiceClient(conn)
	return rig{server: s, store: store, client: client, blobs: blob.New(client), telemetry: tel}
}

func as(t *testing.T, who string, scopes ...string) context.Context {
	t.Helper()
	return rpc.WithToken(t.Context(), strings.Join(append([]string{who}, scopes...), "+"))
}

func alice(t *testing.T) context.Context { t.Helper(); return as(t, "alice", "file") }

func TestPutAndGet(t *testing.T) {
	r := newRig(t, server.Config{})
	for _, kind := range []cid.Kind{cid.File, cid.OCIBlob} {
		for _, size := range []int{0, 1, 256 << 10, 256<<10 + 1, 3 << 20} {
			data := storagetest.Bytes(size, 1)
			c := storagetest.CIDOf(kind, data)
			p := blob.Put{Kind: kind, Name: "n"}
			stored, err := r.blobs.Put(alice(t), p, bytes.NewReader(data))
			if err != nil || stored != (blob.Stored{CID: c, Size: int64(size)}) {
				t.Fatalf("%s of %d: %+v, %v", kind, size, stored, err)
			}
			body, err := r.blobs.Open(alice(t), c)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(body)
			if err != nil || body.Close() != nil || !bytes.Equal(got, data) {
				t.Errorf("%s of %d: read %d bytes, %v", kind, size, len(got), err)
			}
			p.Expect, p.Size = c, int64(size)
			stored, err = r.blobs.Put(alice(t), p, bytes.NewReader(data))
			if err != nil || !stored.Held {
				t.Errorf("%s of %d again: %+v, %v", kind, size, stored, err)
			}
			if _, err := r.client.Remove(alice(t), &storagev1.RemoveRequest{Cid: c.String()}); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestRangesVerifyWithoutTrust(t *testing.T) {
	r := newRig(t, server.Config{})
	data := storagetest.Bytes(1<<20, 1)
	stored, err := r.blobs.Put(alice(t), blob.Put{Kind: cid.File}, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := r.blobs.GetRange(alice(t), stored.CID,
		cid.Part{Offset: 100_000, Length: 500_000, Size: 1 << 20}, &out); err != nil ||
		!bytes.Equal(out.Bytes(), data[100_000:600_000]) {
		t.Errorf("%d bytes, %v", out.Len(), err)
	}
	err = r.blobs.GetRange(alice(t), stored.CID,
		cid.Part{Offset: 1<<20 - 10, Length: 11, Size: 1<<20 + 1}, io.Discard)
	if !errors.Is(err, storage.ReasonRange) || fault.KindOf(err) != fault.OutOfRange {
		t.Errorf("outside: %v", err)
	}
	plain, err := r.client.Get(alice(t), &storagev1.GetRequest{Cid: stored.CID.String(),
		Offset: 7, Length: 9})
	if err != nil {
		t.Fatal(err)
	}
	header, err := plain.Recv()
	if err != nil || header.GetHeader().GetLength() != 9 || header.GetHeader().GetOffset() != 7 {
		t.Fatalf("header %v, %v", header, err)
	}
	chunk, err := plain.Recv()
	if err != nil || !bytes.Equal(chunk.GetChunk(), data[7:16]) {
		t.Errorf("chunk %v, %v", chunk, err)
	}
}

func TestDamageReachesTheReader(t *testing.T) {
	r := newRig(t, server.Config{})
	data := storagetest.Bytes(1<<20, 1)
	stored, err := r.blobs.Put(alice(t), blob.Put{Kind: cid.OCIBlob}, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	r.store.Damage(stored.CID, 900_000)
	body, err := r.blobs.Open(alice(t), stored.CID)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	if fault.KindOf(err) != fault.DataLoss || !errors.Is(err, storage.ReasonDataLoss) ||
		!strings.Contains(err.Error(), stored.CID.String()) {
		t.Errorf("got %v", err)
	}
	if !bytes.Equal(got, data[:len(got)]) {
		t.Error("damaged bytes were served")
	}
}

func TestRefusals(t *testing.T) {
	r := newRig(t, server.Config{})
	hers, err := r.blobs.Put(alice(t), blob.Put{Kind: cid.File}, bytes.NewReader([]byte("hers")))
	if err != nil {
		t.Fatal(err)
	}
	stat := func(ctx context.Context, c string) error {
		_, err := r.client.Stat(ctx, &storagev1.StatRequest{Cid: c})
		return err
	}
	get := func(ctx context.Context, c cid.CID) error {
		_, err := r.blobs.Open(ctx, c)
		return err
	}
	put := func(ctx context.Context, p blob.Put, size int) error {
		_, err := r.blobs.Put(ctx, p, bytes.NewReader(storagetest.Bytes(size, 9)))
		return err
	}
	list := func(size uint32, token string) error {
		_, err := r.client.List(alice(t), &storagev1.ListRequest{PageSize: size, PageToken: token})
		return err
	}
	file := blob.Put{Kind: cid.File}
	other := storagetest.CIDOf(cid.File, []byte("other"))
	tests := []struct {
		name string
		err  error
		want fault.Reason
		kind fault.Kind
	}{
		{"no token", stat(t.Context(), hers.CID.String()), rpc.ReasonTokenMissing,
			fault.Unauthenticated},
		{"a forged token", stat(as(t, "mallory", "file"), hers.CID.String()),
			rpc.ReasonBadSignature, fault.Unauthenticated},
		{"another's token", get(as(t, "bob", "file"), hers.CID), storage.ReasonNotFound,
			fault.NotFound},
		{"a token for something else", get(as(t, "alice", "job"), hers.CID), rpc.ReasonScopeMissing,
			fault.PermissionDenied},
		{"a token for another blob", get(as(t, "alice", "file:read:"+other.String()), hers.CID),
			rpc.ReasonScopeMissing, fault.PermissionDenied},
		{"a reader writes", put(as(t, "alice", "file:read"), file, 1), rpc.ReasonScopeMissing,
			fault.PermissionDenied},
		{"missing", get(alice(t), other), storage.ReasonNotFound, fault.NotFound},
		{"CIDv0", stat(alice(t), "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"), cid.ReasonBad,
			fault.InvalidArgument},
		{"wrong bytes", put(alice(t), blob.Put{Kind: cid.File, Expect: other}, 1000),
			cid.ReasonMismatch, fault.InvalidArgument},
		{"wrong size", put(alice(t), blob.Put{Kind: cid.File, Size: 5}, 1000), storage.ReasonSize,
			fault.InvalidArgument},
		{"too large", put(alice(t), file, 4<<20+1), storage.ReasonTooLarge, fault.InvalidArgument},
		{"page size", list(1001, ""), storage.ReasonBadRequest, fault.InvalidArgument},
		{"page token", list(1, "x"), storage.ReasonBadRequest, fault.InvalidArgument},
	}
	for _, test := range tests {
		if !errors.Is(test.err, test.want) || fault.KindOf(test.err) != test.kind {
			t.Errorf("%s: got %v, want %s", test.name, test.err, test.want)
		}
	}
	usage, err := r.client.Usage(alice(t), &storagev1.UsageRequest{})
	if err != nil || usage.GetBytes() != 4 || usage.GetBlobs() != 1 ||
		usage.GetQuotaBytes() != 6<<20 {
		t.Errorf("usage %v, %v", usage, err)
	}
}

func TestQuota(t *testing.T) {
	r := newRig(t, server.Config{})
	put := func(seed uint64) error {
		_, err := r.blobs.Put(alice(t), blob.Put{Kind: cid.File, Size: 3 << 20},
			bytes.NewReader(storagetest.Bytes(3<<20, seed)))
		return err
	}
	for seed := range uint64(2) {
		if err := put(seed); err != nil {
			t.Fatal(err)
		}
	}
	err := put(3)
	if !errors.Is(err, storage.ReasonQuota) || fault.KindOf(err) != fault.ResourceExhausted {
		t.Errorf("got %v", err)
	}
}

func TestMalformedStreams(t *testing.T) {
	r := newRig(t, server.Config{})
	header := &storagev1.PutRequest{Part: &storagev1.PutRequest_Header{
		Header: &storagev1.PutHeader{Kind: storagev1.Kind_KIND_FILE}}}
	chunk := func(n int) *storagev1.PutRequest {
		return &storagev1.PutRequest{Part: &storagev1.PutRequest_Chunk{Chunk: make([]byte, n)}}
	}
	tests := map[string][]*storagev1.PutRequest{
		"nothing":      nil,
		"no header":    {chunk(1)},
		"two headers":  {header, header},
		"empty chunk":  {header, chunk(0)},
		"empty part":   {header, {}},
		"huge chunk":   {header, chunk(server.MaxChunk + 1)},
		"unknown kind": {{Part: &storagev1.PutRequest_Header{Header: &storagev1.PutHeader{Kind: 7}}}},
		"huge size": {{Part: &storagev1.PutRequest_Header{Header: &storagev1.PutHeader{
			Kind: storagev1.Kind_KIND_FILE, Size: 1 << 63}}}},
	}
	for name, messages := range tests {
		stream, err := r.client.Put(alice(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			if err := stream.Send(m); err != nil {
				break
			}
		}
		_, err = stream.CloseAndRecv()
		if !errors.Is(err, storage.ReasonBadRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	get, err := r.client.Get(alice(t), &storagev1.GetRequest{Encoding: 9,
		Cid: storagetest.CIDOf(cid.File, nil).String()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get.Recv(); !errors.Is(err, storage.ReasonBadRequest) {
		t.Errorf("unknown encoding: %v", err)
	}
}

func TestABrokenUploadKeepsNothing(t *testing.T) {
	r := newRig(t, server.Config{})
	cut := errors.New("cut")
	body := io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), failing{cut})
	if _, err := r.blobs.Put(alice(t), blob.Put{Kind: cid.File}, body); !errors.Is(err, cut) {
		t.Errorf("got %v", err)
	}
	short := io.MultiReader(bytes.NewReader(make([]byte, 1000)), failing{io.ErrUnexpectedEOF})
	if _, err := r.blobs.Put(alice(t), blob.Put{Kind: cid.File}, short); !errors.Is(err,
		io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	usage, err := r.client.Usage(alice(t), &storagev1.UsageRequest{})
	if err != nil || usage.GetBlobs() != 0 {
		t.Errorf("usage %v, %v", usage, err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// announcing tells when an upload has reached the store.
type announcing struct {
	storage.Store
	entered chan struct{}
}

func (a announcing) Put(ctx context.Context, p storage.Put, r io.Reader) (storage.Stored, error) {
	a.entered <- struct{}{}
	return a.Store.Put(ctx, p, r)
}

func TestUploadsPerAccount(t *testing.T) {
	const most = 10 // more uploads than the test makes
	entered := make(chan struct{}, most)
	r := newRigOn(t, server.Config{Uploads: 1}, func(s storage.Store) storage.Store {
		return announcing{s, entered}
	})
	one := func(who string, body io.Reader) error {
		_, err := r.blobs.Put(as(t, who, "file"), blob.Put{Kind: cid.File}, body)
		return err
	}
	body, writer := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- one("alice", body) }()
	<-entered
	if err := one("alice", strings.NewReader("x")); !errors.Is(err, storage.ReasonBusy) {
		t.Errorf("a second upload: %v", err)
	}
	if err := one("bob", strings.NewReader("x")); err != nil {
		t.Errorf("another account: %v", err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := one("alice", strings.NewReader("x")); err != nil {
		t.Errorf("after the first ended: %v", err)
	}
}

// TestStalledUploadsAreGivenUp: accounts cost nothing, and the places for uploads are few.
func TestStalledUploadsAreGivenUp(t *testing.T) {
	r := newRig(t, server.Config{Uploads: 1, Stall: 200 * time.Millisecond})
	header := &storagev1.PutRequest{Part: &storagev1.PutRequest_Header{
		Header: &storagev1.PutHeader{Kind: storagev1.Kind_KIND_FILE}}}
	drop := &storagev1.PutRequest{Part: &storagev1.PutRequest_Chunk{Chunk: []byte{1}}}
	for name, sent := range map[string][]*storagev1.PutRequest{
		"no header": nil, "no bytes": {header}, "a drop": {header, drop},
	} {
		stream, err := r.client.Put(alice(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range sent {
			if err := stream.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		if err := stream.RecvMsg(&storagev1.PutResponse{}); !errors.Is(err, storage.ReasonStalled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	stream, err := r.client.Put(alice(t)) // one that drips is no better than one that stands
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(header)
	for ; err == nil; err = stream.Send(drop) {
		<-time.After(10 * time.Millisecond)
	}
	if _, err := stream.CloseAndRecv(); !errors.Is(err, storage.ReasonStalled) {
		t.Errorf("a drip: %v", err)
	}
	if _, err := r.blobs.Put(alice(t), blob.Put{Kind: cid.File},
		bytes.NewReader(make([]byte, 1<<20))); err != nil {
		t.Errorf("an upload that gets on: %v", err)
	}
}

func TestListPages(t *testing.T) {
	r := newRig(t, server.Config{})
	for i := range 7 {
		_, err := r.blobs.Put(alice(t), blob.Put{Kind: cid.File, Name: "n", Job: "j"},
			bytes.NewReader([]byte{byte(i)}))
		if err != nil {
			t.Fatal(err)
		}
	}
	seen, token := 0, ""
	for page := 0; page == 0 || token != ""; page++ {
		if page > 4 {
			t.Fatal("pages without end")
		}
		response, err := r.client.List(alice(t), &storagev1.ListRequest{PageSize: 3,
			PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, ref := range response.GetReferences() {
			if ref.GetName() != "n" || ref.GetJob() != "j" || ref.GetCreatedMs() == 0 ||
				ref.GetKind() != storagev1.Kind_KIND_FILE || ref.GetSize() != 1 {
				t.Errorf("reference %v", ref)
			}
			seen++
		}
		token = response.GetNextPageToken()
	}
	if seen != 7 {
		t.Errorf("%d references", seen)
	}
}

func TestSpansAndMetrics(t *testing.T) {
	r := newRig(t, server.Config{})
	stored, err := r.blobs.Put(alice(t), blob.Put{Kind: cid.File}, bytes.NewReader([]byte("seen")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.Stat(as(t, "bob", "file"), &storagev1.StatRequest{
		Cid: stored.CID.String()}); err == nil {
		t.Fatal("Bob sees it")
	}
	// A server's span may end after its client has the answer.
	spans := waitForSpan(t, r, "ucn.storage.v1.StorageService/Put")
	if !strings.Contains(spans, stored.CID.String()) {
		t.Errorf("no span names the blob: %s", spans)
	}
	metrics := metricNames(t, r)
	for _, name := range []string{"ucn.storage.bytes", "ucn.storage.blobs", "ucn.storage.refusals"} {
		if !metrics[name] {
			t.Errorf("no metric %s", name)
		}
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	store := storagetest.NewMemory(small())
	for name, make := range map[string]func() (*server.Server, error){
		"no store": func() (*server.Server, error) {
			return server.New(server.Config{}, server.Deps{Limits: small()})
		},
		"no limits": func() (*server.Server, error) {
			return server.New(server.Config{}, server.Deps{Store: store})
		},
		"negative": func() (*server.Server, error) {
			return server.New(server.Config{Uploads: -1}, server.Deps{Store: store, Limits: small()})
		},
	} {
		if _, err := make(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
