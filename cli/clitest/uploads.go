package clitest

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/kit/fault"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// upload returns a copy of an upload.
func (s *Storage) upload(id string) (*storagev1.Upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, ok := s.uploads[id]
	if !ok {
		return nil, fault.New(fault.NotFound, "UPLOAD_NOT_FOUND", "no such upload")
	}
	return proto.CloneOf(u), nil
}

// Forget gives every upload up, as time does.
func (s *Storage) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.uploads)
	clear(s.bytes)
}

// StartUpload implements the service.
func (s *Storage) StartUpload(_ context.Context, r *storagev1.StartUploadRequest) (
	*storagev1.StartUploadResponse, error,
) {
	return around(s, "StartUpload", func() (*storagev1.StartUploadResponse, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.uploads == nil {
			s.uploads, s.bytes = map[string]*storagev1.Upload{}, map[string][]byte{}
		}
		u := &storagev1.Upload{Id: fmt.Sprintf("%032x", len(s.uploads)+1), Header: r.GetHeader()}
		s.uploads[u.GetId()] = u
		return &storagev1.StartUploadResponse{Upload: proto.CloneOf(u)}, nil
	})
}

// AppendUpload implements the service; each chunk is durable at once.
func (s *Storage) AppendUpload(stream grpc.ClientStreamingServer[storagev1.AppendUploadRequest,
	storagev1.AppendUploadResponse],
) error {
	answer, err := around(s, "AppendUpload", func() (*storagev1.AppendUploadResponse, error) {
		first, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		h := first.GetHeader()
		u, err := s.upload(h.GetUpload())
		if err != nil {
			return nil, err
		}
		if h.GetOffset() != u.GetOffset() {
			return nil, fault.New(fault.Aborted, "UPLOAD_OFFSET_MISMATCH", "at %d", u.GetOffset())
		}
		for {
			m, err := stream.Recv()
			if err == io.EOF {
				u, err = s.upload(h.GetUpload())
				return &storagev1.AppendUploadResponse{Upload: u}, err
			} else if err != nil {
				return nil, err
			}
			s.extend(h.GetUpload(), m.GetChunk())
			if err := s.arrived("AppendUpload chunk", m.GetChunk()); err != nil {
				return nil, err
			}
		}
	})
	if err != nil {
		return err
	}
	return stream.SendAndClose(answer)
}

func (s *Storage) extend(id string, chunk []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u, ok := s.uploads[id]; ok {
		s.bytes[id] = append(s.bytes[id], chunk...)
		u.Offset = uint64(len(s.bytes[id]))
	}
}

// GetUpload implements the service.
func (s *Storage) GetUpload(_ context.Context, r *storagev1.GetUploadRequest) (
	*storagev1.GetUploadResponse, error,
) {
	return around(s, "GetUpload", func() (*storagev1.GetUploadResponse, error) {
		u, err := s.upload(r.GetUpload())
		return &storagev1.GetUploadResponse{Upload: u}, err
	})
}

// ListUploads implements the service.
func (s *Storage) ListUploads(context.Context, *storagev1.ListUploadsRequest) (
	*storagev1.ListUploadsResponse, error,
) {
	return around(s, "ListUploads", func() (*storagev1.ListUploadsResponse, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		answer := &storagev1.ListUploadsResponse{}
		for _, u := range s.uploads {
			if u.GetCid() == "" {
				answer.Uploads = append(answer.Uploads, proto.CloneOf(u))
			}
		}
		return answer, nil
	})
}

// FinishUpload implements the service.
func (s *Storage) FinishUpload(_ context.Context, r *storagev1.FinishUploadRequest) (
	*storagev1.FinishUploadResponse, error,
) {
	return around(s, "FinishUpload", func() (*storagev1.FinishUploadResponse, error) {
		u, err := s.upload(r.GetUpload())
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		content := s.bytes[u.GetId()]
		s.mu.Unlock()
		name, err := s.verified(u.GetHeader(), content)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if held, ok := s.uploads[u.GetId()]; ok {
			held.Cid = name
		}
		return &storagev1.FinishUploadResponse{Cid: name, Size: u.GetOffset()}, nil
	})
}

// AbortUpload implements the service.
func (s *Storage) AbortUpload(_ context.Context, r *storagev1.AbortUploadRequest) (
	*storagev1.AbortUploadResponse, error,
) {
	return around(s, "AbortUpload", func() (*storagev1.AbortUploadResponse, error) {
		if _, err := s.upload(r.GetUpload()); err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.uploads, r.GetUpload())
		delete(s.bytes, r.GetUpload())
		return &storagev1.AbortUploadResponse{}, nil
	})
}
