package fault

import "strconv"

// Kind says what a peer can do about a fault in general. Values equal the gRPC codes and are wire
// constants: they never change. A Kind is an error, so that errors.Is(err, fault.NotFound) works.
type Kind uint8

// The kinds, with the numbers of google.rpc.Code. Choose by what the caller should do:
// InvalidArgument: change the request. FailedPrecondition: change the state first.
// Unavailable: try the same again. Aborted: read again, then try anew.
const (
	OK                 Kind = 0
	Cancelled          Kind = 1
	Unknown            Kind = 2
	InvalidArgument    Kind = 3
	DeadlineExceeded   Kind = 4
	NotFound           Kind = 5
	AlreadyExists      Kind = 6
	PermissionDenied   Kind = 7
	ResourceExhausted  Kind = 8
	FailedPrecondition Kind = 9
	Aborted            Kind = 10
	OutOfRange         Kind = 11
	Unimplemented      Kind = 12
	Internal           Kind = 13
	Unavailable        Kind = 14
	DataLoss           Kind = 15
	Unauthenticated    Kind = 16
)

// Error makes a Kind usable as a target of errors.Is.
func (k Kind) Error() string { return k.String() }

// String returns the kind's name in the spelling of google.rpc.Code.
func (k Kind) String() string {
	if name, _ := k.describe(); name != "" {
		return name
	}
	return "CODE_" + strconv.Itoa(int(k))
}

// HTTP returns the HTTP status code that grpc-gateway's clients expect for this kind.
func (k Kind) HTTP() int {
	if name, code := k.describe(); name != "" {
		return code
	}
	return 500
}

// Retryable reports whether sending the same request again may succeed without anything else
// being changed by the caller.
func (k Kind) Retryable() bool {
	return k == Unavailable || k == ResourceExhausted || k == DeadlineExceeded
}

// known maps OK and numbers outside the table to Unknown: a fault is never a success.
func (k Kind) known() Kind {
	if name, _ := k.describe(); name == "" || k == OK {
		return Unknown
	}
	return k
}

func (k Kind) describe() (name string, http int) {
	switch k {
	case OK:
		return "OK", 200
	case Cancelled:
		return "CANCELLED", 499
	case Unknown:
		return "UNKNOWN", 500
	case InvalidArgument:
		return "INVALID_ARGUMENT", 400
	case DeadlineExceeded:
		return "DEADLINE_EXCEEDED", 504
	case NotFound:
		return "NOT_FOUND", 404
	case AlreadyExists:
		return "ALREADY_EXISTS", 409
	case PermissionDenied:
		return "PERMISSION_DENIED", 403
	case ResourceExhausted:
		return "RESOURCE_EXHAUSTED", 429
	case FailedPrecondition:
		return "FAILED_PRECONDITION", 400
	case Aborted:
		return "ABORTED", 409
	case OutOfRange:
		return "OUT_OF_RANGE", 400
	}
	return k.describeServer()
}

// describeServer is the half of the table where the server, not the request, is at fault.
func (k Kind) describeServer() (name string, http int) {
	switch k {
	case Unimplemented:
		return "UNIMPLEMENTED", 501
	case Internal:
		return "INTERNAL", 500
	case Unavailable:
		return "UNAVAILABLE", 503
	case DataLoss:
		return "DATA_LOSS", 500
	case Unauthenticated:
		return "UNAUTHENTICATED", 401
	}
	return "", 0
}
