package rpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
)

// Reasons that this package itself gives.
const (
	ReasonInternal       fault.Reason = "INTERNAL"
	ReasonCancelled      fault.Reason = "CANCELLED"
	ReasonDeadline       fault.Reason = "DEADLINE_EXCEEDED"
	ReasonUnimplemented  fault.Reason = "METHOD_UNIMPLEMENTED"
	ReasonTooLarge       fault.Reason = "MESSAGE_TOO_LARGE"
	ReasonUnavailable    fault.Reason = "PEER_UNAVAILABLE"
	ReasonForeign        fault.Reason = "PEER_ERROR"
	ReasonDraining       fault.Reason = "SERVER_DRAINING"
	ReasonRateLimited    fault.Reason = "RATE_LIMITED"
	ReasonAnswers        fault.Reason = "ANSWERS_NOT_READ"
	ReasonTooManyCalls   fault.Reason = "TOO_MANY_CALLS"
	ReasonCallGaveWay    fault.Reason = "CALL_GAVE_WAY"
	ReasonUnassigned     fault.Reason = "PEER_UNASSIGNED"
	ReasonPlaintext      fault.Reason = "PLAINTEXT_REFUSED"
	ReasonTokenMissing   fault.Reason = "TOKEN_MISSING"
	ReasonTokenMalformed fault.Reason = "TOKEN_MALFORMED"
	ReasonTokenExpired   fault.Reason = "TOKEN_EXPIRED"
	ReasonWrongAudience  fault.Reason = "TOKEN_WRONG_AUDIENCE"
	ReasonBadSignature   fault.Reason = "TOKEN_BAD_SIGNATURE"
	ReasonScopeMissing   fault.Reason = "SCOPE_MISSING"
)

// maxRetry bounds the retry delay that is believed from a peer.
const maxRetry = 24 * time.Hour

// Status returns what crosses the wire for err: the innermost meaning of a fault, the code of a
// context's end, or an internal error that shows only an id. Nil gives nil. Server interceptors
// use it; call it yourself only where there is no gRPC server, e.g. in front of HTTP.
func Status(err error) *status.Status {
	if err == nil {
		return nil
	}
	f := toFault(err)
	info := &errdetails.ErrorInfo{
		Reason: string(f.Reason()), Domain: domain, Metadata: f.Meta(),
	}
	details := []protoadapt.MessageV1{protoadapt.MessageV1Of(info)}
	if f.Retry() > 0 {
		details = append(details, protoadapt.MessageV1Of(
			&errdetails.RetryInfo{RetryDelay: durationpb.New(f.Retry())}))
	}
	s := status.New(codes.Code(f.Kind()), f.Message())
	if detailed, err := s.WithDetails(details...); err == nil {
		return detailed
	}
	return s
}

// toFault finds or makes the fault that stands for err.
func toFault(err error) *fault.Error {
	if f := fault.From(err); f != nil {
		return f
	}
	switch {
	case errors.Is(err, context.Canceled):
		return fault.New(fault.Cancelled, ReasonCancelled, "the call was cancelled")
	case errors.Is(err, context.DeadlineExceeded):
		return fault.New(fault.DeadlineExceeded, ReasonDeadline,
			"the call took too long: allow more time or ask for less")
	}
	// Only statuses that nobody wrapped are looked at: they come from gRPC itself.
	if own, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		switch own.GRPCStatus().Code() {
		case codes.Unimplemented:
			return fault.New(fault.Unimplemented, ReasonUnimplemented,
				"this server does not have this method: it may be older than the client")
		case codes.ResourceExhausted:
			return fault.New(fault.ResourceExhausted, ReasonTooLarge,
				"the message is larger than this server takes")
		case codes.Canceled:
			return fault.New(fault.Cancelled, ReasonCancelled, "the call was cancelled")
		case codes.DeadlineExceeded:
			return fault.New(fault.DeadlineExceeded, ReasonDeadline, "the call took too long")
		}
	}
	return internal(err)
}

// internal hides err behind an id.
func internal(err error) *fault.Error {
	made := id.New().String()
	return fault.New(fault.Internal, ReasonInternal,
		"internal error, id=%s: give this id to the operator", made).With("id", made).Because(err)
}

// Error turns the error of a gRPC call back into a fault. service names the peer in messages.
// What it returns wraps a *fault.Error, answers errors.Is for kinds, reasons and the context's
// errors, and still is a gRPC status to code that looks for one, such as grpc-gateway. Clients
// made by a Dialer do this themselves.
func Error(service string, err error) error {
	if err == nil || fault.From(err) != nil {
		return err
	}
	s, isStatus := status.FromError(err)
	if !isStatus {
		return err
	}
	if f := fromDetails(s); f != nil {
		return &received{fault: f, status: s}
	}
	return local(foreign(service, s))
}

// local makes a fault that arose on this side of a call look like one that was received, so that
// grpc-gateway finds a status in it and shows no more of it than a server would.
func local(f *fault.Error) error { return &received{fault: f, status: Status(f)} }

// fromDetails rebuilds a fault of our own domain, nil if the status does not hold one.
func fromDetails(s *status.Status) *fault.Error {
	var info *errdetails.ErrorInfo
	var retry time.Duration
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = min(d.GetRetryDelay().AsDuration(), maxRetry)
		}
	}
	if info.GetDomain() != domain || !fault.Reason(info.GetReason()).Valid() {
		return nil
	}
	f := fault.New(fault.Kind(s.Code()), fault.Reason(info.GetReason()), "%s", s.Message())
	for key, value := range info.GetMetadata() {
		f = f.With(key, value)
	}
	return f.WithRetry(retry).Because(contextError(s.Code()))
}

// foreign makes a fault of a status that no server of ours wrote: gRPC itself, a proxy, another
// implementation. Its text is kept as the local cause, since it may name addresses.
func foreign(service string, s *status.Status) *fault.Error {
	cause := contextError(s.Code())
	switch s.Code() {
	case codes.Canceled:
		return fault.New(fault.Cancelled, ReasonCancelled, "the call was cancelled").Because(cause)
	case codes.DeadlineExceeded:
		return fault.New(fault.DeadlineExceeded, ReasonDeadline,
			"%s did not answer in time", service).Because(cause)
	case codes.Unavailable:
		return fault.New(fault.Unavailable, ReasonUnavailable,
			"%s cannot be reached: check that it runs and try again", service).
			Because(errors.New(s.Message()))
	case codes.Unimplemented:
		return fault.New(fault.Unimplemented, ReasonUnimplemented,
			"%s does not have this method: it may be older than this program", service).
			Because(errors.New(s.Message()))
	case codes.ResourceExhausted:
		return fault.New(fault.ResourceExhausted, ReasonTooLarge,
			"%s refused: a message is too large or a limit is reached", service).
			Because(errors.New(s.Message()))
	}
	return fault.New(fault.Kind(s.Code()), ReasonForeign,
		"%s answered with %s", service, fault.Kind(s.Code())).Because(errors.New(s.Message()))
}

func contextError(code codes.Code) error {
	switch code {
	case codes.Canceled:
		return context.Canceled
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	}
	return nil
}

// received is a fault that came from a peer, with the status it came in.
type received struct {
	fault  *fault.Error
	status *status.Status
}

func (r *received) Error() string              { return r.fault.Error() }
func (r *received) Unwrap() error              { return r.fault }
func (r *received) GRPCStatus() *status.Status { return r.status }
