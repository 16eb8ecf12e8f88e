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
}

// DefaultLimits are 16 GiB per blob, 64 GiB and 1,000,000 blobs per account.
func DefaultLimits() Limits {
	return Limits{Blob: 16 << 30, Bytes: 64 << 30, Blobs: 1_000_000}
}

// Validate refuses limits that are not positive.
func (l Limits) Validate() error {
	if l.Blob <= 0 || l.Bytes <= 0 || l.Blobs <= 0 {
		return BadRequest("storage limits must be positive: %+v", l)
	}
	return nil
}

// Usage is what an account's references hold.
type Usage struct {
	// Bytes is the sum of the sizes of its blobs, Blobs their number.
	Bytes, Blobs int64
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
