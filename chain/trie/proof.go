package trie

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"

	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

var (
	// ErrMalformed says that a proof is not in its one canonical form.
	ErrMalformed = errors.New("trie: malformed proof")
	// ErrRoot says that a well-formed proof does not lead to the root.
	ErrRoot = errors.New("trie: proof does not lead to the root")
)

// Prove returns the path of key under the committed root: an inclusion proof whose Value the
// caller fills in (the tree holds only its hash), or an exclusion proof; found tells which.
func (t *Tree) Prove(key Key) (proof *chainv1.StateProof, found bool) {
	proof = &chainv1.StateProof{Key: key[:]}
	var bitmap [maxDepth / 8]byte
	at := t.root
	for depth := 0; at.isInner(); depth++ {
		side := bit(&key, depth)
		child := t.arena.inner(at).child
		at = child[side]
		if child[1-side] == empty {
			continue
		}
		bitmap[depth>>3] |= 1 << (7 - depth&7)
		h := t.arena.hash(child[1-side])
		proof.Siblings = append(proof.Siblings, h[:])
	}
	for i, j := 0, len(proof.Siblings)-1; i < j; i, j = i+1, j-1 {
		proof.Siblings[i], proof.Siblings[j] = proof.Siblings[j], proof.Siblings[i]
	}
	proof.Bitmap = bytes.Clone(bytes.TrimRight(bitmap[:], "\x00"))
	if at == empty {
		return proof, false
	}
	leaf := t.arena.leaf(at)
	if leaf.key != key {
		proof.OtherKey = bytes.Clone(leaf.key[:])
		proof.OtherValueHash = bytes.Clone(leaf.value[:])
	}
	return proof, leaf.key == key
}

// Verify checks a proof against a root. It returns whether the proof shows the key to be in the
// tree with the proof's value (true) or not to be in the tree (false); ErrMalformed or ErrRoot
// when it shows nothing. It trusts no field of the proof.
func Verify(root Hash, proof *chainv1.StateProof) (included bool, err error) {
	if err := checkForm(proof); err != nil {
		return false, err
	}
	key := Key(proof.Key)
	var at Hash
	switch {
	case len(proof.Value) > 0:
		value := Hash(sha256.Sum256(proof.Value))
		at = hashLeaf(&key, &value)
	case len(proof.OtherKey) > 0:
		other, value := Key(proof.OtherKey), Hash(proof.OtherValueHash)
		at = hashLeaf(&other, &value)
	}
	if climb(at, &key, proof) != root {
		return false, ErrRoot
	}
	return len(proof.Value) > 0, nil
}

// climb folds the siblings into the start, from the deepest level that has one up to the root.
func climb(at Hash, key *Key, proof *chainv1.StateProof) Hash {
	next := 0
	for depth := pathLength(proof.Bitmap) - 1; depth >= 0; depth-- {
		var sibling Hash
		if proof.Bitmap[depth>>3]>>(7-depth&7)&1 == 1 {
			sibling = Hash(proof.Siblings[next])
			next++
		}
		if bit(key, depth) == 0 {
			at = hashInner(&at, &sibling)
		} else {
			at = hashInner(&sibling, &at)
		}
	}
	return at
}

// checkForm refuses every proof that Prove would not have made from some tree.
func checkForm(p *chainv1.StateProof) error {
	switch {
	case p == nil:
		return fmt.Errorf("%w: none given", ErrMalformed)
	case len(p.Key) != len(Key{}):
		return fmt.Errorf("%w: key has %d bytes, not 32", ErrMalformed, len(p.Key))
	case len(p.Bitmap) > maxDepth/8:
		return fmt.Errorf("%w: bitmap has %d bytes, more than 32", ErrMalformed, len(p.Bitmap))
	case len(p.Bitmap) > 0 && p.Bitmap[len(p.Bitmap)-1] == 0:
		return fmt.Errorf("%w: bitmap ends in a zero byte", ErrMalformed)
	}
	set := 0
	for _, b := range p.Bitmap {
		set += bits.OnesCount8(b)
	}
	if set != len(p.Siblings) {
		return fmt.Errorf("%w: %d siblings for %d bits", ErrMalformed, len(p.Siblings), set)
	}
	for i, s := range p.Siblings {
		if len(s) != len(Hash{}) || Hash(s) == (Hash{}) {
			return fmt.Errorf("%w: sibling %d is no hash of a node", ErrMalformed, i)
		}
	}
	return checkOther(p)
}

func checkOther(p *chainv1.StateProof) error {
	if len(p.OtherKey) == 0 && len(p.OtherValueHash) == 0 {
		return nil
	}
	switch {
	case len(p.Value) > 0:
		return fmt.Errorf("%w: both a value and another leaf", ErrMalformed)
	case len(p.OtherKey) != len(Key{}) || len(p.OtherValueHash) != len(Hash{}):
		return fmt.Errorf("%w: other leaf is not 32 and 32 bytes", ErrMalformed)
	case bytes.Equal(p.OtherKey, p.Key):
		return fmt.Errorf("%w: the other leaf is the key itself", ErrMalformed)
	}
	other, key := Key(p.OtherKey), Key(p.Key)
	for depth := range pathLength(p.Bitmap) {
		if bit(&other, depth) != bit(&key, depth) {
			return fmt.Errorf("%w: the other leaf is off the key's path", ErrMalformed)
		}
	}
	return nil
}

// pathLength returns the number of levels above the proven position: a leaf or a gap always
// has a sibling on its own level, so the deepest set bit tells it.
func pathLength(bitmap []byte) int {
	if len(bitmap) == 0 {
		return 0
	}
	return len(bitmap)*8 - bits.TrailingZeros8(bitmap[len(bitmap)-1])
}
