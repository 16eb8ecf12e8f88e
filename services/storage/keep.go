package storage

import (
	"context"
	"io"
	"time"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
)

// Change is what may be changed about a reference; nil leaves it.
type Change struct {
	// Pinned keeps the reference from expiry and removal.
	Pinned *bool
	// Expires is when it ends by itself; the zero time is never.
	Expires *time.Time
}

// Keeping changes how long references live.
type Keeping interface {
	// Update changes the account's reference to c, durably, and returns it.
	Update(ctx context.Context, account Account, c cid.CID, change Change) (Ref, error)
	// Collect ends expired references and abandoned uploads and frees bytes nobody refers to. It
	// never touches a blob that a call under way is about to keep. It may run beside every other
	// call; a second one at once waits.
	Collect(ctx context.Context, dryRun bool) (Collected, error)
}

// Collected counts what one pass ended, or would.
type Collected struct {
	// References that had expired, Uploads that were given up, Blobs whose files went.
	References, Uploads, Blobs int64
	// Bytes freed on the disk.
	Bytes int64
}

// UploadID names an upload that can be resumed. It is random.
type UploadID [16]byte

// Upload is one upload that can be resumed.
type Upload struct {
	ID UploadID
	// Put is what its writer announced.
	Put Put
	// Offset is how many bytes are durable.
	Offset int64
	// Created is when it began, Expires when it is given up unless it gets on.
	Created, Expires time.Time
	// CID is set once it is finished.
	CID cid.CID
}

// Uploads takes blobs in pieces, over broken connections and restarts. An upload of another account
// is ReasonNoUpload, like none at all.
type Uploads interface {
	// StartUpload begins one; ReasonBusy when the account has Limits.Uploads already.
	StartUpload(ctx context.Context, p Put) (Upload, error)
	// AppendUpload reads body to its end and adds it at offset, which must be the upload's. What was
	// read before an error of body is kept, too: the returned upload says how far it is. Another
	// append at the same time is ReasonUploadBusy.
	AppendUpload(ctx context.Context, a Account, id UploadID, offset int64, body io.Reader,
	) (Upload, error)
	// Upload tells how far one is, finished ones included for a while.
	Upload(ctx context.Context, a Account, id UploadID) (Upload, error)
	// ListUploads returns the account's unfinished ones, oldest first.
	ListUploads(ctx context.Context, a Account) ([]Upload, error)
	// FinishUpload keeps the bytes as Put would. Repeated, it gives the same answer for a while.
	FinishUpload(ctx context.Context, a Account, id UploadID) (Stored, error)
	// AbortUpload gives one up.
	AbortUpload(ctx context.Context, a Account, id UploadID) error
}

const (
	// MaxFinished is how many finished uploads of an account are remembered.
	MaxFinished = 64
	// MaxNames is how many distinct blobs one directory may name.
	MaxNames = 8192
)

// Tree is what a store must know of a directory beside its bytes.
type Tree struct {
	// Names are the blobs it leads to, distinct: the account must hold all of them.
	Names []cid.CID
	// Total is the bytes of all files inside, however deep; Height how many directories stand within
	// each other, itself included.
	Total  int64
	Height int
}

// CheckMany refuses a list that RemoveMany does not take.
func CheckMany(cs []cid.CID) error {
	if len(cs) < 1 || len(cs) > MaxPage {
		return BadRequest("%d references to end, 1 to %d", len(cs), MaxPage)
	}
	return nil
}

// Pinned refuses to end a pinned reference.
func Pinned(c cid.CID) error {
	return fault.New(fault.FailedPrecondition, ReasonPinned, "%s is pinned: unpin it first", c)
}

// InDirectory refuses to end a reference that a directory of the account needs.
func InDirectory(c, directory cid.CID) error {
	return fault.New(fault.FailedPrecondition, ReasonInDirectory,
		"the directory %s holds %s: remove the directory first", directory, c).
		With("directory", directory.String())
}

// Incomplete says what a directory names and the account does not hold so.
func Incomplete(c cid.CID, why string) error {
	return fault.New(fault.FailedPrecondition, ReasonIncomplete,
		"the directory names %s, %s: put what is inside first", c, why).With("cid", c.String())
}

// NoUpload says that the account has no such upload.
func NoUpload() error {
	return fault.New(fault.NotFound, ReasonNoUpload,
		"no such upload: it was finished, given up, or never began; start a new one")
}

// WrongOffset names the offset at which an upload goes on.
func WrongOffset(want int64) error {
	return fault.New(fault.Aborted, ReasonOffset, "the upload goes on at offset %d", want).
		With("offset", itoa(want))
}

// UploadBusy refuses a second append or finish at once.
func UploadBusy() error {
	const again = time.Second
	return fault.New(fault.Unavailable, ReasonUploadBusy,
		"another call is at work on this upload: try again").WithRetry(again)
}

// TooManyUploads refuses a start.
func TooManyUploads(most int) error {
	return fault.New(fault.ResourceExhausted, ReasonBusy,
		"the account has %d uploads under way, the most it may; finish or abort one first", most)
}

// TooManyOfAll refuses a start since the store knows as many uploads as it can, of all accounts.
func TooManyOfAll(most int) error {
	const again = time.Minute
	return fault.New(fault.ResourceExhausted, ReasonBusy,
		"this storage has %d uploads, the most it takes: try again later", most).WithRetry(again)
}
