package trie_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/united-containers/ucn/chain/trie"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// tamperAll changes a good proof in every way a liar could and wants each one refused.
func tamperAll(t *testing.T, root trie.Hash, name string, good *chainv1.StateProof) {
	t.Helper()
	if _, err := trie.Verify(root, good); err != nil {
		t.Fatalf("%s: good proof refused: %v", name, err)
	}
	for field, bytes := range map[string]func(*chainv1.StateProof) *[]byte{
		"key":              func(p *chainv1.StateProof) *[]byte { return &p.Key },
		"value":            func(p *chainv1.StateProof) *[]byte { return &p.Value },
		"bitmap":           func(p *chainv1.StateProof) *[]byte { return &p.Bitmap },
		"other key":        func(p *chainv1.StateProof) *[]byte { return &p.OtherKey },
		"other value hash": func(p *chainv1.StateProof) *[]byte { return &p.OtherValueHash },
		"first sibling":    func(p *chainv1.StateProof) *[]byte { return &p.Siblings[0] },
		"last sibling":     func(p *chainv1.StateProof) *[]byte { return &p.Siblings[len(p.Siblings)-1] },
	} {
		tamperBytes(t, root, name+" "+field, good, bytes)
	}
	for what, change := range map[string]func(*chainv1.StateProof){
		"sibling removed": func(p *chainv1.StateProof) { p.Siblings = p.Siblings[1:] },
		"sibling added": func(p *chainv1.StateProof) {
			p.Siblings = append(p.Siblings, make([]byte, 32))
		},
		"siblings swapped": func(p *chainv1.StateProof) { s := p.Siblings; s[0], s[1] = s[1], s[0] },
		"bitmap too long":  func(p *chainv1.StateProof) { p.Bitmap = make([]byte, 33); p.Bitmap[32] = 1 },
		"becomes exclusion": func(p *chainv1.StateProof) {
			p.OtherKey, p.OtherValueHash, p.Value = p.Key, make([]byte, 32), nil
		},
		"becomes inclusion": func(p *chainv1.StateProof) {
			p.OtherKey, p.OtherValueHash, p.Value = nil, nil, []byte("forged")
		},
	} {
		forged := proto.CloneOf(good)
		change(forged)
		refuse(t, root, name+" "+what, forged)
	}
	refuse(t, trie.Hash{1}, name+" other root", good)
}

func tamperBytes(t *testing.T, root trie.Hash, what string, good *chainv1.StateProof,
	field func(*chainv1.StateProof) *[]byte) {
	t.Helper()
	for i := range *field(good) {
		for _, mask := range []byte{1, 0x80} {
			forged := proto.CloneOf(good)
			(*field(forged))[i] ^= mask
			// An exclusion proof of one key serves every key in the same gap, by design.
			if what[len(what)-3:] == "key" && len(good.Value) == 0 {
				continue
			}
			refuse(t, root, what, forged)
		}
	}
	longer := proto.CloneOf(good)
	*field(longer) = append(*field(longer), 7)
	refuse(t, root, what+" longer", longer)
	if n := len(*field(good)); n > 0 {
		shorter := proto.CloneOf(good)
		*field(shorter) = (*field(shorter))[:n-1]
		refuse(t, root, what+" shorter", shorter)
	}
}

func refuse(t *testing.T, root trie.Hash, what string, p *chainv1.StateProof) {
	t.Helper()
	_, err := trie.Verify(root, p)
	if !errors.Is(err, trie.ErrMalformed) && !errors.Is(err, trie.ErrRoot) {
		t.Errorf("%s: Verify gave %v, want a refusal", what, err)
	}
}

func TestVerifyNil(t *testing.T) { refuse(t, trie.Hash{}, "nil", nil) }

// FuzzVerify: whatever verifies against the root of a known tree must be true of that tree, and
// an inclusion proof has one form only.
func FuzzVerify(f *testing.F) {
	tree := trie.New()
	mustUpdate(f, tree, numberedUpdates(0, 64, "value"))
	for i := range 128 {
		p, found := tree.Prove(numbered(i))
		if found {
			p.Value = []byte("value")
		}
		raw, err := proto.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p := new(chainv1.StateProof)
		if proto.Unmarshal(raw, p) != nil {
			return
		}
		included, err := trie.Verify(tree.Root(), p)
		if err != nil {
			return
		}
		truth, found := tree.Prove(trie.Key(p.Key))
		if included != found {
			t.Fatalf("proved %v, the truth is %v", included, found)
		}
		if included {
			truth.Value = []byte("value")
		}
		p.ProtoReflect().SetUnknown(nil)
		if diff := cmp.Diff(truth, p, protocmp.Transform()); diff != "" {
			t.Fatalf("a second form of a proof (-want +got):\n%s", diff)
		}
	})
}
