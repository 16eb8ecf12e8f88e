package storage

import (
	"strconv"
	"time"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
)

// The reasons this domain refuses for, next to those of kit/cid and kit/oci: wire constants, found
// by errors.Is on both sides.
const (
	// ReasonBad: text or bytes that are no CID of ours; the message names the codec or hash.
	ReasonBad fault.Reason = "BAD_CID"
	// ReasonBadRequest: a kind, name, job id or paging value out of its bounds.
	ReasonBadRequest fault.Reason = "BAD_STORAGE_REQUEST"
	// ReasonNotFound: the account holds no reference to the blob, whether or not others do.
	ReasonNotFound fault.Reason = "BLOB_NOT_FOUND"
	// ReasonSize: more or fewer bytes than the writer announced.
	ReasonSize fault.Reason = "BLOB_SIZE_MISMATCH"
	// ReasonTooLarge: the blob is larger than this store takes.
	ReasonTooLarge fault.Reason = "BLOB_TOO_LARGE"
	// ReasonRange: offset or length outside the blob.
	ReasonRange fault.Reason = "RANGE_OUTSIDE_BLOB"
	// ReasonQuota: the account's references would exceed its quota of bytes or of blobs.
	ReasonQuota fault.Reason = "STORAGE_QUOTA_EXCEEDED"
	// ReasonFull: the disk is full, or would fall below its reserve.
	ReasonFull fault.Reason = "STORAGE_FULL"
	// ReasonDataLoss: bytes held here no longer verify against their CID, or are gone.
	ReasonDataLoss fault.Reason = "BLOB_DAMAGED"
	// ReasonForbidden: the token's scopes do not cover the call; the same text as kit/rpc's.
	ReasonForbidden fault.Reason = "SCOPE_MISSING"
	// ReasonBusy: the account has as many uploads under way as it may.
	ReasonBusy fault.Reason = "TOO_MANY_UPLOADS"
	// ReasonStalled: the writer sent too little for too long.
	ReasonStalled fault.Reason = "UPLOAD_STALLED"
	// ReasonPinned: the reference is pinned.
	ReasonPinned fault.Reason = "REFERENCE_PINNED"
	// ReasonInDirectory: a directory of the account names the blob.
	ReasonInDirectory fault.Reason = "IN_DIRECTORY"
	// ReasonIncomplete: a directory names what the account does not hold, or not so.
	ReasonIncomplete fault.Reason = "DIRECTORY_INCOMPLETE"
	// ReasonNotDirectory: the blob is no directory.
	ReasonNotDirectory fault.Reason = "NOT_A_DIRECTORY"
	// ReasonTooDeep: directories stand too deep within each other.
	ReasonTooDeep fault.Reason = "DIRECTORY_TOO_DEEP"
	// ReasonNoUpload: the account has no such upload.
	ReasonNoUpload fault.Reason = "UPLOAD_NOT_FOUND"
	// ReasonOffset: bytes were sent for another place than where the upload goes on.
	ReasonOffset fault.Reason = "UPLOAD_OFFSET_MISMATCH"
	// ReasonUploadBusy: another call is at work on the upload.
	ReasonUploadBusy fault.Reason = "UPLOAD_BUSY"
	// ReasonUploadDone: the upload is finished and takes no more bytes.
	ReasonUploadDone fault.Reason = "UPLOAD_FINISHED"
	// ReasonNotOperator: the call is for the operator's account.
	ReasonNotOperator fault.Reason = "NOT_OPERATOR"
	// ReasonNoAccount: the account is not on the chain, and such accounts have no quota.
	ReasonNoAccount fault.Reason = "ACCOUNT_UNKNOWN"
	// ReasonUntold: the service cannot tell what it does, since the broker has been away too long.
	ReasonUntold fault.Reason = "STORAGE_EVENTS_FULL"
	// ReasonEventRate: the account changed so much that its share of what is told is used up.
	ReasonEventRate fault.Reason = "STORAGE_EVENT_RATE"
	// ReasonSilent: the service has no outbox.
	ReasonSilent fault.Reason = "STORAGE_SILENT"
	// ReasonClosed: the store has been closed.
	ReasonClosed fault.Reason = "STORAGE_CLOSED"
)

// BadRequest refuses a value that is out of its bounds.
func BadRequest(format string, args ...any) error {
	return fault.New(fault.InvalidArgument, ReasonBadRequest, format, args...)
}

// NotFound says that the account holds no reference to c, and nothing about other accounts.
func NotFound(c cid.CID) error {
	return fault.New(fault.NotFound, ReasonNotFound, "no blob %s in this account", c)
}

// DataLoss names the damaged blob; cause says what was found and stays on this machine.
func DataLoss(c cid.CID, cause error) error {
	return fault.New(fault.DataLoss, ReasonDataLoss,
		"the stored bytes of %s are damaged; put the blob again to repair it", c).Because(cause)
}

// Full says that the disk has no room; cause stays on this machine.
func Full(cause error) error {
	return fault.New(fault.ResourceExhausted, ReasonFull,
		"this storage is full; nothing was kept of the blob").Because(cause)
}

// GaveWay ends an upload whose place another account gets.
func GaveWay() error {
	return fault.New(fault.ResourceExhausted, ReasonBusy, "too many uploads are under way, and "+
		"the account has the most: this one gave way, put the blob again").WithRetry(time.Second)
}

// TooSlow ends a directory whose place another account gets.
func TooSlow() error {
	return fault.New(fault.ResourceExhausted, ReasonBusy, "too many directories are being put, and "+
		"this one came slowly: it gave way, put it again").WithRetry(time.Second)
}

// Unfinished says that a directory was not all there within the time.
func Unfinished(within time.Duration) error {
	return fault.New(fault.DeadlineExceeded, ReasonStalled,
		"the directory was not all there within %s and was given up: put it again", within)
}

// Stalled says that the writer sent too little within the time.
func Stalled(within time.Duration) error {
	return fault.New(fault.DeadlineExceeded, ReasonStalled,
		"the upload made no progress for %s and was given up: put the blob again", within)
}

// Closed says that the store no longer takes calls.
func Closed() error {
	return fault.New(fault.Unavailable, ReasonClosed, "the storage is shutting down")
}

func outsideBlob(r Range, size int64) error {
	return fault.New(fault.OutOfRange, ReasonRange,
		"offset %d, length %d is outside the blob of %d bytes", r.Offset, r.Length, size)
}

func forbidden(need string) error {
	return fault.New(fault.PermissionDenied, ReasonForbidden,
		"the token does not allow %q: make one that names this scope", need).With("scope", need)
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
