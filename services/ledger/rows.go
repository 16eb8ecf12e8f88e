package ledger

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// touch is how a transaction touches an account: the value of a row of ListAccount.
type touch struct {
	// flags of the transaction, seen from the account.
	flags uint8
	// kinds of the operations, bit n for kind n.
	kinds uint64
}

const (
	touchSent uint8 = 1 << iota
	touchFailed
)

func (t touch) value() []byte { return binary.BigEndian.AppendUint64([]byte{t.flags}, t.kinds) }

func parseTouch(value []byte) (touch, bool) {
	if len(value) != 9 {
		return touch{}, false
	}
	return touch{value[0], binary.BigEndian.Uint64(value[1:])}, true
}

// parties are who a lease is between.
type parties struct {
	escrow Hash
	payee  sig.AccountID
}

// rowing makes the rows of blocks, in order. What a block's operations refer to is in the index or
// in a block of the same rowing.
type rowing struct {
	c      *Chain
	owners map[Hash]sig.AccountID // of escrows
	leases map[Hash]parties
	nodes  map[Node]Hash // by level and place; Root is zero

	// Of the transaction at hand.
	at      Place
	sender  sig.AccountID
	touches map[sig.AccountID]bool
	rows    []Row
}

func newRowing(c *Chain) *rowing {
	return &rowing{
		c: c, owners: map[Hash]sig.AccountID{}, leases: map[Hash]parties{},
		nodes: map[Node]Hash{}, touches: map[sig.AccountID]bool{},
	}
}

// block fills an entry's transactions, rows and nodes.
func (r *rowing) block(e *IndexEntry, b *block.Block, receipts [][]byte) error {
	r.rows = nil
	for i, raw := range b.Body.Transactions {
		t, err := tx.Decode(raw)
		if err != nil {
			return fmt.Errorf("transaction %d: %w", i, err)
		}
		receipt, err := tx.DecodeReceipt(receipts[i])
		if err != nil {
			return fmt.Errorf("receipt %d: %w", i, err)
		}
		e.Transactions = append(e.Transactions, Hash(t.ID(r.c.anchor)))
		r.at = Place{Height: e.Height, Index: uint32(i)}
		if err := r.transaction(t, &receipt); err != nil {
			return fmt.Errorf("transaction %d: %w", i, err)
		}
	}
	e.Rows = r.rows
	return block.Grow(e.Height, block.LeafHash(e.Hash[:]), r.node,
		func(level uint, i uint64, root tx.Hash) {
			r.nodes[Node{Level: uint8(level), I: i}] = Hash(root)
			e.Nodes = append(e.Nodes, Node{uint8(level), i, Hash(root)})
		})
}

// node returns a subtree of the list of headers that is complete.
func (r *rowing) node(level uint, i uint64) (tx.Hash, error) {
	if root, ok := r.nodes[Node{Level: uint8(level), I: i}]; ok {
		return tx.Hash(root), nil
	}
	return r.c.node(level, i)
}

// node returns a subtree of the list of headers that is indexed.
func (c *Chain) node(level uint, i uint64) (tx.Hash, error) {
	root, found, err := c.deps.Index.Node(uint8(level), i)
	if err == nil && !found {
		err = fmt.Errorf("the index lacks subtree %d of level %d of the headers", i, level)
	}
	return tx.Hash(root), err
}

func (r *rowing) transaction(t *tx.Transaction, receipt *tx.Receipt) error {
	clear(r.touches)
	sent := touch{flags: touchSent}
	for _, operation := range t.Operations {
		sent.kinds |= 1 << operation.Kind()
	}
	r.sender = t.Account
	succeeded := receipt.Status == chainv1.Status_STATUS_OK
	if !succeeded {
		sent.flags |= touchFailed
	}
	for i, operation := range t.Operations {
		if !succeeded || i >= len(receipt.Outcomes) {
			break // nothing moved but fee and nonce
		}
		r.at.Operation = uint32(i)
		if err := r.operation(operation, &receipt.Outcomes[i]); err != nil {
			return fmt.Errorf("operation %d: %w", i, err)
		}
	}
	r.at.Operation = 0
	r.add(ListAccount, Hash(t.Account), sent.value())
	named := touch{kinds: sent.kinds}
	for account := range r.touches {
		r.add(ListAccount, Hash(account), named.value())
	}
	return nil
}

func (r *rowing) add(list List, id Hash, value []byte) {
	r.rows = append(r.rows, Row{ListID{list, id}, r.at, value})
}

// name notes that the transaction names an account.
func (r *rowing) name(account sig.AccountID) {
	if account != r.sender && !account.IsZero() {
		r.touches[account] = true
	}
}

func (r *rowing) operation(operation tx.Operation, out *tx.Outcome) error {
	switch o := operation.(type) {
	case *tx.Transfer:
		r.name(o.To)
	case *tx.SetDelegate:
		r.name(sig.AccountOfKey(o.Key))
	case *tx.Spend:
		r.name(o.Order.To)
		return r.ofEscrow(Hash(o.Order.Escrow))
	case *tx.Recover:
		r.name(o.Intent.Account)
	case *tx.FinishRecovery:
		r.name(o.Account)
	case *tx.OpenEscrow:
		r.opened(o, Hash(out.Created))
	case *tx.TopUp:
		return r.ofEscrow(Hash(o.Escrow))
	case *tx.Withdraw:
		return r.ofEscrow(Hash(o.Escrow))
	case *tx.SetTerms:
		r.name(o.Terms.Assigner)
		return r.ofEscrow(Hash(o.Escrow))
	case *tx.CloseEscrow:
		return r.ofEscrow(Hash(o.Escrow))
	case *tx.Notice:
		return r.ofEscrow(Hash(o.Escrow))
	case *tx.PlaceLease:
		return r.placed(&o.Lease, Hash(out.Created))
	case *tx.Extend:
		return r.ofLease(Hash(o.Lease))
	case *tx.Charge:
		return r.charged(o, out)
	case *tx.End:
		return r.ofLease(Hash(o.Lease))
	case *tx.Accept:
		return r.ofLease(Hash(o.Lease))
	case *tx.Reject:
		return r.ofLease(Hash(o.Lease))
	case *tx.Settle:
		return r.settled(o, out)
	}
	return nil
}

func (r *rowing) opened(o *tx.OpenEscrow, id Hash) {
	r.owners[id] = r.sender
	r.name(o.Terms.Assigner)
	value := append(append(bytes.Clone(id[:]), byte(o.Purpose)), r.sender[:]...)
	r.add(ListOwner, Hash(r.sender), value)
	if len(o.Subject) == len(Hash{}) {
		r.add(ListSubject, Hash(o.Subject), value)
	}
	r.add(ListEscrow, id, bytes.Clone(r.sender[:]))
	r.add(ListEvents, id, nil)
}

// ofEscrow adds an operation to an escrow's life.
func (r *rowing) ofEscrow(id Hash) error {
	owner, err := r.owner(id)
	if err != nil {
		return err
	}
	r.name(owner)
	r.add(ListEvents, id, nil)
	return nil
}

func (r *rowing) placed(l *tx.Lease, id Hash) error {
	owner, err := r.owner(Hash(l.Escrow))
	if err != nil {
		return err
	}
	r.name(owner)
	r.name(l.Payee)
	p := parties{Hash(l.Escrow), l.Payee}
	r.leases[id] = p
	r.add(ListLease, id, append(bytes.Clone(p.escrow[:]), p.payee[:]...))
	r.add(ListLeases, p.escrow, bytes.Clone(id[:]))
	r.add(ListEvents, p.escrow, bytes.Clone(id[:]))
	return nil
}

// ofLease adds an operation on a lease to its escrow's life.
func (r *rowing) ofLease(id Hash) error {
	p, err := r.parties(id)
	if err != nil {
		return err
	}
	return r.event(p, id)
}

func (r *rowing) event(p parties, lease Hash) error {
	owner, err := r.owner(p.escrow)
	if err != nil {
		return err
	}
	r.name(owner)
	r.name(p.payee)
	r.add(ListEvents, p.escrow, bytes.Clone(lease[:]))
	return nil
}

// charged adds a charge. One of a lease that never was names nothing.
func (r *rowing) charged(o *tx.Charge, out *tx.Outcome) error {
	id := Hash(o.Note.Lease)
	if out.Bound == chainv1.Bound_BOUND_LEASE_MISSING {
		return nil
	}
	p, err := r.parties(id)
	if err != nil {
		return err
	}
	r.add(ListCharges, id, nil)
	return r.event(p, id)
}

// settled adds a settlement to the lives of the escrows that it changed. An escrow has one row for
// it, which names the lease when it was the only one.
func (r *rowing) settled(o *tx.Settle, out *tx.Outcome) error {
	changed := map[Hash]Hash{}
	several := map[Hash]bool{}
	for i, lease := range o.Leases {
		if i >= len(out.Settled) || out.Settled[i] == (tx.SettleOutcome{}) {
			continue
		}
		p, err := r.parties(Hash(lease))
		if err != nil {
			return err
		}
		_, known := changed[p.escrow]
		several[p.escrow] = several[p.escrow] || known
		changed[p.escrow] = Hash(lease)
	}
	for escrow, lease := range changed {
		owner, err := r.owner(escrow)
		if err != nil {
			return err
		}
		r.name(owner)
		value := bytes.Clone(lease[:])
		if several[escrow] {
			value = nil
		}
		r.add(ListEvents, escrow, value)
	}
	return nil
}

// owner returns who opened an escrow.
func (r *rowing) owner(escrow Hash) (sig.AccountID, error) {
	if owner, ok := r.owners[escrow]; ok {
		return owner, nil
	}
	row, found, err := r.c.birth(ListID{ListEscrow, escrow})
	if err == nil && (!found || len(row.Value) != len(sig.AccountID{})) {
		err = fmt.Errorf("the index does not know who opened escrow %x", escrow)
	}
	if err != nil {
		return sig.AccountID{}, err
	}
	owner := sig.AccountID(row.Value)
	r.owners[escrow] = owner
	return owner, nil
}

// parties returns who a lease is between.
func (r *rowing) parties(lease Hash) (parties, error) {
	if p, ok := r.leases[lease]; ok {
		return p, nil
	}
	row, found, err := r.c.birth(ListID{ListLease, lease})
	if err == nil && (!found || len(row.Value) != len(Hash{})+len(sig.AccountID{})) {
		err = fmt.Errorf("the index does not know where lease %x was placed", lease)
	}
	if err != nil {
		return parties{}, err
	}
	p := parties{Hash(row.Value[:32]), sig.AccountID(row.Value[32:])}
	r.leases[lease] = p
	return p, nil
}

// everywhere is the whole of a list.
func everywhere() Span { return Span{To: Place{Height: ^uint64(0)}} }

// birth returns the first row of a list, with a value of its own.
func (c *Chain) birth(of ListID) (row Row, found bool, err error) {
	err = c.deps.Index.List(of, everywhere(), func(first Row) bool {
		row, found = first, true
		row.Value = bytes.Clone(first.Value)
		return false
	})
	return row, found, err
}
