package block_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"testing"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/tx"
)

// entries returns n different entries and their leaf hashes.
func entries(n int) (list [][]byte, leaves []tx.Hash) {
	for i := range n {
		entry := fmt.Appendf(nil, "entry %d", i)
		list, leaves = append(list, entry), append(leaves, block.LeafHash(entry))
	}
	return list, leaves
}

// naive is the definition of RFC 6962 section 2.1, word for word.
func naive(list [][]byte) tx.Hash {
	switch len(list) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, list[0]...))
	}
	k := 1 << (bits.Len(uint(len(list)-1)) - 1)
	left, right := naive(list[:k]), naive(list[k:])
	return sha256.Sum256(slices.Concat([]byte{1}, left[:], right[:]))
}

func TestRootIsRFC6962(t *testing.T) {
	// The test vectors of the certificate-transparency reference implementation.
	inputs := []string{
		"", "00", "10", "2021", "3031", "40414243", "5051525354555657",
		"606162636465666768696a6b6c6d6e6f",
	}
	want := []string{
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
	var list [][]byte
	for i, input := range inputs {
		entry, err := hex.DecodeString(input)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, entry)
		if got := block.Root(list).String(); got != want[i] {
			t.Errorf("%d entries: got %s, want %s", i+1, got, want[i])
		}
	}
	for n := range 70 {
		list, leaves := entries(n)
		if block.Root(list) != naive(list) || block.RootOfLeaves(leaves) != naive(list) {
			t.Errorf("%d entries: root is not by the definition", n)
		}
	}
}

func TestProveEveryEntry(t *testing.T) {
	for n := 1; n <= 40; n++ {
		list, leaves := entries(n)
		root := block.Root(list)
		for i := range n {
			proof := block.Prove(leaves, i)
			if err := proof.Verify(list[i], root); err != nil {
				t.Fatalf("entry %d of %d: %v", i, n, err)
			}
			back, err := block.ListProofFromPB(proof.PB())
			if err != nil || back.Verify(list[i], root) != nil {
				t.Fatalf("entry %d of %d: through the message: %v", i, n, err)
			}
			for name, forged := range forgeries(proof) {
				if err := forged.Verify(list[i], root); !errors.Is(err, block.ErrProof) {
					t.Fatalf("entry %d of %d: %s: got %v", i, n, name, err)
				}
			}
			if err := proof.Verify([]byte("x"), root); !errors.Is(err, block.ErrProof) {
				t.Fatalf("entry %d of %d: other entry: got %v", i, n, err)
			}
		}
	}
}

// forgeries changes a proof in ways that must not verify. A size that leaves the path as it is
// proves the same entry of the same root and is none.
func forgeries(p block.ListProof) map[string]block.ListProof {
	extra, fewer, flipped := p, p, p
	extra.Siblings = append(slices.Clone(p.Siblings), tx.Hash{1})
	out := map[string]block.ListProof{
		"a sibling more":       extra,
		"index outside":        {Index: p.Size, Size: p.Size, Siblings: p.Siblings},
		"no size":              {Index: p.Index, Siblings: p.Siblings},
		"another index":        {Index: (p.Index + 1) % p.Size, Size: p.Size, Siblings: p.Siblings},
		"siblings past 64":     {Index: p.Index, Size: p.Size, Siblings: make([]tx.Hash, 65)},
		"siblings of nowhere ": {Index: 0, Size: 1 << 63, Siblings: p.Siblings},
	}
	if len(p.Siblings) == 0 {
		delete(out, "another index")
		return out
	}
	fewer.Siblings = p.Siblings[1:]
	flipped.Siblings = slices.Clone(p.Siblings)
	flipped.Siblings[0][3] ^= 1
	out["a sibling fewer"], out["a flipped bit"] = fewer, flipped
	return out
}

func TestCompactRange(t *testing.T) {
	var grown block.CompactRange
	list, leaves := entries(300)
	for i, leaf := range leaves {
		restored, err := block.RestoreRange(grown.Size(), grown.Nodes())
		if err != nil || restored.Root() != naive(list[:i]) {
			t.Fatalf("restored at %d: %v", i, err)
		}
		restored.Append(leaf)
		grown.Append(leaf)
		if grown.Root() != naive(list[:i+1]) || restored.Root() != grown.Root() {
			t.Fatalf("root of %d entries differs", i+1)
		}
	}
	if _, err := block.RestoreRange(3, make([]tx.Hash, 1)); err == nil {
		t.Error("3 entries restored from 1 subtree")
	}
}

func TestStoredSubtreesGiveTheSameProofs(t *testing.T) {
	type place struct {
		level uint
		i     uint64
	}
	stored := map[place]tx.Hash{}
	missing := errors.New("not stored")
	node := func(level uint, i uint64) (tx.Hash, error) {
		root, ok := stored[place{level, i}]
		if !ok {
			return root, missing
		}
		return root, nil
	}
	_, leaves := entries(70)
	for n, leaf := range leaves {
		err := block.Grow(uint64(n), leaf, node, func(level uint, i uint64, root tx.Hash) {
			stored[place{level, i}] = root
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range n + 1 {
			got, err := block.ProveStored(uint64(i), uint64(n+1), node)
			if want := block.Prove(leaves[:n+1], i); err != nil || !slices.Equal(got.Siblings,
				want.Siblings) || got.Index != want.Index || got.Size != want.Size {
				t.Fatalf("entry %d of %d: %v", i, n+1, err)
			}
		}
	}
	delete(stored, place{0, 1})
	if _, err := block.ProveStored(0, 70, node); !errors.Is(err, missing) {
		t.Errorf("proved without the sibling: %v", err)
	}
}
