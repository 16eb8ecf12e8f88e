package oci

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/united-containers/ucn/kit/fault"
)

const maxWindow = 128 << 20 // bytes of memory that a zstd layer may want

// Unpacker reads a layer that is written to it, and says what it unpacks to. How it is packed it
// takes from the first bytes, as engines do, and not from a media type that may lie. Nothing of it
// is kept. Every Unpacker must be closed.
type Unpacker struct {
	w    *io.PipeWriter
	done chan struct{}

	sum Unpacked // set once done is closed
	err error
}

// Unpacked is what a layer unpacks to.
type Unpacked struct {
	DiffID string // the digest ("sha256:...") that an image's config names it by
	Size   int64  // bytes
	// Disk is at most what its files take on a disk, in bytes, and Files how many there are. A few
	// bytes of a tar can stand for a file of any size that is nothing but holes.
	Disk, Files int64
	// Refused says why no engine here may make files of it: ReasonNotImage, it is no tar, or
	// ReasonContent, of what is in it. Nil for a layer. What only looks like one, such as a
	// manifest, is told here and not as an error.
	Refused error
}

// NewUnpacker takes layers that unpack to at most that many bytes.
func NewUnpacker(most int64) *Unpacker {
	r, w := io.Pipe()
	u := &Unpacker{w: w, done: make(chan struct{})}
	go func() {
		defer close(u.done)
		u.sum, u.err = unpack(r, most)
		_ = r.CloseWithError(errors.Join(u.err, io.ErrClosedPipe)) // always nil
	}()
	return u
}

// Write implements io.Writer. It fails as soon as the layer is known to be bad, as Close does.
func (u *Unpacker) Write(p []byte) (int, error) {
	n, err := u.w.Write(p)
	if err != nil {
		<-u.done
		if u.err != nil {
			return n, u.err
		}
	}
	return n, err
}

// Close ends the layer. What cannot be unpacked, or is packed otherwise than by gzip or zstd, is
// ReasonNotImage; what unpacks to too much is ReasonTooLarge.
func (u *Unpacker) Close() (Unpacked, error) {
	_ = u.w.Close() // always nil
	<-u.done
	return u.sum, u.err
}

// packed returns what r unpacks to, and how to end that.
func packed(r *bufio.Reader) (io.Reader, func(), error) {
	nothing := func() {}
	head, err := r.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nothing, err
	}
	begins := func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) }
	switch {
	case begins("\x1f\x8b\x08"):
		z, err := gzip.NewReader(r)
		return z, nothing, err
	case begins("\x28\xb5\x2f\xfd"):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nothing, err
		}
		return z, z.Close, nil
	case begins("BZh"), begins("\xfd7zXZ\x00"):
		return nil, nothing, errors.New("packed by bzip2 or xz")
	}
	return r, nothing, nil
}

func unpack(from io.Reader, most int64) (Unpacked, error) {
	r := bufio.NewReader(from)
	content, end, err := packed(r)
	if err != nil {
		return Unpacked{}, badLayer(err)
	}
	defer end()
	hash := sha256.New()
	limited := &io.LimitedReader{R: content, N: most + 1}
	sum := Unpacked{}
	sum.Disk, sum.Files, sum.Refused = checkEntries(io.TeeReader(limited, hash), most)
	_, err = io.Copy(hash, limited) // what a broken tar has left, and what comes after a whole one
	sum.Size = most + 1 - limited.N
	switch {
	case sum.Size > most, errors.Is(sum.Refused, ReasonTooLarge):
		return Unpacked{}, fault.New(fault.FailedPrecondition, ReasonTooLarge,
			"the image unpacks to more bytes than this host allows")
	case err != nil:
		return Unpacked{}, badLayer(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return Unpacked{}, badLayer(err)
	}
	sum.DiffID = fmt.Sprintf("sha256:%x", hash.Sum(nil))
	return sum, nil
}

func badLayer(err error) error {
	return fault.New(fault.FailedPrecondition, ReasonNotImage,
		"not an image: a layer cannot be unpacked").Because(err)
}
