package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/gateway"
)

// stored is the answer to a file that was put; the names are those of storage's PutResponse.
type stored struct {
	CID          string `json:"cid"`
	Size         int64  `json:"size,string"`
	Deduplicated bool   `json:"deduplicated"`
}

// putFile stores the raw body: PUT or POST /v1/files?kind=file|oci&name=&job=&cid=.
func (s *Server) putFile(w http.ResponseWriter, r *http.Request) error {
	give, err := s.transfers.take(r, "transfers")
	if err != nil {
		return err
	}
	defer give()
	put, err := putOf(r)
	if err != nil {
		return err
	}
	control := http.NewResponseController(w)
	if err := control.SetWriteDeadline(time.Time{}); err != nil {
		return fmt.Errorf("lift the deadline: %w", err)
	}
	limit := int64(s.cfg.MaxFile)
	if r.ContentLength > limit {
		return bodyTooLarge(limit)
	}
	body := &bodyReader{r: http.MaxBytesReader(w, newPatient(w, r.Body, s.cfg.StallTime), limit)}
	got, err := s.blobs.Put(r.Context(), put, body)
	if err != nil {
		if body.err != nil {
			return body.err
		}
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Location", "/v1/files/"+got.CID.String())
	w.WriteHeader(http.StatusCreated)
	s.wrote(r, json.NewEncoder(w).Encode(stored{
		CID: got.CID.String(), Size: got.Size, Deduplicated: got.Held,
	}))
	return nil
}

func putOf(r *http.Request) (blob.Put, error) {
	query := r.URL.Query()
	put := blob.Put{
		Kind: cid.File, Size: max(r.ContentLength, 0),
		Name: query.Get("name"), Job: query.Get("job"),
	}
	switch query.Get("kind") {
	case "", "file":
	case "oci":
		put.Kind = cid.OCIBlob
	default:
		return put, fault.New(fault.InvalidArgument, gateway.ReasonRequest,
			"kind is \"file\" or \"oci\"")
	}
	if text := query.Get("cid"); text != "" {
		var err error
		if put.Expect, err = cid.Parse(text); err != nil {
			return put, err
		}
	}
	return put, nil
}

// bodyReader remembers how the client's body failed, as the storage's answer to a stream that was
// given up says less.
type bodyReader struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return n, err
	case errors.As(err, &tooLarge):
		b.err = bodyTooLarge(tooLarge.Limit)
	default:
		b.err = bodyCut(err)
	}
	return n, b.err
}

// getFile answers GET and HEAD /v1/files/{cid} with the raw bytes, or with one range of them. What
// was not verified is not sent: an answer whose end is wrong is cut off before its last bytes.
// With inside set, file is a directory and inside a path in it; every directory on the way is
// verified.
func (s *Server) getFile(
	w http.ResponseWriter, r *http.Request, file cid.CID, inside string,
) error {
	give, err := s.transfers.take(r, "transfers")
	if err != nil {
		return err
	}
	defer give()
	at, err := s.locate(r.Context(), file, inside)
	if err != nil {
		return err
	}
	size := at.size
	header := w.Header()
	setFileHeaders(header, at.Blob)
	etag := header.Get("ETag")
	if matches(r.Header.Get("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	span := gateway.Span{Length: size}
	if ifRange := r.Header.Get("If-Range"); ifRange == "" || ifRange == etag {
		if span, err = gateway.ParseRange(r.Header.Get("Range"), size); err != nil {
			return err
		}
	}
	header.Set("Content-Length", strconv.FormatInt(span.Length, 10))
	code := http.StatusOK
	if span.Partial {
		header.Set("Content-Range", span.ContentRange(size))
		code = http.StatusPartialContent
	}
	if r.Method == http.MethodHead {
		w.WriteHeader(code)
		return nil
	}
	out := &lateWriter{w: newPatientWriter(w, s.cfg.StallTime), code: code}
	return s.sent(out, r, forged(s.sendFile(r.Context(), out, at, span)))
}

// setFileHeaders keeps a browser from taking a stranger's bytes for a page of this site.
func setFileHeaders(header http.Header, file cid.CID) {
	header.Set("ETag", `"`+file.String()+`"`)
	header.Set("Accept-Ranges", "bytes")
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Content-Disposition", `attachment; filename="`+file.String()+`"`)
	header.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	header.Set("Cache-Control", "private, no-cache") // bytes never change, rights may
}

func matches(header, etag string) bool {
	for one := range strings.SplitSeq(header, ",") {
		if one = strings.TrimPrefix(strings.TrimSpace(one), "W/"); one == etag || one == "*" {
			return true
		}
	}
	return false
}

// sent ends an answer whose bytes were written with err.
func (s *Server) sent(out *lateWriter, r *http.Request, err error) error {
	switch {
	case err == nil:
		out.begin() // of an empty file nothing was written
		return nil
	case !out.begun:
		return err
	}
	s.log.WarnContext(r.Context(), "a file's transfer was cut off",
		"path", r.URL.Path, "error", err)
	panic(http.ErrAbortHandler) // the only way to tell the client that bytes are missing
}

func (s *Server) sendFile(
	ctx context.Context, w io.Writer, at place, span gateway.Span,
) error {
	switch {
	case !span.Partial:
		return s.sendWhole(ctx, w, at)
	case at.Blob.Kind() == cid.File:
		return s.blobs.GetRangeAt(ctx, at.Place,
			cid.Part{Offset: span.First, Length: span.Length, Size: at.size}, w)
	case at.Blob.Kind() == cid.Directory:
		return s.sendPartOfDirectory(ctx, w, at, span)
	}
	return s.sendPart(ctx, w, at, span)
}

// sendWhole keeps the newest chunk back until it knows that more follows or that all was right.
func (s *Server) sendWhole(ctx context.Context, w io.Writer, at place) (err error) {
	body, err := s.blobs.OpenPath(ctx, at.Root, at.Path, at.Blob)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	var chunks [2][]byte
	for i := range chunks {
		chunks[i] = make([]byte, blob.ChunkSize)
	}
	held := 0
	for turn := 0; ; turn++ {
		n, err := io.ReadFull(body, chunks[turn%2])
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return err
		}
		if _, err := w.Write(chunks[(turn+1)%2][:held]); err != nil {
			return err
		}
		held = n
		if end {
			_, err := w.Write(chunks[turn%2][:n])
			return err
		}
	}
}

// sendPart sends a range of what nobody can verify without the rest: the storage's own check has to
// do.
func (s *Server) sendPart(
	ctx context.Context, w io.Writer, at place, span gateway.Span,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.storage.Get(ctx, &storagev1.GetRequest{
		Cid: at.Root.String(), Path: at.Path, Offset: uint64(span.First),
		Length: uint64(span.Length),
	})
	if err != nil {
		return err
	}
	return copyPart(w, stream, span.Length)
}

func copyPart(
	w io.Writer, stream grpc.ServerStreamingClient[storagev1.GetResponse], length int64,
) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) && length == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if length -= int64(len(m.GetChunk())); length < 0 {
			return errors.New("storage sent more than was asked for")
		}
		if _, err := w.Write(m.GetChunk()); err != nil {
			return err
		}
	}
}

// lateWriter sends the headers with the first byte, so that a failure before it can still be told.
type lateWriter struct {
	w     http.ResponseWriter
	code  int
	begun bool
}

func (l *lateWriter) begin() {
	if !l.begun {
		l.begun = true
		l.w.WriteHeader(l.code)
	}
}

// Write implements io.Writer.
func (l *lateWriter) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	l.begin()
	return l.w.Write(p)
}
