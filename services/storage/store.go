package storage

import (
	"context"
	"io"
	"time"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
)

// Store keeps blobs and the references of accounts to them.
//
// Durability: when Put or Remove returns nil, its effect survives a crash of process and machine;
// when it returns an error or the process dies inside it, either all of it happened or nothing,
// and nothing of a half-written blob stays after the next start. Every byte that leaves a store was
// verified against its CID first.
//
// Concurrency: all methods may be called at once. The same blob put many times at once is kept
// once. A Read that has begun completes although the blob is removed meanwhile.
//
// Retry: every method may be repeated. A repeated Put of a blob the account holds changes nothing
// but, if given, its name; a repeated Remove is ReasonNotFound.
//
// Errors: faults with the reasons in this package for what the caller can act on; anything else
// is a failure of the store. A blob another account holds is ReasonNotFound, like one nobody holds.
type Store interface {
	Blobs
	References
	Keeping
	Uploads
}

// Blobs moves bytes in and out.
type Blobs interface {
	// Put reads body to its end and keeps it for p.Account.
	Put(ctx context.Context, p Put, body io.Reader) (Stored, error)
	// Read writes a range of a blob the account refers to, to w. Bytes written before an error are
	// good, but they are not all. An error of w is returned wrapped.
	Read(ctx context.Context, r Read, w io.Writer) error
	// Remove ends the account's reference; the bytes go when nobody refers to them any more. A pinned
	// one is ReasonPinned, one that a directory of the account names ReasonInDirectory.
	Remove(ctx context.Context, account Account, c cid.CID) error
	// RemoveMany ends several references, each as Remove would after those before it, in one write
	// that is told as one event. It looks at the first of cs, one at least and as many as fit into a
	// write, and returns what became of each of these: nil, or why it stays. With an error nothing
	// happened. More than MaxPage, or none, are ReasonBadRequest.
	RemoveMany(ctx context.Context, account Account, cs []cid.CID) (became []error, err error)
}

// References tells what an account holds.
type References interface {
	// Stat returns the account's reference to c.
	Stat(ctx context.Context, account Account, c cid.CID) (Ref, error)
	// List returns up to limit (1 to MaxPage) references after the given CID, ascending by binary
	// CID. The zero CID starts at the first.
	List(ctx context.Context, account Account, after cid.CID, limit int) ([]Ref, error)
	// Usage returns what the account holds; an account never seen holds nothing.
	Usage(ctx context.Context, account Account) (Usage, error)
}

// Put says what a writer is about to send.
type Put struct {
	// Account pays the quota and gets the reference.
	Account Account
	// Kind says which hash names the blob.
	Kind cid.Kind
	// Expect is the CID the bytes must have, or zero. Its kind must be Kind.
	Expect cid.CID
	// Size is the exact number of bytes, or 0 when it is not known beforehand. A wrong one is
	// ReasonSize.
	Size int64
	// Name and Job label the reference; see Ref.
	Name, Job string
	// Expires is when the reference ends by itself; zero: never. Of a reference that exists the later
	// of both counts, and a put of a job's host leaves it.
	Expires time.Time
	// Tree is set for directories.
	Tree Tree
	// SkipHeld allows Put to return without reading body when the account already holds Expect.
	// Without it a writer proves that it has the bytes.
	SkipHeld bool
	// KeepName leaves the name of a reference that the account holds already as it is.
	KeepName bool
}

// ByHost says that a host of a job puts, and not the account itself.
func (p Put) ByHost() bool { return p.KeepName }

// Validate checks p against its bounds and the largest blob.
func (p Put) Validate(l Limits) error {
	if p.Kind != cid.File && p.Kind != cid.OCIBlob && p.Kind != cid.Directory {
		return BadRequest("say whether the blob is a file, an OCI blob or a directory")
	}
	if len(p.Tree.Names) > MaxNames {
		return BadRequest("a directory names %d blobs, at most %d", len(p.Tree.Names), MaxNames)
	}
	if !p.Expect.IsZero() && p.Expect.Kind() != p.Kind {
		return BadRequest("the expected CID %s names a %s, the blob is sent as %s", p.Expect,
			p.Expect.Kind(), p.Kind)
	}
	if p.Size < 0 {
		return BadRequest("size %d is negative", p.Size)
	}
	if err := l.AdmitSize(p.Size); err != nil {
		return err
	}
	if err := checkLabel("name", p.Name, MaxName); err != nil {
		return err
	}
	return checkLabel("job id", p.Job, MaxJob)
}

// Verify compares what arrived with what p announced.
func (p Put) Verify(got cid.CID, size int64) error {
	if !p.Expect.IsZero() && got != p.Expect {
		return cid.Mismatch(p.Expect, got)
	}
	if p.Size != 0 && p.Size != size {
		return fault.New(fault.InvalidArgument, ReasonSize,
			"the blob was announced with %d bytes, %d arrived", p.Size, size)
	}
	return nil
}

// Stored is the outcome of a Put.
type Stored struct {
	// Ref is the account's reference, new or old.
	Ref Ref
	// Held says that the account referred to the blob before; its usage did not grow. Whether other
	// accounts hold it is never told.
	Held bool
}

// Read names the bytes a reader wants.
type Read struct {
	Account  Account
	CID      cid.CID
	Range    Range
	Encoding Encoding
}

// Validate checks what does not depend on the blob.
func (r Read) Validate() error {
	if r.CID.IsZero() {
		return BadRequest("no CID is given")
	}
	if r.Encoding == EncodingSlice && r.CID.Kind() != cid.File {
		return BadRequest("a Bao slice needs the CID of a file, %s is of a %s", r.CID, r.CID.Kind())
	}
	if r.Encoding > EncodingSlice {
		return BadRequest("encoding %d is unknown", r.Encoding)
	}
	return nil
}
