package server

import (
	"math"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/cid"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/storage"
)

type getStream = grpc.ServerStreamingServer[storagev1.GetResponse]

// Get implements storagev1.StorageServiceServer.
func (s *Server) Get(request *storagev1.GetRequest, stream getStream) error {
	ctx := stream.Context()
	out := &frames{stream: stream}
	err := s.get(request, stream, out)
	s.metrics.moved(ctx, "out", out.sent)
	return s.metrics.failed(ctx, err)
}

func (s *Server) get(request *storagev1.GetRequest, stream getStream, out *frames) error {
	ctx := stream.Context()
	session, err := s.session(ctx)
	if err != nil {
		return err
	}
	read, err := readOf(request)
	if err != nil {
		return err
	}
	ref, err := session.Resolve(ctx, read.CID, request.GetPath())
	if err != nil {
		return err
	}
	within, err := read.Range.Within(ref.Size)
	if err != nil {
		return err
	}
	annotate(ctx, ref.CID, ref.Size)
	err = stream.Send(&storagev1.GetResponse{Part: &storagev1.GetResponse_Header{
		Header: &storagev1.GetHeader{Reference: toReference(ref), Offset: uint64(within.Offset),
			Length: uint64(within.Length)}}})
	if err != nil {
		return err
	}
	if err := session.ReadAt(ctx, read, request.GetPath(), out); err != nil {
		return err
	}
	return out.flush()
}

func readOf(request *storagev1.GetRequest) (storage.Read, error) {
	c, err := cid.Parse(request.GetCid())
	if err != nil {
		return storage.Read{}, err
	}
	if request.GetOffset() > math.MaxInt64 || request.GetLength() > math.MaxInt64 {
		_, err := storage.Range{Offset: -1}.Within(0)
		return storage.Read{}, err
	}
	read := storage.Read{CID: c, Range: storage.Range{Offset: int64(request.GetOffset()),
		Length: int64(request.GetLength())}}
	switch request.GetEncoding() {
	case storagev1.Encoding_ENCODING_UNSPECIFIED:
	case storagev1.Encoding_ENCODING_BAO_SLICE:
		read.Encoding = storage.EncodingSlice
	default:
		return storage.Read{}, storage.BadRequest("encoding %d is unknown", request.GetEncoding())
	}
	if request.GetPath() != "" { // what is read has another CID, which the store judges
		return read, nil
	}
	return read, read.Validate()
}

// frames sends what is written to it in chunks of FrameSize. Each chunk has a buffer of its own,
// since gRPC may look at a message after Send returned.
type frames struct {
	stream getStream
	buf    []byte
	sent   int64
}

// Write implements io.Writer.
func (f *frames) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		if f.buf == nil {
			f.buf = make([]byte, 0, FrameSize)
		}
		n := min(len(p), FrameSize-len(f.buf))
		f.buf = append(f.buf, p[:n]...)
		p = p[n:]
		if len(f.buf) == FrameSize {
			if err := f.flush(); err != nil {
				return total - len(p), err
			}
		}
	}
	return total, nil
}

func (f *frames) flush() error {
	if len(f.buf) == 0 {
		return nil
	}
	chunk := f.buf
	f.buf = nil
	err := f.stream.Send(&storagev1.GetResponse{Part: &storagev1.GetResponse_Chunk{Chunk: chunk}})
	if err == nil {
		f.sent += int64(len(chunk))
	}
	return err
}
