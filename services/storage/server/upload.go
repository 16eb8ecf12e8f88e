package server

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"math"

	"google.golang.org/grpc"

	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/storage"
)

type appendStream = grpc.ClientStreamingServer[storagev1.AppendUploadRequest,
	storagev1.AppendUploadResponse]

// StartUpload implements storagev1.StorageServiceServer.
func (s *Server) StartUpload(ctx context.Context, request *storagev1.StartUploadRequest) (
	*storagev1.StartUploadResponse, error,
) {
	u, err := s.startUpload(ctx, request.GetHeader())
	return &storagev1.StartUploadResponse{Upload: u}, s.metrics.failed(ctx, err)
}

func (s *Server) startUpload(ctx context.Context, h *storagev1.PutHeader) (
	*storagev1.Upload, error,
) {
	session, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	p, err := s.putOf(h)
	if err != nil {
		return nil, err
	}
	if err := s.known(ctx, session.Account()); err != nil {
		return nil, err
	}
	u, err := session.StartUpload(ctx, p)
	return toUpload(u), err
}

// AppendUpload implements storagev1.StorageServiceServer.
func (s *Server) AppendUpload(stream appendStream) error {
	ctx := stream.Context()
	body := &appendBody{}
	u, err := s.appendUpload(stream, body)
	s.metrics.moved(ctx, "in", body.received)
	if err != nil {
		return s.metrics.failed(ctx, err)
	}
	return stream.SendAndClose(&storagev1.AppendUploadResponse{Upload: toUpload(u)})
}

func (s *Server) appendUpload(stream appendStream, body *appendBody) (storage.Upload, error) {
	session, err := s.session(stream.Context())
	if err != nil {
		return storage.Upload{}, err
	}
	turn, err := s.beginUpload(stream.Context(), session.Account())
	if err != nil {
		return storage.Upload{}, err
	}
	defer turn.end()
	body.from = newPatient(stream.Recv, turn.ctx, s.cfg.Stall)
	u, err := s.append(turn.ctx, session, body)
	return u, causeOf(turn.ctx, err)
}

func (s *Server) append(ctx context.Context, session *storage.Session, body *appendBody) (
	storage.Upload, error,
) {
	first, err := body.from.next()
	if errors.Is(err, io.EOF) {
		return storage.Upload{}, storage.BadRequest("the stream ended before its header")
	}
	if err != nil {
		return storage.Upload{}, err
	}
	h := first.GetHeader()
	if h == nil || h.GetOffset() > math.MaxInt64 {
		return storage.Upload{}, storage.BadRequest("the first message must be the header")
	}
	id, err := uploadID(h.GetUpload())
	if err != nil {
		return storage.Upload{}, err
	}
	return session.AppendUpload(ctx, id, int64(h.GetOffset()), body)
}

// appendBody is the bytes of an append as a reader.
type appendBody struct {
	from     *patient[*storagev1.AppendUploadRequest]
	rest     []byte
	received int64
}

// Read implements io.Reader.
func (b *appendBody) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		m, err := b.from.next()
		if err != nil {
			return 0, err
		}
		b.rest = m.GetChunk()
		if m.GetHeader() != nil || len(b.rest) == 0 || len(b.rest) > MaxChunk {
			return 0, storage.BadRequest("after the header come chunks of 1 to %d bytes", MaxChunk)
		}
		b.received += int64(len(b.rest))
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// GetUpload implements storagev1.StorageServiceServer.
func (s *Server) GetUpload(ctx context.Context, request *storagev1.GetUploadRequest) (
	*storagev1.GetUploadResponse, error,
) {
	session, id, err := s.onUpload(ctx, request.GetUpload())
	if err != nil {
		return nil, s.metrics.failed(ctx, err)
	}
	u, err := session.Upload(ctx, id)
	if err != nil {
		return nil, s.metrics.failed(ctx, err)
	}
	return &storagev1.GetUploadResponse{Upload: toUpload(u)}, nil
}

// ListUploads implements storagev1.StorageServiceServer.
func (s *Server) ListUploads(ctx context.Context, _ *storagev1.ListUploadsRequest) (
	*storagev1.ListUploadsResponse, error,
) {
	session, err := s.session(ctx)
	if err != nil {
		return nil, s.metrics.failed(ctx, err)
	}
	all, err := session.ListUploads(ctx)
	if err != nil {
		return nil, s.metrics.failed(ctx, err)
	}
	response := &storagev1.ListUploadsResponse{}
	for _, u := range all {
		response.Uploads = append(response.Uploads, toUpload(u))
	}
	return response, nil
}

// FinishUpload implements storagev1.StorageServiceServer.
func (s *Server) FinishUpload(ctx context.Context, request *storagev1.FinishUploadRequest) (
	*storagev1.FinishUploadResponse, error,
) {
	session, id, err := s.onUpload(ctx, request.GetUpload())
	if err != nil {
		return nil, s.metrics.failed(ctx, err)
	}
	if err := s.known(ctx, session.Account()); err != nil {
		return nil, s.metrics.failed(ctx, err)
	}
	stored, err := session.FinishUpload(ctx, id)
	if err != nil {
		return nil, s.metrics.failed(ctx, err)
	}
	s.metrics.changed(ctx, "put")
	annotate(ctx, stored.Ref.CID, stored.Ref.Size)
	return &storagev1.FinishUploadResponse{Cid: stored.Ref.CID.String(),
		Size: uint64(stored.Ref.Size), Deduplicated: stored.Held}, nil
}

// AbortUpload implements storagev1.StorageServiceServer.
func (s *Server) AbortUpload(ctx context.Context, request *storagev1.AbortUploadRequest) (
	*storagev1.AbortUploadResponse, error,
) {
	session, id, err := s.onUpload(ctx, request.GetUpload())
	if err == nil {
		err = session.AbortUpload(ctx, id)
	}
	if err != nil {
		return nil, s.metrics.failed(ctx, err)
	}
	return &storagev1.AbortUploadResponse{}, nil
}

func (s *Server) onUpload(ctx context.Context, text string) (*storage.Session, storage.UploadID,
	error,
) {
	session, err := s.session(ctx)
	if err != nil {
		return nil, storage.UploadID{}, err
	}
	id, err := uploadID(text)
	return session, id, err
}

func uploadID(text string) (id storage.UploadID, err error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(id) {
		return id, storage.BadRequest("an upload's id is %d hexadecimal digits", 2*len(id))
	}
	return storage.UploadID(raw), nil
}

func toUpload(u storage.Upload) *storagev1.Upload {
	p := u.Put
	return &storagev1.Upload{Id: hex.EncodeToString(u.ID[:]), Offset: uint64(u.Offset),
		Header: &storagev1.PutHeader{Kind: toKind(p.Kind), ExpectedCid: p.Expect.String(),
			Size: uint64(p.Size), Name: p.Name, Job: p.Job, ExpiresMs: unixMillis(p.Expires)},
		CreatedMs: unixMillis(u.Created), ExpiresMs: unixMillis(u.Expires), Cid: u.CID.String()}
}
