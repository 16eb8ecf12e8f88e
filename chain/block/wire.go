package block

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
)

func malformed(what string, err error, of proto.Message) error {
	return fmt.Errorf("malformed %s: %w", what,
		canon.NameField(err, of.ProtoReflect().Descriptor()))
}

// readHash reads a singular hash, id or key that is not all zero.
func readHash[T ~[32]byte](r *canon.Reader) (out T) {
	b := r.Bytes(r.Left())
	if len(b) != len(out) {
		r.Fail(canon.ErrLength)
		return out
	}
	if out = T([32]byte(b)); out == (T{}) {
		r.Fail(tx.ErrZero)
	}
	return out
}

func readSignature(r *canon.Reader) (s sig.Signature) {
	r.Fixed(s[:])
	return s
}

// appendHash appends a hash, id or key unless it is all zero.
func appendHash[T ~[32]byte](dst []byte, field int, hash T) []byte {
	if hash == (T{}) {
		return dst
	}
	return canon.AppendBytes(dst, field, hash[:])
}
