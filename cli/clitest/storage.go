package clitest

import (
	"bytes"
	"context"
	"io"
	"sync"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/cid"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// Storage keeps blobs in memory, whoever's they are. The zero value is ready.
type Storage struct {
	storagev1.UnimplementedStorageServiceServer

	mu    sync.Mutex // guards blobs
	blobs map[string]blob
}

type blob struct {
	reference *storagev1.Reference
	bytes     []byte
}

var _ storagev1.StorageServiceServer = (*Storage)(nil)

// Keep stores a file and returns its CID.
func (s *Storage) Keep(content []byte) string {
	return s.keep(&storagev1.PutHeader{Kind: storagev1.Kind_KIND_FILE}, content)
}

// Damage changes the bytes behind a CID.
func (s *Storage) Damage(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[name].bytes[0] ^= 1
}

func (s *Storage) keep(h *storagev1.PutHeader, content []byte) string {
	kind := cid.File
	if h.GetKind() == storagev1.Kind_KIND_OCI_BLOB {
		kind = cid.OCIBlob
	}
	c, size, err := cid.Sum(kind, bytes.NewReader(content))
	if err != nil {
		panic("clitest: " + err.Error()) // memory does not fail
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blobs == nil {
		s.blobs = map[string]blob{}
	}
	s.blobs[c.String()] = blob{&storagev1.Reference{
		Cid: c.String(), Size: uint64(size), Kind: h.GetKind(), Name: h.GetName(), CreatedMs: 1,
	}, content}
	return c.String()
}

func (s *Storage) find(name string) (blob, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.blobs[name]
	if !ok {
		return blob{}, notFound("blob")
	}
	return b, nil
}

// Put implements the service.
func (s *Storage) Put(
	stream grpc.ClientStreamingServer[storagev1.PutRequest, storagev1.PutResponse],
) error {
	var header *storagev1.PutHeader
	var content []byte
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			name := s.keep(header, content)
			return stream.SendAndClose(&storagev1.PutResponse{
				Cid: name, Size: uint64(len(content)),
			})
		} else if err != nil {
			return err
		}
		if h := m.GetHeader(); h != nil {
			header = h
		}
		content = append(content, m.GetChunk()...)
	}
}

// Get implements the service.
func (s *Storage) Get(
	r *storagev1.GetRequest, stream grpc.ServerStreamingServer[storagev1.GetResponse],
) error {
	b, err := s.find(r.GetCid())
	if err != nil {
		return err
	}
	err = stream.Send(&storagev1.GetResponse{Part: &storagev1.GetResponse_Header{
		Header: &storagev1.GetHeader{Reference: b.reference, Length: b.reference.GetSize()},
	}})
	if err != nil {
		return err
	}
	return stream.Send(&storagev1.GetResponse{Part: &storagev1.GetResponse_Chunk{Chunk: b.bytes}})
}

// Stat implements the service.
func (s *Storage) Stat(_ context.Context, r *storagev1.StatRequest) (
	*storagev1.StatResponse, error,
) {
	b, err := s.find(r.GetCid())
	return &storagev1.StatResponse{Reference: b.reference}, err
}
