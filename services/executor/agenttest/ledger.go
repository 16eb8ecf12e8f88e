package agenttest

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/executor"
)

// Ledger is a chain that knows leases, escrows and charges, with the rules of payment of the real
// one. Everything on it is committed at once.
type Ledger struct {
	now    func() time.Time
	anchor sig.Anchor

	mu      sync.Mutex // guards all below
	hook    Hook
	leases  map[executor.LeaseID]*Lease
	escrows map[executor.EscrowID]executor.Escrow
	stood   time.Duration // in which the chain made no blocks
	lock    uint64        // grains that open a payee's account; 0: all payees have one
	early   int           // leases that were settled before silence had accepted
}

// Lease is a lease on the chain of a Ledger.
type Lease struct {
	Terms executor.Lease
	From  time.Time
	End   time.Time
	// AccrualFrom is From by the accrual clock.
	AccrualFrom time.Time
	Paid        uint64
	Acked       uint64
	Settled     bool
	Charges     int
	Held        uint64           // withheld for the owner's word
	By          executor.LeaseID // newest lease of its lane; zero: itself
}

var _ executor.Ledger = (*Ledger)(nil)

// NewLedger returns an empty chain with the anchor and the clock given.
func NewLedger(anchor sig.Anchor, now func() time.Time) *Ledger {
	return &Ledger{
		now: now, anchor: anchor, leases: map[executor.LeaseID]*Lease{},
		escrows: map[executor.EscrowID]executor.Escrow{},
	}
}

// SetHook replaces the hook.
func (l *Ledger) SetHook(h Hook) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hook = h
}

// Open opens an escrow.
func (l *Ledger) Open(id executor.EscrowID, e executor.Escrow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.escrows[id] = e
}

// Place places a lease; it checks the agent's signature.
func (l *Ledger) Place(s executor.SignedLease) error {
	preimage := s.Lease.TX().Preimage(l.anchor)
	if !sig.Verify(s.Lease.Agent, preimage, s.Signature) {
		return sig.ErrSignature
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, other := range l.leases { // a higher epoch of a lane ends the lower ones
		if sameLane(&other.Terms, &s.Lease) && other.Terms.Epoch < s.Lease.Epoch {
			if other.End.IsZero() {
				other.End = l.now()
			}
			other.By = s.ID
		}
	}
	l.leases[s.ID] = &Lease{Terms: s.Lease, From: l.now(), AccrualFrom: l.accrual()}
	return nil
}

func sameLane(a, b *executor.Lease) bool { return a.Escrow == b.Escrow && a.Slot == b.Slot }

// Lock says that no payee has an account, and that it takes so many grains to open one; 0 opens
// all.
func (l *Ledger) Lock(grains uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lock = grains
}

// End ends a lease, as owner or assigner do.
func (l *Ledger) End(id executor.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leases[id].End = l.now()
}

// Read returns a copy of a lease; zero when it was never placed.
func (l *Ledger) Read(id executor.LeaseID) Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	if have := l.leases[id]; have != nil {
		return *have
	}
	return Lease{}
}

// Lease implements executor.Ledger.
func (l *Ledger) Lease(
	_ context.Context, _ string, id executor.LeaseID,
) (executor.LeaseState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, after := l.hook.ask("Lease")
	have := l.leases[id]
	switch {
	case before != nil:
		return executor.LeaseState{}, before
	case have == nil:
		return executor.LeaseState{}, executor.ErrNoLease
	}
	return executor.LeaseState{
		Leaf: have.leaf(), From: have.From, Until: time.UnixMilli(int64(have.Terms.Until)), End: have.End,
		Budget: have.Terms.Budget, Paid: have.Paid, Settled: have.Settled, Withheld: have.Held,
		SilenceOver: l.silenceOver(have), SupersededBy: have.By,
	}, after
}

// leaf is the lease as the real chain tells it.
func (l *Lease) leaf() tx.LeaseState {
	s := tx.LeaseState{
		Lease: *l.Terms.TX(), From: tx.Millis(l.From.UnixMilli()), Budget: tx.Grains(l.Terms.Budget),
		Until: tx.Millis(l.Terms.Until), Paid: tx.Grains(l.Paid), Settled: l.Settled,
	}
	if !l.End.IsZero() {
		s.End, s.RateFreed = tx.Millis(l.End.UnixMilli()), true
	}
	return s
}

// silenceOver is when, by the accrual clock, silence has accepted.
func (l *Ledger) silenceOver(have *Lease) time.Time {
	end := time.UnixMilli(int64(have.Terms.Until))
	if !have.End.IsZero() {
		end = have.End
	}
	return have.AccrualFrom.Add(end.Sub(have.From) + 24*time.Hour)
}

// Stand says that the chain made no blocks for a while, until now.
func (l *Ledger) Stand(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stood += d
}

// Early returns how many leases a host asked to settle in vain.
func (l *Ledger) Early() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.early
}

func (l *Ledger) accrual() time.Time { return l.now().Add(-l.stood) }

// Time implements executor.Ledger.
func (l *Ledger) Time(context.Context, string) (executor.ChainTime, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, after := l.hook.ask("Time")
	if before != nil {
		return executor.ChainTime{}, before
	}
	now := l.now()
	return executor.ChainTime{Block: now, Now: now, Accrual: l.accrual()}, after
}

// AccountOf implements executor.Ledger: unless Lock says otherwise, all accounts have enough.
func (l *Ledger) AccountOf(
	context.Context, string, sig.AccountID,
) (executor.AccountState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, after := l.hook.ask("AccountOf")
	if before != nil || l.lock > 0 {
		return executor.AccountState{}, before
	}
	return executor.AccountState{Exists: true, Balance: 1 << 40}, after
}

// Escrow implements executor.Ledger.
func (l *Ledger) Escrow(
	_ context.Context, _ string, id executor.EscrowID,
) (executor.Escrow, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, after := l.hook.ask("Escrow")
	have, ok := l.escrows[id]
	switch {
	case before != nil:
		return executor.Escrow{}, before
	case !ok:
		return executor.Escrow{}, executor.ErrNoEscrow
	}
	return have, after
}

// Charge implements executor.Ledger.
func (l *Ledger) Charge(
	_ context.Context, _ string, charges []executor.Charge,
) ([]executor.Charged, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, after := l.hook.ask("Charge")
	if before != nil {
		return nil, before
	}
	var results []executor.Charged
	for i := range charges {
		paid, err := l.pay(&charges[i])
		if err != nil {
			return nil, err
		}
		results = append(results, paid)
	}
	return results, after
}

// pay follows docs/domain.md section 3.
func (l *Ledger) pay(c *executor.Charge) (executor.Charged, error) {
	note := c.Note.Note
	have := l.leases[note.Lease]
	if have == nil {
		return executor.Charged{Bound: "no lease"}, nil
	}
	t := &have.Terms
	if !sig.Verify(t.Agent, note.TX().Preimage(l.anchor), c.Note.Signature) {
		return executor.Charged{}, fmt.Errorf("note: %w", sig.ErrSignature)
	}
	if c.Ack != nil {
		ack := note.TX().AckPreimage(l.anchor)
		if c.Ack.Note != note || !sig.Verify(t.AckKeys[c.Ack.Index], ack, c.Ack.Signature) {
			return executor.Charged{}, fmt.Errorf("countersignature: %w", sig.ErrSignature)
		}
		have.Acked = max(have.Acked, note.Cumulative)
	}
	have.Charges++
	if have.Settled {
		return executor.Charged{Bound: "settled"}, nil
	}
	payable := min(note.Cumulative, l.accrued(have, note.Upto), t.Budget)
	payable = min(payable, have.Acked+t.Trust)
	payable = max(payable, have.Paid+have.Held)
	held := max(have.Held, min(t.Holdback, payable))
	paid := payable - held - min(have.Paid, payable-held)
	if paid > 0 && have.Paid == 0 && paid < l.lock {
		return executor.Charged{Bound: executor.BoundPayeeLock}, nil
	}
	have.Held = held
	have.Paid += paid
	if c.Final {
		have.Settled = true
		if have.End.IsZero() {
			have.End = l.now()
		}
	}
	return executor.Charged{Paid: paid}, nil
}

// Settle implements executor.Ledger.
func (l *Ledger) Settle(_ context.Context, _ string, leases []executor.LeaseID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, after := l.hook.ask("Settle")
	if before != nil {
		return before
	}
	for _, id := range leases {
		have := l.leases[id]
		switch {
		case have == nil:
		case l.accrual().Before(l.silenceOver(have)):
			l.early++
		default:
			have.Paid, have.Held = have.Paid+have.Held, 0
		}
	}
	return after
}

func (l *Ledger) accrued(have *Lease, upto uint64) uint64 {
	end := l.now()
	if !have.End.IsZero() {
		end = have.End
	}
	upto = min(upto, uint64(end.UnixMilli()), have.Terms.Until)
	span := upto - min(uint64(have.From.UnixMilli()), upto)
	grains, err := price.Accrued(tx.GrainsPerHour(have.Terms.Rate), tx.Millis(span))
	if err != nil {
		return math.MaxUint64
	}
	return have.Terms.Upfront + uint64(grains)
}
