// Package bill finds out from a chain what an owner paid for a job, and proves it: every charge
// of the job's leases, and every fee for placing one, with its transaction, block, and receipt,
// each verified against a certified header and the genesis, without trust in the ledger that
// answers.
//
// Charges are found by the ledger's list of what happened to the escrow, or, where a ledger keeps
// none, in the blocks. A ledger that leaves charges out is found out by the escrow's own sum.
package bill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/proof"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// Bounds of one search.
const (
	MaxBlocks = 20_000 // looked through where the ledger has no list
	MaxPages  = 10_000 // of the list
	pageSize  = 1000
)

// Errors of a search.
var (
	ErrTooFar  = errors.New("too many blocks to look through")
	ErrLies    = errors.New("the ledger's proof does not hold")
	ErrNoIndex = errors.New("the ledger keeps no list of what happened to an escrow")
)

// Ledger is what a search reads; Client is one. Every method may be called again after it failed.
type Ledger interface {
	Head(ctx context.Context) (uint64, error)
	Block(ctx context.Context, height uint64) (*chainv1.Block, error)
	Transaction(ctx context.Context, id tx.ID) (*ledgerv1.GetTransactionResponse, error)
	// Events is a page of what happened to an escrow and its leases, oldest first: "" is the first
	// page, and the next of the last one. It fails while the list does not reach the height upto;
	// ErrNoIndex: there is none.
	Events(ctx context.Context, escrow tx.EscrowID, upto uint64, page string) (
		list []*ledgerv1.EscrowEvent, next string, err error)
}

// Search says what is looked for.
type Search struct {
	Escrow tx.EscrowID
	Owner  sig.AccountID
	Leases []tx.LeaseID
	// From is a height at or before the escrow's opening.
	From uint64
}

// Found is what a search found.
type Found struct {
	// Charges in their order. Every one was proven to stand in a certified block with its receipt.
	Charges []Charge
	// Placed are the leases under the escrow for which a fee was taken, proven likewise.
	Placed []Placed
	// Own are transactions that the ledger says the owner sent about the escrow: not proven, and
	// empty where the ledger keeps no list.
	Own []tx.ID
}

// Charge is one charge of a lease as the chain executed it.
type Charge struct {
	Transaction tx.ID
	Height      uint64
	// Time of the block.
	Time  tx.Millis
	Lease tx.LeaseID
	Note  tx.Note
	Final bool
	// Countersigned says that the owner acknowledged this very note.
	Countersigned bool
	// Paid is what this charge moved; Unpaid what the note asks beyond it, because of Bound.
	Paid   tx.Grains
	Unpaid tx.Grains
	Bound  chainv1.Bound
}

// Placed is a lease as it was placed.
type Placed struct {
	Transaction tx.ID
	Lease       tx.LeaseID
	// Fee is what the assigner took from the escrow for it.
	Fee tx.Grains
}

// Charges returns every charge of the leases up to now. With an error comes what was found before
// it. Errors wrap ErrTooFar, ErrLies, or are the ledger's.
func Charges(ctx context.Context, l Ledger, trust proof.Trust, s Search) (Found, error) {
	wanted := make(map[tx.LeaseID]bool, len(s.Leases))
	for _, lease := range s.Leases {
		wanted[lease] = true
	}
	head, err := l.Head(ctx)
	if err != nil {
		return Found{}, err
	}
	w := search{l, trust, s, wanted, head}
	found, err := w.listed(ctx)
	if errors.Is(err, ErrNoIndex) {
		return w.inBlocks(ctx)
	}
	return found, err
}

// search is one on its way, up to a height.
type search struct {
	Ledger
	trust proof.Trust
	Search
	wanted map[tx.LeaseID]bool
	head   uint64
}

// listed finds charges by the ledger's list.
func (s *search) listed(ctx context.Context) (found Found, err error) {
	seen := map[tx.ID]bool{}
	page := ""
	for range MaxPages {
		list, next, err := s.Events(ctx, s.Escrow, s.head, page)
		if err != nil {
			return found, err
		}
		for _, e := range list {
			if len(e.GetTransaction()) != len(tx.ID{}) {
				return found, fmt.Errorf("%w: a transaction without id", ErrLies)
			}
			id := tx.ID(e.GetTransaction())
			if len(e.GetLease()) == 0 && bytes.Equal(e.GetAccount(), s.Owner[:]) &&
				!slices.Contains(found.Own, id) {
				found.Own = append(found.Own, id)
			}
			o := e.GetOperation()
			if o.GetCharge() == nil && o.GetPlaceLease().GetFee() == 0 || seen[id] {
				continue
			}
			seen[id] = true
			if err := s.proven(ctx, id, &found); err != nil {
				return found, err
			}
		}
		if page = next; page == "" {
			return found, nil
		}
	}
	return found, fmt.Errorf("%w: the list has more than %d pages", ErrTooFar, MaxPages)
}

// inBlocks finds charges by reading every block.
func (s *search) inBlocks(ctx context.Context) (found Found, err error) {
	if s.head >= s.From && s.head-s.From >= MaxBlocks {
		return found, fmt.Errorf("%w: from %d to %d", ErrTooFar, s.From, s.head)
	}
	for height := s.From; height <= s.head; height++ {
		b, err := s.Block(ctx, height)
		if err != nil {
			return found, err
		}
		for _, raw := range b.GetBody().GetTransactions() {
			if err := s.inTransaction(ctx, raw, &found); err != nil {
				return found, fmt.Errorf("block %d: %w", height, err)
			}
		}
	}
	return found, nil
}

// inTransaction adds what one transaction of a block charged or took, proven.
func (s *search) inTransaction(ctx context.Context, raw []byte, found *Found) error {
	t, err := tx.Decode(raw)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLies, err)
	}
	if !slices.ContainsFunc(t.Operations, s.wants) {
		return nil
	}
	return s.proven(ctx, t.ID(s.trust.Anchor), found)
}

// proven adds what a transaction charged or took, proven.
func (s *search) proven(ctx context.Context, id tx.ID, found *Found) error {
	answer, err := s.Transaction(ctx, id)
	if err != nil {
		return err
	}
	p, err := Verify(answer.GetProof(), s.trust)
	if err != nil {
		return err
	}
	if p.ID != id || len(p.Receipt.Outcomes) > len(p.Transaction.Operations) {
		return fmt.Errorf("%w: it is about another transaction", ErrLies)
	}
	for i := range p.Receipt.Outcomes {
		if !s.wants(p.Transaction.Operations[i]) {
			continue
		}
		out := &p.Receipt.Outcomes[i]
		switch o := p.Transaction.Operations[i].(type) {
		case *tx.Charge:
			found.Charges = append(found.Charges, Charge{
				Transaction: id, Height: p.Header.Height, Time: p.Header.Time,
				Lease: o.Note.Lease, Note: o.Note, Final: o.Final,
				Countersigned: !o.Countersignature.IsZero(),
				Paid:          out.Amount, Unpaid: out.Unpaid, Bound: out.Bound,
			})
		case *tx.PlaceLease:
			found.Placed = append(found.Placed, Placed{id, tx.LeaseID(out.Created), out.Amount})
		}
	}
	return nil
}

// wants tells whether an operation cost the escrow something that is looked for.
func (s *search) wants(operation tx.Operation) bool {
	switch o := operation.(type) {
	case *tx.Charge:
		return s.wanted[o.Note.Lease]
	case *tx.PlaceLease:
		return o.Fee > 0 && o.Lease.Escrow == s.Escrow
	}
	return false
}

// Verify checks a proof as it came in a message. Errors wrap ErrLies and the cause.
func Verify(m *chainv1.TransactionProof, trust proof.Trust) (proof.Proven, error) {
	raw, err := canon.Marshal(m)
	if err != nil {
		return proof.Proven{}, fmt.Errorf("%w: %w", ErrLies, err)
	}
	proven, err := proof.VerifyTransaction(raw, trust)
	if err != nil {
		return proof.Proven{}, fmt.Errorf("%w: %w", ErrLies, err)
	}
	return proven, nil
}

// Sum adds up what the charges paid.
func Sum(charges []Charge) (total tx.Grains) {
	for _, c := range charges {
		total += c.Paid
	}
	return total
}

// Fees adds up what was taken for leases.
func Fees(placed []Placed) (total tx.Grains) {
	for _, p := range placed {
		total += p.Fee
	}
	return total
}

// Client reads through a ledger's gRPC service.
type Client struct {
	Service ledgerv1.LedgerServiceClient
	Chain   string
}

var _ Ledger = Client{}

// Head implements Ledger.
func (c Client) Head(ctx context.Context) (uint64, error) {
	r, err := c.Service.GetChain(ctx, &ledgerv1.GetChainRequest{Chain: c.Chain})
	if err != nil {
		return 0, fmt.Errorf("read the chain: %w", err)
	}
	return r.GetHead().GetHeight(), nil
}

// Block implements Ledger.
func (c Client) Block(ctx context.Context, height uint64) (*chainv1.Block, error) {
	r, err := c.Service.GetBlock(ctx, &ledgerv1.GetBlockRequest{Chain: c.Chain, Height: height})
	if err != nil {
		return nil, fmt.Errorf("read block %d: %w", height, err)
	}
	return r.GetBlock(), nil
}

// Transaction implements Ledger.
func (c Client) Transaction(
	ctx context.Context, id tx.ID,
) (*ledgerv1.GetTransactionResponse, error) {
	r, err := c.Service.GetTransaction(ctx, &ledgerv1.GetTransactionRequest{
		Chain: c.Chain, Id: id[:], Prove: true,
	})
	if err != nil {
		return nil, fmt.Errorf("read transaction %s: %w", id, err)
	}
	return r, nil
}

// Events implements Ledger.
func (c Client) Events(
	ctx context.Context, escrow tx.EscrowID, upto uint64, page string,
) (list []*ledgerv1.EscrowEvent, next string, err error) {
	r, err := c.Service.ListEscrowEvents(ctx, &ledgerv1.ListEscrowEventsRequest{
		Chain: c.Chain, Escrow: escrow[:], Order: ledgerv1.Order_ORDER_OLDEST,
		PageSize: pageSize, PageToken: page,
	})
	switch {
	case fault.ReasonOf(err) == "NO_INDEX" || fault.KindOf(err) == fault.Unimplemented:
		return nil, "", fmt.Errorf("%w: %w", ErrNoIndex, err)
	case err != nil:
		return nil, "", fmt.Errorf("read what happened to the escrow: %w", err)
	case r.GetIndexed() < upto:
		return nil, "", fault.New(fault.Unavailable, "INDEX_BEHIND",
			"the ledger's list of charges reaches block %d of %d", r.GetIndexed(), upto)
	}
	return r.GetEvents(), r.GetNextPageToken(), nil
}
