package cid

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"

	"lukechampine.com/blake3"
)

// New returns the hash that names blobs of kind k; nil for an unknown kind.
func New(k Kind) hash.Hash {
	switch k {
	case File, Directory:
		return blake3.New(SumSize, nil)
	case OCIBlob:
		return sha256.New()
	default:
		return nil
	}
}

// Sum reads r to its end and names what it read as a blob of kind k.
func Sum(k Kind, r io.Reader) (CID, int64, error) {
	h := New(k)
	if h == nil {
		return CID{}, 0, bad("kind %d", k)
	}
	n, err := io.Copy(h, r)
	if err != nil {
		return CID{}, n, err
	}
	return of(k, h), n, nil
}

func of(k Kind, h hash.Hash) CID {
	return CID{kind: k, sum: [SumSize]byte(h.Sum(nil))}
}

// NewReader passes r through and answers its end with ReasonMismatch instead of io.EOF when what
// passed is not the blob c of size bytes; size < 0 is any size. At most size bytes pass. A caller
// must not use what it read before it saw io.EOF. c must not be zero.
func NewReader(r io.Reader, c CID, size int64) io.Reader {
	return &reader{r: r, h: New(c.Kind()), want: c, size: size}
}

type reader struct {
	r    io.Reader
	h    hash.Hash
	want CID
	size int64
	n    int64
	done error
}

// Read implements io.Reader.
func (v *reader) Read(p []byte) (int, error) {
	if v.h == nil {
		return 0, bad("empty")
	}
	if v.done != nil {
		return 0, v.done
	}
	n, err := v.r.Read(p)
	if v.size >= 0 && int64(n) > v.size-v.n {
		v.done = mismatch(v.want, "there are more than the %d bytes expected", v.size)
		return 0, v.done
	}
	v.n += int64(n)
	v.h.Write(p[:n])
	if errors.Is(err, io.EOF) {
		err = v.verdict()
	}
	v.done = err
	return n, err
}

func (v *reader) verdict() error {
	if v.size >= 0 && v.n != v.size {
		return mismatch(v.want, "%d bytes, not %d", v.n, v.size)
	}
	if got := of(v.want.kind, v.h); got != v.want {
		return Mismatch(v.want, got)
	}
	return io.EOF
}
