package proof_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/proof"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// line is a chain of empty headers, each of which commits to those before it.
type line struct {
	trust   proof.Trust
	headers []block.Header
	hashes  []tx.Hash
}

func newLine(n int) *line {
	g := genesis()
	l := &line{trust: proof.TrustOf(g)}
	var history block.CompactRange
	for i := range n {
		h := g.Header(tx.Hash{1})
		h.Height, h.Time, h.HistoryRoot = uint64(i), g.Time+tx.Millis(i), history.Root()
		if i > 0 {
			h.Prev, h.Proposer = l.hashes[i-1], account(0)
		}
		hash := tx.Hash(h.Hash(l.trust.Anchor))
		history.Append(block.LeafHash(hash[:]))
		l.headers, l.hashes = append(l.headers, h), append(l.hashes, hash)
	}
	return l
}

func (l *line) prove(t testing.TB, head, at int) *chainv1.HistoryProof {
	t.Helper()
	h := &l.headers[head]
	m, err := proof.NewHistory(h, block.SignHeader(h, l.trust.Anchor, key(0)), &l.headers[at],
		l.hashes)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestHistoryProof(t *testing.T) {
	l := newLine(20)
	for head := 1; head < len(l.headers); head++ {
		for at := range head {
			got, err := proof.VerifyHistory(encode(t, l.prove(t, head, at)), l.trust)
			if err != nil {
				t.Fatalf("block %d before %d: %v", at, head, err)
			}
			if got.Hash != l.hashes[at] || got.Header != l.headers[at] ||
				got.Head != l.headers[head] {
				t.Errorf("block %d before %d: %+v", at, head, got)
			}
		}
	}
}

// TestHistoryTampering changes every field, each on its own.
func TestHistoryTampering(t *testing.T) {
	l := newLine(12)
	for _, at := range []int{0, 4, 10} {
		m := l.prove(t, 11, at)
		tamper(t, fmt.Sprint("history ", at), m, m.ProtoReflect(), func(raw []byte) error {
			_, err := proof.VerifyHistory(raw, l.trust)
			return err
		})
	}
}

// TestHistoryLies joins parts of good proofs, and asks for what cannot be proven.
func TestHistoryLies(t *testing.T) {
	l := newLine(12)
	m := l.prove(t, 11, 4)
	m.Ancestor = l.headers[5].PB()
	if _, err := proof.VerifyHistory(encode(t, m), l.trust); !errors.Is(err, block.ErrProof) {
		t.Errorf("another's place: %v", err)
	}
	for _, heights := range [][2]int{{4, 4}, {4, 5}} {
		h := &l.headers[heights[0]]
		_, err := proof.NewHistory(h, block.SignHeader(h, l.trust.Anchor, key(0)),
			&l.headers[heights[1]], l.hashes)
		if !errors.Is(err, proof.ErrSubject) {
			t.Errorf("block %d before %d: %v", heights[1], heights[0], err)
		}
	}
	_, err := proof.NewHistory(&l.headers[9], block.Certificate{}, &l.headers[1], l.hashes[:8])
	if !errors.Is(err, proof.ErrSubject) {
		t.Errorf("too few hashes: %v", err)
	}
	theirs := l.trust
	theirs.Validators = foreign()
	_, err = proof.VerifyHistory(encode(t, l.prove(t, 11, 4)), theirs)
	if !errors.Is(err, block.ErrSigners) {
		t.Errorf("by other validators: %v", err)
	}
}

// TestExclusion: that an escrow or lease is not there is proven, and no field of
// the proof can be changed.
func TestExclusion(t *testing.T) {
	c := newChain(t)
	trust := proof.TrustOf(c.genesis)
	for i := range 8 {
		escrow := tx.EscrowID{byte(i), 9}
		m := proof.NewState(&c.source.Header, c.source.Certificate,
			c.state.ProveEscrow(escrow).State)
		got, err := proof.VerifyEscrow(encode(t, m), escrow, trust)
		if err != nil || got.Exists {
			t.Fatalf("escrow %d: %+v, %v", i, got, err)
		}
		tamper(t, fmt.Sprint("escrow ", i), m, m.ProtoReflect(), func(raw []byte) error {
			_, err := proof.VerifyEscrow(raw, escrow, trust)
			return err
		})
		lease := tx.LeaseID{byte(i), 7}
		m = proof.NewState(&c.source.Header, c.source.Certificate, c.state.ProveLease(lease).State)
		tamper(t, fmt.Sprint("lease ", i), m, m.ProtoReflect(), func(raw []byte) error {
			_, err := proof.VerifyLease(raw, lease, trust)
			return err
		})
	}
}

// FuzzVerifyHistory: no bytes but good ones verify.
func FuzzVerifyHistory(f *testing.F) {
	l := newLine(9)
	for at := range 8 {
		f.Add(encode(f, l.prove(f, 8, at)))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := proof.VerifyHistory(raw, l.trust)
		if err != nil {
			return
		}
		if got.Head != l.headers[8] || got.Hash != l.hashes[got.Header.Height] {
			t.Fatalf("verified %+v", got)
		}
		m := &chainv1.HistoryProof{}
		if canon.Unmarshal(raw, m) != nil {
			t.Fatal("verified bytes are not canonical")
		}
	})
}
