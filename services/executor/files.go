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

// RegistryCredential is what a registry wants to see before it gives an image.
type RegistryCredential struct {
	Host     string // with port, as references spell it
	Username string
	Password string
}

// String tells no secret.
func (c RegistryCredential) String() string { return c.Host }

// GoString tells no secret.
func (c RegistryCredential) GoString() string { return c.Host }

// FetchImage says which image is wanted, and whence.
type FetchImage struct {
	ID ImageID
	// Reference names a repository of an OCI registry; empty is the network's storage.
	Reference   string
	Credentials []RegistryCredential
	// Turn waits for a turn before CheckImage reads a whole image from a registry, and ends it when
	// what it returns is closed; nil: no waiting.
	Turn func(ctx context.Context, open OpenLayout) (io.ReadCloser, error)
}

// FetchInput says which input is wanted, and where it belongs.
type FetchInput struct {
	Attempt AttemptID
	Index   int
	CID     string
	// Max is the bytes of all inputs of the attempt together; more is refused with ErrFileTooBig.
	Max uint64
}

// StoredFile names a file that storage keeps.
type StoredFile struct {
	CID  string
	Size uint64
}

// Files is the network's storage, and the registries that jobs name, as an executor needs it. Bytes
// are verified against their CID while they stream. Errors: ErrNoFile, ErrFileMismatch and
// ErrFileTooBig are final, ErrFileDenied lasts until another token comes, all others may pass.
// Every method may be repeated.
type Files interface {
	// Source names where the image comes from, and with whose right: what differs in neither is
	// loaded once for all who want it. The network's storage is "". It does no I/O, and tells no
	// secret.
	Source(want FetchImage) (string, error)
	// OpenImage opens the image as the tar of an OCI layout.
	OpenImage(ctx context.Context, as FileAccess, want FetchImage) (io.ReadCloser, error)
	// CheckImage asks the image's source whether it would give it: held images run for nobody who
	// may not read them.
	CheckImage(ctx context.Context, as FileAccess, want FetchImage) error
	// FetchInput makes the file or directory available on this host under a path that depends on
	// attempt and index alone, readable by everyone, and returns it. Repeating it is cheap.
	FetchInput(ctx context.Context, as FileAccess, want FetchInput) (path string, err error)
	// DropInputs removes what FetchInput made for the attempt.
	DropInputs(ctx context.Context, attempt AttemptID) error
	// Put stores a file for the owner. It reads body to its end, or to its error, which it returns.
	Put(ctx context.Context, as FileAccess, name string, body io.Reader) (StoredFile, error)
}
