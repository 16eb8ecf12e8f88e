package blob_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/rpc"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// liar answers everything with other bytes than were asked for.
type liar struct {
	storagev1.UnimplementedStorageServiceServer
	data []byte
}

func (l liar) Put(s grpc.ClientStreamingServer[storagev1.PutRequest, storagev1.PutResponse]) error {
	for {
		if _, err := s.Recv(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	return s.SendAndClose(&storagev1.PutResponse{Cid: cid.OfFile([32]byte{1}).String(), Size: 1})
}

func (l liar) Get(r *storagev1.GetRequest, s grpc.ServerStreamingServer[storagev1.GetResponse],
) error {
	header := &storagev1.GetHeader{Offset: r.GetOffset(), Length: uint64(len(l.data)),
		Reference: &storagev1.Reference{Cid: r.GetCid(), Size: uint64(len(l.data))}}
	err := s.Send(&storagev1.GetResponse{Part: &storagev1.GetResponse_Header{Header: header}})
	if err != nil {
		return err
	}
	return s.Send(&storagev1.GetResponse{Part: &storagev1.GetResponse_Chunk{Chunk: l.data}})
}

// clientOf returns a client of a service.
func clientOf(t *testing.T, service storagev1.StorageServiceServer) *blob.Client {
	t.Helper()
	var pipe rpc.Pipe
	listener, err := pipe.Listen("storage")
	if err != nil {
		t.Fatal(err)
	}
	front, err := rpc.NewServer(rpc.DefaultServer(), rpc.ServerDeps{Listener: listener,
		Public: []string{"/ucn.storage.v1.StorageService/"}})
	if err != nil {
		t.Fatal(err)
	}
	storagev1.RegisterStorageServiceServer(front, service)
	kittest.Run(t, front)
	conn, err := rpc.NewPipeDialer(&pipe, rpc.ClientDeps{}).Dial(t.Context(), "storage")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return blob.New(storagev1.NewStorageServiceClient(conn))
}

// TestNoServiceSaysTheSizeOfAFile: a directory would tell it on.
func TestNoServiceSaysTheSizeOfAFile(t *testing.T) {
	file := bytes.NewReader([]byte("ten bytes!"))
	for says, right := range map[uint64]bool{10: true, 9: false, 0: false, 1 << 63: false} {
		client := clientOf(t, sizer{size: says})
		_, err := client.PutFile(t.Context(), blob.Put{Kind: cid.File, Size: file.Size()}, file,
			blob.Progress{})
		if right != (err == nil) {
			t.Errorf("says %d: %v", says, err)
		}
	}
	_, err := clientOf(t, sizer{size: 11}).PutFile(t.Context(), blob.Put{Kind: cid.File, Size: 11},
		file, blob.Progress{})
	if !errors.Is(err, blob.ReasonChanged) {
		t.Errorf("a file that shrank: %v", err)
	}
}

// sizer takes whatever is announced and says its size.
type sizer struct {
	storagev1.UnimplementedStorageServiceServer
	size uint64
}

func (l sizer) Put(
	s grpc.ClientStreamingServer[storagev1.PutRequest, storagev1.PutResponse],
) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	return s.SendAndClose(&storagev1.PutResponse{Cid: first.GetHeader().GetExpectedCid(),
		Size: l.size})
}

func TestALyingServiceIsNotBelieved(t *testing.T) {
	client := clientOf(t, liar{data: bytes.Repeat([]byte("lie"), 100)})
	truth, _, err := cid.Sum(cid.File, bytes.NewReader(bytes.Repeat([]byte("yes"), 100)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Put(t.Context(), blob.Put{Kind: cid.File}, bytes.NewReader([]byte("x")))
	if !errors.Is(err, cid.ReasonMismatch) {
		t.Errorf("put: %v", err)
	}
	r, err := client.Open(t.Context(), truth)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); !errors.Is(err, cid.ReasonMismatch) || r.Close() != nil {
		t.Errorf("get: %v", err)
	}
	var out bytes.Buffer
	if err := client.GetRange(t.Context(), truth, cid.Part{Length: 300, Size: 300},
		&out); err == nil || out.Len() > 0 {
		t.Errorf("range: %d bytes, %v", out.Len(), err)
	}
}
