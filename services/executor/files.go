package executor

import (
	"context"
	"io"
)

// FileAccess is with whose right files are read and written.
type FileAccess struct {
	Token string // the owner's
	Job   JobID
}

// FetchInput says which input is wanted, and where it belongs.
type FetchInput struct {
	Attempt AttemptID
	Index   int
	CID     string
	Max     uint64 // bytes; more is refused with ErrFileTooBig
}

// StoredFile names a file that storage keeps.
type StoredFile struct {
	CID  string
	Size uint64
}

// Files is the network's storage as an executor needs it. Bytes are verified against their CID
// while they stream. Errors: ErrNoFile, ErrFileMismatch and ErrFileTooBig are final, ErrFileDenied
// lasts until another token comes, all others may pass. Every method may be repeated.
type Files interface {
	// OpenImage opens the image as the tar of an OCI layout.
	OpenImage(ctx context.Context, as FileAccess, id ImageID) (io.ReadCloser, error)
	// FetchInput makes the file or directory available on this host under a path that depends on
	// attempt and index alone, readable by everyone, and returns it. Repeating it is cheap.
	FetchInput(ctx context.Context, as FileAccess, want FetchInput) (path string, err error)
	// DropInputs removes what FetchInput made for the attempt.
	DropInputs(ctx context.Context, attempt AttemptID) error
	// Put stores a file for the owner. It reads body to its end, or to its error, which it returns.
	Put(ctx context.Context, as FileAccess, name string, body io.Reader) (StoredFile, error)
}
