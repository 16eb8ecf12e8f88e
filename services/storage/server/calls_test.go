package server_test

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/server"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

// invoke makes any call of the service with an empty request, streams with one message.
func invoke(ctx context.Context, c storagev1.StorageServiceClient, name string) error {
	var err error
	switch name {
	case "Put":
		stream, err := c.Put(ctx)
		if err != nil {
			return err
		}
		_, err = stream.CloseAndRecv()
		return err
	case "Get":
		stream, err := c.Get(ctx, &storagev1.GetRequest{Cid: anyFile()})
		if err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	case "AppendUpload":
		return appendTo(ctx, c, &storagev1.AppendHeader{Upload: noUpload}, []byte("x"))
	case "Stat":
		_, err = c.Stat(ctx, &storagev1.StatRequest{Cid: anyFile()})
	case "List":
		_, err = c.List(ctx, &storagev1.ListRequest{})
	case "Usage":
		_, err = c.Usage(ctx, &storagev1.UsageRequest{})
	case "Remove":
		_, err = c.Remove(ctx, &storagev1.RemoveRequest{Cid: anyFile()})
	case "RemoveMany":
		_, err = c.RemoveMany(ctx, &storagev1.RemoveManyRequest{All: true})
	case "Pin":
		_, err = c.Pin(ctx, &storagev1.PinRequest{Cid: anyFile()})
	case "Unpin":
		_, err = c.Unpin(ctx, &storagev1.UnpinRequest{Cid: anyFile()})
	case "SetExpiry":
		_, err = c.SetExpiry(ctx, &storagev1.SetExpiryRequest{Cid: anyFile()})
	case "ListEvents":
		_, err = c.ListEvents(ctx, &storagev1.ListEventsRequest{})
	case "ListDirectory":
		_, err = c.ListDirectory(ctx, &storagev1.ListDirectoryRequest{Cid: anyFile()})
	default:
		return invokeUpload(ctx, c, name)
	}
	return err
}

func invokeUpload(ctx context.Context, c storagev1.StorageServiceClient, name string) error {
	var err error
	switch name {
	case "StartUpload":
		_, err = c.StartUpload(ctx, &storagev1.StartUploadRequest{
			Header: &storagev1.PutHeader{Kind: storagev1.Kind_KIND_FILE}})
	case "GetUpload":
		_, err = c.GetUpload(ctx, &storagev1.GetUploadRequest{Upload: noUpload})
	case "ListUploads":
		_, err = c.ListUploads(ctx, &storagev1.ListUploadsRequest{})
	case "FinishUpload":
		_, err = c.FinishUpload(ctx, &storagev1.FinishUploadRequest{Upload: noUpload})
	case "AbortUpload":
		_, err = c.AbortUpload(ctx, &storagev1.AbortUploadRequest{Upload: noUpload})
	case "CollectGarbage":
		_, err = c.CollectGarbage(ctx, &storagev1.CollectGarbageRequest{})
	default:
		return errors.New("this test does not know " + name)
	}
	return err
}

// noUpload is an id that no upload has.
const noUpload = "00112233445566778899aabbccddeeff"

func anyFile() string { return storagetest.CIDOf(cid.File, []byte("anything")).String() }

func appendTo(ctx context.Context, c storagev1.StorageServiceClient, h *storagev1.AppendHeader,
	chunks ...[]byte,
) error {
	stream, err := c.AppendUpload(ctx)
	if err != nil {
		return err
	}
	messages := []*storagev1.AppendUploadRequest{}
	if h != nil {
		messages = append(messages, &storagev1.AppendUploadRequest{
			Part: &storagev1.AppendUploadRequest_Header{Header: h}})
	}
	for _, chunk := range chunks {
		messages = append(messages, &storagev1.AppendUploadRequest{
			Part: &storagev1.AppendUploadRequest_Chunk{Chunk: chunk}})
	}
	for _, m := range messages {
		if err := stream.Send(m); err != nil {
			break // the service has answered
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}

// TestEveryCallWantsItsScope goes through all calls of the service: none is forgotten.
func TestEveryCallWantsItsScope(t *testing.T) {
	r := newRig(t, server.Config{})
	var names []string
	names = append(names, namesOf(storagev1.StorageService_ServiceDesc.Methods,
		storagev1.StorageService_ServiceDesc.Streams)...)
	if len(names) < 18 {
		t.Fatalf("only %d calls: %q", len(names), names)
	}
	for _, name := range names {
		if err := invoke(t.Context(), r.client, name); !errors.Is(err, rpc.ReasonTokenMissing) ||
			fault.KindOf(err) != fault.Unauthenticated {
			t.Errorf("%s without token: %v", name, err)
		}
		if err := invoke(as(t, "mallory", "file"), r.client, name); !errors.Is(err,
			rpc.ReasonBadSignature) {
			t.Errorf("%s with a forged token: %v", name, err)
		}
		want := map[string]fault.Reason{
			// Malformed, or of nobody, before scopes matter: tells nothing that only a scope may know.
			"Put": storage.ReasonBadRequest, "GetUpload": storage.ReasonNoUpload,
			"FinishUpload": storage.ReasonNoUpload, "AbortUpload": storage.ReasonNoUpload,
			"AppendUpload": storage.ReasonNoUpload,
		}[name]
		if want == "" {
			want = rpc.ReasonScopeMissing
		}
		if err := invoke(as(t, "alice", "job"), r.client, name); !errors.Is(err, want) {
			t.Errorf("%s with a token for jobs: %v, want %s", name, err, want)
		}
		writes := name != "Get" && name != "Stat" && name != "List" && name != "Usage" &&
			name != "ListDirectory" && name != "ListEvents"
		if err := invoke(as(t, "alice", "file:read"), r.client, name); writes != errors.Is(err, want) {
			t.Errorf("%s with a token for reading: %v", name, err)
		}
	}
	if usage, err := r.client.Usage(alice(t), &storagev1.UsageRequest{}); err != nil ||
		usage.GetBlobs()+usage.GetUploads() != 0 {
		t.Errorf("refused calls left %v, %v", usage, err)
	}
}

func namesOf(methods []grpc.MethodDesc, streams []grpc.StreamDesc) (names []string) {
	for _, m := range methods {
		names = append(names, m.MethodName)
	}
	for _, s := range streams {
		names = append(names, s.StreamName)
	}
	return names
}
