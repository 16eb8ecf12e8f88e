package tx

import (
	"fmt"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
)

// Sign encodes the body and signs it for the chain with the anchor, with as many of keys as the
// set's threshold asks for. Set first when the chain holds no key set for the account yet: the
// nonce is then 0. Errors: those of Decode, and of sig.SignAccount.
func Sign(body Body, anchor sig.Anchor, set sig.KeySet, first bool, keys ...sig.PrivateKey) (
	*Transaction, error,
) {
	raw := body.Append(nil)
	checked, err := DecodeBody(raw)
	if err != nil {
		return nil, err
	}
	t := &Transaction{Body: checked, bytes: raw}
	t.Signature, err = sig.SignAccount(set, keys, first, t.AppendPreimage(nil, anchor))
	if err != nil {
		return nil, fmt.Errorf("sign transaction: %w", err)
	}
	return t, nil
}

// Attach joins a body with signatures made elsewhere. Errors: those of Decode.
func Attach(body Body, signature sig.AccountSignature) (*Transaction, error) {
	t := &Transaction{Body: body, Signature: signature, bytes: body.Append(nil)}
	return Decode(t.Append(nil))
}

// appendSignature appends the canonical bytes of an AccountSignature.
func appendSignature(dst []byte, s *sig.AccountSignature) []byte {
	dst = appendKeySet(dst, 1, s.Keys)
	return appendIndexed(dst, 2, s.Signatures)
}

func appendIndexed(dst []byte, field int, list []sig.IndexedSignature) []byte {
	for i := range list {
		var mark canon.Mark
		dst, mark = canon.Begin(dst, field)
		dst = canon.AppendUint(dst, 1, uint64(list[i].Index))
		dst = appendSig(dst, 2, list[i].Signature)
		dst = canon.EndElement(dst, mark)
	}
	return dst
}

// readSignature reads the fields of an AccountSignature into s, appending to its signatures.
func readSignature(r *canon.Reader, s *sig.AccountSignature) {
	for r.Next() {
		switch r.Field() {
		case 1:
			s.Keys = readKeySet(r, "keys", MaxSignatures)
		case 2:
			if len(s.Signatures) >= MaxSignatures {
				r.Fail(ErrSignatures)
				return
			}
			frame := r.OpenElement("signatures")
			s.Signatures = append(s.Signatures, readIndexed(r))
			r.Close(frame)
		default:
			r.Unknown()
		}
	}
	if len(s.Signatures) == 0 {
		r.FailField(2, ErrSignatures)
	}
}

func readIndexed(r *canon.Reader) (one sig.IndexedSignature) {
	for r.Next() {
		switch r.Field() {
		case 1:
			one.Index = r.Uint32()
		case 2:
			one.Signature = readSig(r)
		default:
			r.Unknown()
		}
	}
	need(r, 2, one.Signature != sig.Signature{})
	return one
}

func appendKeySet(dst []byte, field int, set sig.KeySet) []byte {
	dst, mark := canon.Begin(dst, field)
	return canon.End(set.AppendCanonical(dst), mark)
}

// readKeySet enters and reads a KeySet of at most most keys. Its shape is not judged.
func readKeySet(r *canon.Reader, name string, most int) (set sig.KeySet) {
	frame := r.Open(name)
	for r.Next() {
		switch r.Field() {
		case 1:
			if len(set.Keys) >= most {
				r.Fail(ErrSignatures)
				break
			}
			inner := r.OpenElement("keys")
			set.Keys = append(set.Keys, readKey(r))
			r.Close(inner)
		case 2:
			set.Threshold = r.Uint32()
		default:
			r.Unknown()
		}
	}
	r.Close(frame)
	return set
}

func readKey(r *canon.Reader) (key sig.PublicKey) {
	algorithm := uint32(0)
	for r.Next() {
		switch r.Field() {
		case 1:
			algorithm = r.Uint32()
		case 2:
			key = readID[sig.PublicKey](r)
		default:
			r.Unknown()
		}
	}
	if algorithm != sig.AlgorithmEd25519 {
		r.FailField(1, ErrAlgorithm)
	}
	need(r, 2, key != sig.PublicKey{})
	return key
}
