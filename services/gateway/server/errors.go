package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc/status"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/services/gateway"
)

// Failure is the body of every answer that is not a success.
type Failure struct {
	// Code is the gRPC code's name, such as "NOT_FOUND".
	Code string `json:"code"`
	// Reason is the exact cause, for programs.
	Reason string `json:"reason"`
	// Message says what to do, for people.
	Message string `json:"message"`
	// Metadata has the cause's particulars.
	Metadata map[string]string `json:"metadata,omitempty"`
	// RetryAfterMS says after how long it makes sense to try again.
	RetryAfterMS int64 `json:"retry_after_ms,omitempty"`
}

func failureOf(f *fault.Error) Failure {
	return Failure{
		Code: f.Kind().String(), Reason: string(f.Reason()), Message: f.Message(),
		Metadata: f.Meta(), RetryAfterMS: f.Retry().Milliseconds(),
	}
}

// explain returns the fault that stands for err before a client. What is none is logged under an
// id, and only the id is shown.
func (s *Server) explain(ctx context.Context, err error) *fault.Error {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return bodyTooLarge(tooLarge.Limit)
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), rpc.ReasonDraining):
		return fault.From(errDraining())
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), gateway.ReasonGaveWay):
		return fault.From(context.Cause(ctx))
	case fault.From(err) != nil:
		return fault.From(err)
	}
	hidden := fault.From(rpc.Error("gateway", rpc.Status(err).Err()))
	if hidden.Kind() == fault.Internal {
		s.log.ErrorContext(ctx, "a request failed", "told", hidden.Message(), "error", err)
	}
	return hidden
}

// defaultRetry is what clients are told when too much is going on and nobody knows for how long.
const defaultRetry = time.Second

// fail answers with err. Nothing may have been written before.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	f := s.explain(r.Context(), err)
	code := gateway.Status(f)
	header := w.Header()
	for _, name := range []string{"Content-Length", "ETag", "Content-Disposition",
		"Content-Range", "Cache-Control"} {
		header.Del(name)
	}
	header.Set("Content-Type", "application/json")
	switch {
	case code == http.StatusUnauthorized:
		header.Set("WWW-Authenticate", challenge(f))
	case code == http.StatusTooManyRequests || f.Retry() > 0:
		wait := max(f.Retry(), defaultRetry)
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	case code == http.StatusRequestedRangeNotSatisfiable:
		header.Set("Content-Range", "bytes */"+f.Value("size"))
	case code == http.StatusMethodNotAllowed && f.Value("allow") != "":
		header.Set("Allow", f.Value("allow"))
	}
	w.WriteHeader(code)
	s.wrote(r, json.NewEncoder(w).Encode(failureOf(f)))
}

// challenge is the WWW-Authenticate header of RFC 6750.
func challenge(f *fault.Error) string {
	if f.Reason() == rpc.ReasonTokenMissing {
		return `Bearer realm="ucn"`
	}
	return `Bearer realm="ucn", error="invalid_token"`
}

// wrote logs that an answer could not be written: the client is gone, which is its right.
func (s *Server) wrote(r *http.Request, err error) {
	if err != nil {
		s.log.DebugContext(r.Context(), "answer not written", slog.Any("error", err))
	}
}

// stubError gives the stubs' own complaints about a request a reason.
func stubError(err error) error {
	if fault.From(err) != nil {
		return err
	}
	var own interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &own) {
		return err
	}
	if s := own.GRPCStatus(); fault.Kind(s.Code()) == fault.InvalidArgument {
		return fault.New(fault.InvalidArgument, gateway.ReasonRequest, "%s", s.Message())
	}
	return err
}

// noRoute answers for paths and methods that the stubs do not know.
func (s *Server) noRoute(w http.ResponseWriter, r *http.Request, code int) {
	switch code {
	case http.StatusMethodNotAllowed:
		s.fail(w, r, methodNotAllowed(r))
	case http.StatusBadRequest:
		s.fail(w, r, fault.New(fault.InvalidArgument, gateway.ReasonRequest,
			"the path cannot be read"))
	default:
		s.fail(w, r, routeUnknown())
	}
}

func methodNotAllowed(r *http.Request) *fault.Error {
	return fault.New(fault.Unimplemented, gateway.ReasonMethod,
		"this path does not take %.16s: see /openapi.json", r.Method)
}

func routeUnknown() *fault.Error {
	return fault.New(fault.NotFound, gateway.ReasonRoute, "no such path: see /openapi.json")
}

func bodyTooLarge(limit int64) *fault.Error {
	return fault.New(fault.InvalidArgument, gateway.ReasonBodyTooLarge,
		"the body is larger than %d bytes", limit).With("limit", strconv.FormatInt(limit, 10))
}

func busyOf(what string) error {
	return fault.New(fault.ResourceExhausted, gateway.ReasonBusy,
		"as many %s as one address may have are under way: end one, or try again in a moment",
		what).WithRetry(defaultRetry)
}

func busy(what string) error {
	return fault.New(fault.ResourceExhausted, gateway.ReasonBusy,
		"too many %s are under way: try again in a moment", what).WithRetry(defaultRetry)
}
