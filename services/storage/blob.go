package storage

import (
	"encoding/hex"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
)

const (
	// MaxName is the longest name of a reference, in bytes.
	MaxName = 255
	// MaxJob is the longest job id a reference carries, in bytes.
	MaxJob = 128
	// MaxPage is the largest number of references one List returns.
	MaxPage = 1000
)

// Account is the id of an account: SHA-256 of its first key set. References and quotas belong to
// it.
type Account [32]byte

// String is the id in hex, for logs.
func (a Account) String() string { return hex.EncodeToString(a[:]) }

// Ref is one account's hold on one blob. A blob lives as long as any account refers to it.
type Ref struct {
	// CID names the blob.
	CID cid.CID
	// Size is its length in bytes.
	Size int64
	// Name is what the writer called it, at most MaxName bytes of printable UTF-8, or "".
	Name string
	// Job is the job whose output it is, or "".
	Job string
	// Created is when this account first put it, to the millisecond.
	Created time.Time
	// Pinned keeps it from expiry and removal.
	Pinned bool
	// Expires is when it ends by itself, to the millisecond; zero: never.
	Expires time.Time
	// Total and Height are those of Tree, for directories.
	Total  int64
	Height int
}

// Wanted returns which of two expiries holds when both were asked for: the later, never at last.
func Wanted(a, b time.Time) time.Time {
	if a.IsZero() || b.IsZero() {
		return time.Time{}
	}
	if a.After(b) {
		return a
	}
	return b
}

// Range is part of a blob in bytes. The zero Range is the whole blob.
type Range struct {
	// Offset is the first byte, 0 <= Offset <= size.
	Offset int64
	// Length is the number of bytes; 0 means to the end of the blob.
	Length int64
}

// Within resolves r against a blob of size bytes: Length 0 becomes the rest. A range that is not
// wholly inside is ReasonRange; nothing is cut silently.
func (r Range) Within(size int64) (Range, error) {
	if r.Offset < 0 || r.Length < 0 || r.Offset > size || r.Length > size-r.Offset {
		return Range{}, outsideBlob(r, size)
	}
	if r.Length == 0 {
		r.Length = size - r.Offset
	}
	return r, nil
}

// Encoding is how Read writes a range.
type Encoding uint8

const (
	// EncodingPlain is the bytes of the range, verified by the store.
	EncodingPlain Encoding = iota
	// EncodingSlice is the Bao slice of the range, for files only: see DecodeSlice.
	EncodingSlice
)

// Limits bounds what a store takes. Every field must be positive.
type Limits struct {
	// Blob is the largest blob, in bytes.
	Blob int64
	// Bytes is the quota of one account: the sum of the sizes of the blobs it refers to. A blob
	// two accounts refer to counts for both.
	Bytes int64
	// Blobs is the largest number of references of one account.
	Blobs int64
	// Uploads is the largest number of resumable uploads of one account; 0 is DefaultOpenUploads.
	Uploads int
}

// DefaultOpenUploads is how many resumable uploads an account may have under way.
const DefaultOpenUploads = 32

// OpenUploads is Uploads with its default.
func (l Limits) OpenUploads() int {
	if l.Uploads == 0 {
		return DefaultOpenUploads
	}
	return l.Uploads
}

// DefaultLimits are 16 GiB per blob, 64 GiB and 1,000,000 blobs and 32 uploads per account.
func DefaultLimits() Limits {
	return Limits{Blob: 16 << 30, Bytes: 64 << 30, Blobs: 1_000_000, Uploads: DefaultOpenUploads}
}

// Validate refuses limits that are not positive.
func (l Limits) Validate() error {
	if l.Blob <= 0 || l.Bytes <= 0 || l.Blobs <= 0 || l.Uploads < 0 {
		return BadRequest("storage limits must be positive: %+v", l)
	}
	return nil
}

// Usage is what an account's references hold.
type Usage struct {
	// Bytes is the sum of the sizes of its blobs, Blobs their number.
	Bytes, Blobs int64
	// Kinds is the same by kind, at the kind's number; the first is not used.
	Kinds [cid.Directory + 1]Count
	// Pinned are the pinned ones among them.
	Pinned Count
	// Uploads are the resumable ones under way, with the bytes of the quota that they hold.
	Uploads Count
}

// Count is a number of things and their bytes.
type Count struct{ Bytes, Blobs int64 }

// Add counts a reference; sign is 1 or -1.
func (u *Usage) Add(r Ref, sign int64) {
	u.Bytes += sign * r.Size
	u.Blobs += sign
	kind := &u.Kinds[r.CID.Kind()]
	kind.Bytes += sign * r.Size
	kind.Blobs += sign
	if r.Pinned {
		u.Pinned.Bytes += sign * r.Size
		u.Pinned.Blobs += sign
	}
}

// Admit refuses, with ReasonQuota, a blob of size bytes on top of u and of pending bytes that other
// writes of the account have on the way.
func (l Limits) Admit(u Usage, pending, size int64) error {
	if u.Blobs >= l.Blobs {
		return fault.New(fault.ResourceExhausted, ReasonQuota,
			"the account holds %d blobs, its quota is %d; remove some first", u.Blobs, l.Blobs)
	}
	if size > l.Bytes-u.Bytes-pending {
		return fault.New(fault.ResourceExhausted, ReasonQuota,
			"the account holds %d bytes and writes %d more, its quota is %d; remove some first",
			u.Bytes, pending+size, l.Bytes)
	}
	return nil
}

// AdmitSize refuses, with ReasonTooLarge, a blob of more than l.Blob bytes.
func (l Limits) AdmitSize(size int64) error {
	if size > l.Blob {
		return fault.New(fault.InvalidArgument, ReasonTooLarge,
			"a blob may have at most %d bytes", l.Blob)
	}
	return nil
}

// checkLabel bounds the text a writer attaches to a reference.
func checkLabel(what, s string, limit int) error {
	if len(s) > limit {
		return BadRequest("%s has %d bytes, at most %d", what, len(s), limit)
	}
	if !utf8.ValidString(s) {
		return BadRequest("%s is not UTF-8", what)
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return BadRequest("%s holds the unprintable character %U", what, r)
		}
	}
	return nil
}
