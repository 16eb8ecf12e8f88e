package server

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/fault"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/gateway"
)

// offsetHeader says where bytes go, and where an upload then is.
const offsetHeader = "Upload-Offset"

// appendUpload serves PATCH /v1/uploads/{upload}: the raw body goes to Upload-Offset. It answers
// 204 and the new offset. A body that breaks off is kept as far as it came.
func (s *Server) appendUpload(w http.ResponseWriter, r *http.Request, upload string) error {
	give, err := s.transfers.take(r, "transfers")
	if err != nil {
		return err
	}
	defer give()
	offset, err := strconv.ParseUint(r.Header.Get(offsetHeader), 10, 63)
	if err != nil {
		return fault.New(fault.InvalidArgument, gateway.ReasonRequest,
			"the header %s must say where the bytes go: ask GET /v1/uploads/{upload}", offsetHeader)
	}
	if err := http.NewResponseController(w).SetWriteDeadline(time.Time{}); err != nil {
		return err
	}
	limit := int64(s.cfg.MaxFile)
	if r.ContentLength > limit {
		return bodyTooLarge(limit)
	}
	body := &bodyReader{r: http.MaxBytesReader(w, newPatient(w, r.Body, s.cfg.StallTime), limit)}
	stream, err := s.storage.AppendUpload(r.Context())
	if err != nil {
		return err
	}
	response, err := sendPieces(stream, &storagev1.AppendHeader{Upload: upload, Offset: offset}, body)
	if body.err != nil {
		return body.err
	}
	if err != nil {
		return err
	}
	w.Header().Set(offsetHeader, strconv.FormatUint(response.GetUpload().GetOffset(), 10))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// sendPieces sends a body and returns the answer, which may come before its end. What came before
// the body broke off is sent to its end, so that it is kept.
func sendPieces(
	stream grpc.ClientStreamingClient[storagev1.AppendUploadRequest, storagev1.AppendUploadResponse],
	header *storagev1.AppendHeader, body io.Reader,
) (*storagev1.AppendUploadResponse, error) {
	err := stream.Send(&storagev1.AppendUploadRequest{
		Part: &storagev1.AppendUploadRequest_Header{Header: header}})
	for err == nil {
		chunk := make([]byte, blob.ChunkSize) // gRPC may look at it after Send returned
		n, broke := io.ReadFull(body, chunk)
		if n > 0 {
			err = stream.Send(&storagev1.AppendUploadRequest{
				Part: &storagev1.AppendUploadRequest_Chunk{Chunk: chunk[:n]}})
		}
		if broke != nil {
			break
		}
	}
	if err != nil && !errors.Is(err, io.EOF) { // io.EOF: the service has answered already
		return nil, err
	}
	return stream.CloseAndRecv()
}
