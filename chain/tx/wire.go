package tx

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
)

// malformed names the message and the field in an error of a reader.
func malformed(what string, err error, of proto.Message) error {
	return fmt.Errorf("malformed %s: %w", what,
		canon.NameField(err, of.ProtoReflect().Descriptor()))
}

// need refuses a message whose field is missing.
func need(r *canon.Reader, field int, present bool) {
	if !present {
		r.FailField(field, ErrMissing)
	}
}

// readID reads a singular id or key that is not all zero.
func readID[T ~[32]byte](r *canon.Reader) (id T) {
	id = T(fixed(r, r.Bytes(r.Left())))
	if r.Err() == nil && id == (T{}) {
		r.Fail(ErrZero)
	}
	return id
}

// readElement reads one more id or key of a list.
func readElement[T ~[32]byte](r *canon.Reader) (id T) {
	id = T(fixed(r, r.Element(r.Left())))
	if r.Err() == nil && id == (T{}) {
		r.Fail(ErrZero)
	}
	return id
}

func fixed(r *canon.Reader, b []byte) (out [32]byte) {
	if len(b) != len(out) {
		r.Fail(canon.ErrLength)
		return out
	}
	return [32]byte(b)
}

func readSig(r *canon.Reader) (s sig.Signature) {
	r.Fixed(s[:])
	if s == (sig.Signature{}) {
		r.Fail(ErrZero)
	}
	return s
}

func appendSig(dst []byte, field int, s sig.Signature) []byte {
	if s == (sig.Signature{}) {
		return dst
	}
	return canon.AppendBytes(dst, field, s[:])
}

// appendID appends an id or key unless it is all zero.
func appendID[T ~[32]byte](dst []byte, field int, id T) []byte {
	var zero T
	if id == zero {
		return dst
	}
	return canon.AppendBytes(dst, field, id[:])
}

func appendIDs[T ~[32]byte](dst []byte, field int, ids []T) []byte {
	for i := range ids {
		dst = canon.AppendElement(dst, field, ids[i][:])
	}
	return dst
}
