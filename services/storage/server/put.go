package server

import (
	"errors"
	"io"
	"math"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/cid"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/storage"
)

type putStream = grpc.ClientStreamingServer[storagev1.PutRequest, storagev1.PutResponse]

// Put implements storagev1.StorageServiceServer.
func (s *Server) Put(stream putStream) error {
	ctx := stream.Context()
	body := &putBody{}
	stored, err := s.put(stream, body)
	s.metrics.moved(ctx, "in", body.received)
	if err != nil {
		return s.metrics.failed(ctx, err)
	}
	change := "put"
	if stored.Held {
		change = "held"
	}
	s.metrics.changed(ctx, change)
	annotate(ctx, stored.Ref.CID, stored.Ref.Size)
	s.deps.Log.DebugContext(ctx, "blob kept", "cid", stored.Ref.CID.String(),
		"size", stored.Ref.Size, "held", stored.Held)
	return stream.SendAndClose(&storagev1.PutResponse{Cid: stored.Ref.CID.String(),
		Size: uint64(stored.Ref.Size), Deduplicated: stored.Held})
}

func (s *Server) put(stream putStream, body *putBody) (storage.Stored, error) {
	session, err := s.session(stream.Context())
	if err != nil {
		return storage.Stored{}, err
	}
	turn, err := s.beginUpload(stream.Context(), session.Account())
	if err != nil {
		return storage.Stored{}, err
	}
	defer turn.end()
	body.from = newPatient(stream.Recv, turn.ctx, s.cfg.Stall)
	p, err := s.receiveHeader(body.from)
	if err != nil {
		return storage.Stored{}, causeOf(turn.ctx, err)
	}
	var stored storage.Stored
	if p.Kind == cid.Directory {
		stored, err = turn.putDirectory(turn.ctx, session, p, body)
	} else {
		stored, err = session.Put(turn.ctx, p, body)
	}
	return stored, causeOf(turn.ctx, err)
}

func (s *Server) receiveHeader(from *patient[*storagev1.PutRequest]) (storage.Put, error) {
	first, err := from.next()
	if errors.Is(err, io.EOF) {
		return storage.Put{}, storage.BadRequest("the stream ended before its header")
	}
	if err != nil {
		return storage.Put{}, err
	}
	if first.GetHeader() == nil {
		return storage.Put{}, storage.BadRequest("the first message must be the header")
	}
	return s.putOf(first.GetHeader())
}

// putOf reads what a writer announces.
func (s *Server) putOf(h *storagev1.PutHeader) (p storage.Put, err error) {
	if h.GetSize() > math.MaxInt64 {
		return p, storage.BadRequest("size %d", h.GetSize())
	}
	p = storage.Put{Kind: kindOf(h.GetKind()), Size: int64(h.GetSize()), Name: h.GetName(),
		Job: h.GetJob(), SkipHeld: true}
	if p.Expires, err = s.future(h.GetExpiresMs()); err != nil {
		return p, err
	}
	if h.GetExpectedCid() != "" {
		p.Expect, err = cid.Parse(h.GetExpectedCid())
	}
	return p, err
}

// putBody is the bytes of a Put as a reader. Only the client's half-close is its end: a stream that
// breaks off is an error, and nothing is kept.
type putBody struct {
	from     *patient[*storagev1.PutRequest]
	rest     []byte
	received int64
}

// Read implements io.Reader.
func (b *putBody) Read(p []byte) (int, error) {
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
