package state

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/trie"
	"github.com/united-containers/ucn/chain/tx"
)

// ErrSnapshot says that a snapshot is not one of this chain, or not whole.
var ErrSnapshot = errors.New("state: snapshot refused")

// A snapshot is: magic, anchor, height, time, accrual, state root, number of leaves, the leaves
// by ascending state key (kind, id, length of value, value), and the SHA-256 of all before it.
// Numbers are 8 bytes, big-endian.
const (
	snapshotMagic = "ucn/state/v1\n"
	// maxLeafSize bounds a leaf's value in bytes; the chain's own with 256 validators is the
	// longest.
	maxLeafSize = 64 << 10
)

// Snapshot is the committed state as it was at one moment. It does not change and may be written
// while blocks go on.
type Snapshot struct {
	anchor   sig.Anchor
	head     Head
	root     trie.Hash
	chain    []byte
	accounts []pair[sig.AccountID, tx.Account]
	signers  []pair[sig.AccountID, tx.AccountSigners]
	escrows  []pair[tx.EscrowID, tx.Escrow]
	leases   []pair[tx.LeaseID, tx.LeaseState]
	lanes    []pair[LaneID, tx.LaneState]
}

type pair[K comparable, V any] struct {
	id  K
	val V
}

// Freeze copies the committed records, about 100 bytes per account, holding Commit up meanwhile.
func (s *State) Freeze() *Snapshot {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return &Snapshot{
		anchor: s.genesis.anchor, head: s.head, root: s.tree.Root(),
		chain:    s.genesis.appendChain(nil, &s.chain),
		accounts: pairs(&s.accounts), signers: pairs(&s.signers), escrows: pairs(&s.escrows),
		leases: pairs(&s.leases), lanes: pairs(&s.lanes),
	}
}

func pairs[K comparable, V any](t *table[K, V]) []pair[K, V] {
	out := make([]pair[K, V], 0, len(t.base))
	for id, v := range t.base {
		out = append(out, pair[K, V]{id, v})
	}
	return out
}

// Head returns the height and clocks that the snapshot is of.
func (s *Snapshot) Head() Head { return s.head }

// Root returns the state root that the snapshot restores to.
func (s *Snapshot) Root() trie.Hash { return s.root }

// leafRef finds a leaf of a snapshot in key order.
type leafRef struct {
	key   trie.Key
	kind  byte
	index int
}

// order lists the leaves by ascending key.
func (s *Snapshot) order() []leafRef {
	refs := []leafRef{{ChainKey(), kindChain, 0}}
	refs = appendRefs(refs, kindAccount, s.accounts, AccountKey)
	refs = appendRefs(refs, kindSigners, s.signers, SignersKey)
	refs = appendRefs(refs, kindEscrow, s.escrows, EscrowKey)
	refs = appendRefs(refs, kindLease, s.leases, LeaseKey)
	refs = appendRefs(refs, kindLane, s.lanes, LaneKey)
	slices.SortFunc(refs, func(a, b leafRef) int { return bytes.Compare(a.key[:], b.key[:]) })
	return refs
}

func appendRefs[K comparable, V any](refs []leafRef, kind byte, of []pair[K, V],
	key func(K) trie.Key) []leafRef {
	for i := range of {
		refs = append(refs, leafRef{key(of[i].id), kind, i})
	}
	return refs
}

// encode returns id and value of a leaf.
func (s *Snapshot) encode(r leafRef) (id, value []byte) {
	switch r.kind {
	case kindAccount:
		p := &s.accounts[r.index]
		return p.id[:], p.val.Append(nil)
	case kindSigners:
		p := &s.signers[r.index]
		return p.id[:], p.val.Append(nil)
	case kindEscrow:
		p := &s.escrows[r.index]
		return p.id[:], p.val.Append(nil)
	case kindLease:
		p := &s.leases[r.index]
		return p.id[:], p.val.Append(nil)
	case kindLane:
		p := &s.lanes[r.index]
		return p.id.bytes(), p.val.Append(nil)
	}
	return nil, s.chain
}

// WriteTo writes the snapshot. Errors are the writer's.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<16)
	refs := s.order()
	head := s.appendHead(make([]byte, 0, 128), len(refs))
	written, err := out.Write(head)
	for i := 0; i < len(refs) && err == nil; i++ {
		id, value := s.encode(refs[i])
		leaf := append(append(head[:0], refs[i].kind), id...)
		leaf = binary.BigEndian.AppendUint64(leaf, uint64(len(value)))
		_, err = out.Write(append(leaf, value...))
		written += len(leaf) + len(value)
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return int64(written), fmt.Errorf("write state snapshot: %w", err)
	}
	n, err := w.Write(sum.Sum(nil))
	return int64(written + n), err
}

func (s *Snapshot) appendHead(dst []byte, leaves int) []byte {
	dst = append(append(dst, snapshotMagic...), s.anchor[:]...)
	for _, n := range []uint64{s.head.Height, uint64(s.head.Time), uint64(s.head.Accrual)} {
		dst = binary.BigEndian.AppendUint64(dst, n)
	}
	return binary.BigEndian.AppendUint64(append(dst, s.root[:]...), uint64(leaves))
}

// Restore reads a snapshot of the genesis's chain. The caller compares Root with the header of
// that height: a snapshot proves only that it is whole. Errors wrap ErrSnapshot or the reader's.
func Restore(r io.Reader, g *block.Genesis) (*State, error) {
	sum := sha256.New()
	in := snapshotReader{from: bufio.NewReaderSize(r, 1<<16), sum: sum}
	s := newState(rules{anchor: g.Anchor(), chain: g.Chain})
	root, err := in.restore(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	if s.tree.Root() != root {
		return nil, fmt.Errorf("%w: leaves have root %v, not %v", ErrSnapshot, s.tree.Root(), root)
	}
	if err := s.recount(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	return s, nil
}

type snapshotReader struct {
	from *bufio.Reader
	sum  hash.Hash
}

// next reads n bytes into a slice of their own.
func (r *snapshotReader) next(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(r.from, b); err != nil {
		return nil, err
	}
	r.sum.Write(b)
	return b, nil
}

func (r *snapshotReader) restore(s *State) (root trie.Hash, err error) {
	head, err := r.next(len(snapshotMagic) + 32 + 24 + 32 + 8)
	if err != nil {
		return root, err
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return root, errors.New("it does not begin like one")
	}
	head = head[len(snapshotMagic):]
	if sig.Anchor(head[:32]) != s.genesis.anchor {
		return root, errors.New("it is of another chain")
	}
	s.head = Head{
		Height:  binary.BigEndian.Uint64(head[32:]),
		Time:    tx.Millis(binary.BigEndian.Uint64(head[40:])),
		Accrual: tx.Millis(binary.BigEndian.Uint64(head[48:])),
	}
	root = trie.Hash(head[56:88])
	if err := r.leaves(s, binary.BigEndian.Uint64(head[88:])); err != nil {
		return root, err
	}
	want := r.sum.Sum(nil)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r.from, got); err != nil {
		return root, err
	}
	if !bytes.Equal(got, want) {
		return root, errors.New("checksum differs")
	}
	return root, nil
}

// restoreBatch is the number of leaves that go into the tree at a time.
const restoreBatch = 1 << 16

func (r *snapshotReader) leaves(s *State, count uint64) error {
	batch, err := s.tree.Begin()
	if err != nil {
		return err
	}
	var updates []trie.Update
	last := trie.Key{}
	for i := range count {
		key, value, err := r.leaf(s)
		if err != nil {
			return fmt.Errorf("leaf %d: %w", i, err)
		}
		if i > 0 && bytes.Compare(last[:], key[:]) >= 0 {
			return fmt.Errorf("leaf %d: keys are not ascending", i)
		}
		last, updates = key, append(updates, trie.Update{Key: key, Value: value})
		if len(updates) == restoreBatch || i == count-1 {
			if err := batch.Update(updates); err != nil {
				return err
			}
			updates = updates[:0]
		}
	}
	batch.Commit()
	return nil
}

// leaf reads one leaf into the records.
func (r *snapshotReader) leaf(s *State) (key trie.Key, value []byte, err error) {
	kind, err := r.next(1)
	if err != nil {
		return key, nil, err
	}
	id, err := r.next(idSize(kind[0]))
	if err != nil {
		return key, nil, err
	}
	length, err := r.next(8)
	if err != nil {
		return key, nil, err
	}
	size := binary.BigEndian.Uint64(length)
	if size == 0 || size > maxLeafSize {
		return key, nil, fmt.Errorf("value of %d bytes", size)
	}
	if value, err = r.next(int(size)); err != nil {
		return key, nil, err
	}
	return leafKey(kind[0], id), value, s.restoreLeaf(kind[0], id, value)
}

func idSize(kind byte) int {
	switch kind {
	case kindAccount, kindSigners, kindEscrow, kindLease:
		return 32
	case kindLane:
		return 36
	}
	return 0
}

func (s *State) restoreLeaf(kind byte, id, value []byte) (err error) {
	switch kind {
	case kindChain:
		return s.restoreChain(value)
	case kindAccount:
		s.accounts.base[sig.AccountID(id)], err = tx.DecodeAccount(value)
	case kindSigners:
		var a tx.AccountSigners
		a, err = tx.DecodeSigners(value)
		s.dues.change(dueChange{a.Recovery.Due, 1}, s.head.Accrual)
		s.signers.base[sig.AccountID(id)] = a
	case kindEscrow:
		var e tx.Escrow
		e, err = tx.DecodeEscrow(value)
		s.counts.burning += btoi(err == nil && burns(&e))
		s.dues.change(dueChange{noticeDue(&e), 1}, s.head.Accrual)
		s.escrows.base[tx.EscrowID(id)] = e
	case kindLease:
		var l tx.LeaseState
		l, err = tx.DecodeLeaseState(value)
		s.counts.unsettled += btoi(!l.Settled)
		s.dues.change(dueChange{holdbackDue(&l, true), 1}, s.head.Accrual)
		s.leases.base[tx.LeaseID(id)] = l
	case kindLane:
		lane := LaneID{tx.EscrowID(id[:32]), binary.BigEndian.Uint32(id[32:])}
		s.lanes.base[lane], err = tx.DecodeLaneState(value)
	default:
		err = fmt.Errorf("kind %d is not known", kind)
	}
	return err
}

func (s *State) restoreChain(value []byte) error {
	leaf, err := block.DecodeChainState(value)
	if err != nil {
		return err
	}
	s.genesis.params, s.genesis.validators = leaf.Params, leaf.Validators
	s.chain = chainRecord{
		minted: leaf.Minted, burned: leaf.Burned,
		prices:        Prices{leaf.OperationFee, leaf.ByteFee},
		genesisSupply: leaf.GenesisSupply,
		sums:          sums{leaf.AccountSum, leaf.EscrowSum, leaf.LockSum, leaf.LockboxSum},
	}
	return leaf.Params.Validate()
}
