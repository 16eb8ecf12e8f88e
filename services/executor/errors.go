package executor

import (
	"fmt"

	"github.com/united-containers/ucn/kit/fault"
)

// Reasons of the faults that peers of an executor see.
const (
	ReasonNoAttempt   fault.Reason = "NO_ATTEMPT"
	ReasonNotYours    fault.Reason = "NOT_YOURS"
	ReasonNoLease     fault.Reason = "NO_LEASE"
	ReasonNoEscrow    fault.Reason = "NO_ESCROW"
	ReasonOtherTask   fault.Reason = "OTHER_TASK"
	ReasonSecrets     fault.Reason = "SECRETS"
	ReasonCredentials fault.Reason = "REGISTRY_CREDENTIALS"
	ReasonToken       fault.Reason = "STORAGE_TOKEN"
	ReasonForgedAck   fault.Reason = "FORGED_ACK"
	ReasonLogGone     fault.Reason = "LOG_GONE"
	ReasonNoFile      fault.Reason = "NO_FILE"
	ReasonMismatch    fault.Reason = "FILE_MISMATCH"
	ReasonFileTooBig  fault.Reason = "FILE_TOO_BIG"
	ReasonFileDenied  fault.Reason = "FILE_DENIED"
	ReasonStreams     fault.Reason = "TOO_MANY_STREAMS"
	ReasonOver        fault.Reason = "ATTEMPT_OVER"
	ReasonBadArgument fault.Reason = "BAD_ARGUMENT"
	ReasonNoRoom      fault.Reason = "IMAGE_NO_ROOM"
)

// Faults as sentinels; test with errors.Is. What is returned has the same kind and reason and may
// say more.
var (
	ErrNoAttempt = fault.New(fault.NotFound, ReasonNoAttempt,
		"this executor has no such attempt; ask it first")
	ErrNotYours = fault.New(fault.PermissionDenied, ReasonNotYours,
		"only the job's owner, or the scheduler that asked, may do this")
	ErrNoLease = fault.New(fault.NotFound, ReasonNoLease,
		"the chain holds no such lease")
	ErrNoEscrow = fault.New(fault.NotFound, ReasonNoEscrow,
		"the chain holds no such escrow")
	ErrOtherTask = fault.New(fault.InvalidArgument, ReasonOtherTask,
		"the task is not the one this executor signed a lease for")
	ErrForgedAck = fault.New(fault.PermissionDenied, ReasonForgedAck,
		"no ack key of the lease countersigned this note")
	ErrOver = fault.New(fault.FailedPrecondition, ReasonOver,
		"the attempt is over already")
	ErrLogGone = fault.New(fault.FailedPrecondition, ReasonLogGone,
		"the attempt is over and its log is a file now")
	ErrNoFile = fault.New(fault.NotFound, ReasonNoFile,
		"storage has no such file")
	ErrFileMismatch = fault.New(fault.DataLoss, ReasonMismatch,
		"the bytes do not match their CID")
	ErrFileTooBig = fault.New(fault.ResourceExhausted, ReasonFileTooBig,
		"the file is larger than allowed")
	ErrStreams = fault.New(fault.ResourceExhausted, ReasonStreams,
		"too many listen to this attempt already; end one of them")
	errNotRunning = fault.New(fault.Unavailable, "NOT_RUNNING",
		"this executor is starting or stopping: try again")
	ErrFileDenied = fault.New(fault.PermissionDenied, ReasonFileDenied,
		"storage does not accept the owner's token")
)

// NoRoomError says that the disk of this host has no room for an image. It is a fault of
// ReasonNoRoom.
type NoRoomError struct {
	// Need is how many bytes the image takes at least while it is unpacked, and Room how many it can
	// have. When Room would do, the disk is short of files.
	Need, Room uint64
	// Lasting: it is the image that is too big, and not the disk that is full for other reasons.
	Lasting bool
}

// Error implements error.
func (e *NoRoomError) Error() string {
	if e.Need <= e.Room {
		return "the disk of this host has no room for as many files as the image has"
	}
	const mib = 1 << 20
	return fmt.Sprintf("the disk of this host has no room for the image: it takes %d MiB or more "+
		"while it is unpacked, and %d MiB are free", (e.Need+mib-1)/mib, e.Room/mib)
}

// Unwrap returns the fault.
func (e *NoRoomError) Unwrap() error {
	return fault.New(fault.ResourceExhausted, ReasonNoRoom, "%s", e.Error())
}
