package schedulertest

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
)

// Assigner is the account that the fakes' escrows name as assigner.
func Assigner() sig.AccountID { return sig.AccountID{0xaa} }

// Ledger is a chain in memory. Its fields may be set before it is used.
type Ledger struct {
	// Fail is asked at the beginning of each call but Now with the method's name.
	Fail func(method string) error
	// FailNow is asked for Now, which is called again and again: set it before the ledger is used.
	FailNow func() error
	// FailAfter is asked after a call took effect.
	FailAfter func(method string) error

	hooks sync.Mutex // guards them while the ledger may be called

	mu      sync.Mutex
	escrows map[tx.EscrowID]scheduler.Escrow
	leases  map[tx.LeaseID]scheduler.LeaseState
	placed  int
	refused int
	terms   map[tx.LeaseID]Paid
	now     func() time.Time

	// Fees that escrows which are funded from now on grant in all; 0 is more than any job takes.
	Fees uint64
	// MaxTotal of escrows that are funded from now on; 0 is more than any job may cost.
	MaxTotal uint64
}

var _ scheduler.Ledger = (*Ledger)(nil)

// NewLedger returns a chain without escrows.
func NewLedger(now func() time.Time) *Ledger {
	return &Ledger{
		escrows: map[tx.EscrowID]scheduler.Escrow{},
		leases:  map[tx.LeaseID]scheduler.LeaseState{},
		terms:   map[tx.LeaseID]Paid{},
		now:     now,
	}
}

// Fund opens an escrow that pays for the job and names it in the job.
func (l *Ledger) Fund(j *scheduler.Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	j.Escrow = tx.EscrowID(j.ID)
	l.escrows[j.Escrow] = scheduler.Escrow{
		Owner: j.Owner, ForJob: true, Subject: j.ID, Assigner: Assigner(),
		AckKeys: []sig.PublicKey{{1}}, Unreserved: 1_000_000_000, MaxRate: 1 << 60,
		MaxTotal: cmp.Or(l.MaxTotal, 1<<60), Trust: 1 << 60, Expires: l.now().Add(72 * time.Hour),
		Deadline: uint64(l.now().Add(72 * time.Hour).UnixMilli()),
		LeaseFee: scheduler.DefaultLeaseFee, LeaseFeeTotal: cmp.Or(l.Fees, 1<<60),
	}
}

// Change lets a test spoil an escrow.
func (l *Ledger) Change(id tx.EscrowID, fn func(*scheduler.Escrow)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changeHeld(id, fn)
}

func (l *Ledger) changeHeld(id tx.EscrowID, fn func(*scheduler.Escrow)) {
	s := l.escrows[id]
	fn(&s)
	l.escrows[id] = s
}

// Placed returns how many leases were placed, Open how many of them have not ended.
func (l *Ledger) Placed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.placed
}

// Open returns how many leases have not ended.
func (l *Ledger) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	open := 0
	for _, s := range l.leases {
		if s.Ended.IsZero() {
			open++
		}
	}
	return open
}

// Hook sets hooks while the ledger may be called.
func (l *Ledger) Hook(set func()) {
	l.hooks.Lock()
	defer l.hooks.Unlock()
	set()
}

func (l *Ledger) fail(method string) error {
	l.hooks.Lock()
	hook := l.Fail
	l.hooks.Unlock()
	if hook != nil {
		return hook(method)
	}
	return nil
}

func (l *Ledger) failAfter(method string) error {
	l.hooks.Lock()
	hook := l.FailAfter
	l.hooks.Unlock()
	if hook != nil {
		return hook(method)
	}
	return nil
}

// Now implements scheduler.Ledger.
func (l *Ledger) Now(context.Context) (time.Time, error) {
	if l.FailNow == nil {
		return l.now(), nil
	}
	return l.now(), l.FailNow()
}

// Escrow implements scheduler.Ledger.
func (l *Ledger) Escrow(_ context.Context, id tx.EscrowID) (scheduler.Escrow, error) {
	if err := l.fail("Escrow"); err != nil {
		return scheduler.Escrow{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.escrows[id]
	if !ok {
		return s, scheduler.ErrNotFound
	}
	return s, nil
}

// Lease implements scheduler.Ledger.
func (l *Ledger) Lease(_ context.Context, id tx.LeaseID) (scheduler.LeaseState, error) {
	if err := l.fail("Lease"); err != nil {
		return scheduler.LeaseState{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.leases[id]
	if !ok {
		return s, scheduler.ErrNotFound
	}
	return s, nil
}

// Leases implements scheduler.Ledger.
func (l *Ledger) Leases(
	_ context.Context, ids []tx.LeaseID,
) (map[tx.LeaseID]scheduler.LeaseState, error) {
	if err := l.fail("Leases"); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[tx.LeaseID]scheduler.LeaseState{}
	for _, id := range ids {
		if s, ok := l.leases[id]; ok {
			out[id] = s
		}
	}
	return out, nil
}

// PlaceLease implements scheduler.Ledger.
func (l *Ledger) PlaceLease(_ context.Context, s scheduler.SignedLease, fee uint64) error {
	if err := l.fail("PlaceLease"); err != nil {
		return err
	}
	if err := l.place(s, fee); err != nil {
		return err
	}
	return l.failAfter("PlaceLease")
}

func (l *Ledger) place(s scheduler.SignedLease, fee uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.leases[s.ID]; !ok {
		if err := l.supersede(&s.Lease); err != nil {
			return err
		}
		if err := l.reserve(&s.Lease, fee); err != nil {
			return err
		}
		l.terms[s.ID] = Paid{
			Escrow: s.Lease.Escrow, Slot: s.Lease.Slot, Epoch: s.Lease.Epoch, From: l.now(),
		}
		until := time.UnixMilli(int64(s.Lease.Until))
		l.leases[s.ID] = scheduler.LeaseState{
			Until: until, Claimable: until.Add(windowOf(s)), Leaf: tx.LeaseState{
				Lease: s.Lease, From: l.millis(), Budget: s.Lease.Budget, Until: s.Lease.Until,
			},
		}
		l.placed++
	}
	return nil
}

func windowOf(s scheduler.SignedLease) time.Duration {
	return time.Duration(s.Lease.ClaimWindow) * time.Millisecond
}

// Settle implements scheduler.Ledger: it settles what may not be charged any more.
func (l *Ledger) Settle(_ context.Context, leases []tx.LeaseID) error {
	if err := l.fail("Settle"); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range leases {
		if s, ok := l.leases[id]; ok && !l.now().Before(s.Claimable) {
			l.settle(&s)
			l.leases[id] = s
		}
		if s, ok := l.leases[id]; ok && s.Settled {
			if l.millis() > s.Leaf.Lease.PlaceBy {
				paid := l.terms[id]
				paid.End = s.Ended
				l.terms[id] = paid
				delete(l.leases, id)
			}
		}
	}
	return l.failAfter("Settle")
}

// Charged notes the final charge of a lease, of which something may be held back.
func (l *Ledger) Charged(id tx.LeaseID, held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.leases[id]
	if l.settle(&s); held {
		s.Leaf.Withheld = 1
	}
	l.leases[id] = s
}

// Leaves returns how many leases the chain holds.
func (l *Ledger) Leaves() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.leases)
}

// Final is a host's final charge: the lease ends, if it had not, and is settled.
func (l *Ledger) Final(id tx.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.leases[id]
	if !ok {
		return
	}
	if l.settle(&s); s.Ended.IsZero() {
		s.Ended = l.now()
	}
	l.leases[id] = s
}

// Unsettled returns how many leases are not settled.
func (l *Ledger) Unsettled() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.leases {
		if !s.Settled {
			n++
		}
	}
	return n
}

// supersede ends the leases of a lane before the one with a higher epoch begins. The caller holds
// mu.
func (l *Ledger) supersede(next *tx.Lease) error {
	for id, held := range l.terms {
		if held.Escrow != next.Escrow || held.Slot != next.Slot {
			continue
		}
		if held.Epoch >= next.Epoch {
			return fmt.Errorf("%w: its epoch is not higher", scheduler.ErrLeaseRefused)
		}
		if s, there := l.leases[id]; there && s.Ended.IsZero() {
			l.over(id)
		}
	}
	return nil
}

// over ends a lease and frees what cannot be paid on it any more. The caller holds mu.
func (l *Ledger) over(id tx.LeaseID) {
	s := l.leases[id]
	terms := &s.Leaf.Lease
	free, trust := uint64(price.Freed(&s.Leaf, l.millis())), price.FreedTrust(&s.Leaf, l.millis())
	l.changeHeld(terms.Escrow, func(e *scheduler.Escrow) {
		e.Unreserved, e.Used, e.Rate = e.Unreserved+free, e.Used-free, e.Rate-uint64(terms.Rate)
		e.Risk -= min(e.Risk, uint64(trust))
	})
	s.Claimable, s.Ended = s.Claimable.Add(l.now().Sub(s.Until)), l.now()
	s.Leaf.End, s.Leaf.RateFreed = l.millis(), true
	l.leases[id] = s
}

// reserve takes what a lease may be paid, and the fee for it, from what its escrow has free. The
// caller holds mu.
func (l *Ledger) reserve(lease *tx.Lease, fee uint64) error {
	e := l.escrows[lease.Escrow]
	budget, rate, trust := uint64(lease.Budget)+fee, uint64(lease.Rate), uint64(lease.Trust)
	reason := ""
	switch {
	case budget > e.Unreserved:
		reason = "UNRESERVED_TOO_LOW"
	case e.Used+budget > e.MaxTotal:
		reason = "MAX_TOTAL"
	case e.Rate+rate > e.MaxRate:
		reason = "MAX_RATE"
	case e.Risk+trust > e.Trust:
		reason = "TRUST_EXCEEDED"
	case fee > e.LeaseFee:
		reason = "LEASE_FEE"
	case e.LeaseFees+fee > e.LeaseFeeTotal:
		reason = "LEASE_FEE_TOTAL"
	}
	if reason != "" {
		l.refused++
		return fmt.Errorf("%w: %w: %s", scheduler.ErrNotPlaced, scheduler.ErrEscrow, reason)
	}
	l.changeHeld(lease.Escrow, func(e *scheduler.Escrow) {
		e.Unreserved, e.Used, e.Rate = e.Unreserved-budget, e.Used+budget, e.Rate+rate
		e.Risk, e.LeaseFees = e.Risk+trust, e.LeaseFees+fee
	})
	return nil
}

// settle notes that a lease is charged no more, which frees what its end left of its trust. The
// caller holds mu.
func (l *Ledger) settle(s *scheduler.LeaseState) {
	if s.Settled {
		return
	}
	s.Settled = true
	left := s.Leaf.Lease.Trust
	if ended := s.Leaf; ended.RateFreed {
		ended.RateFreed = false
		left -= price.FreedTrust(&ended, ended.End)
	}
	l.changeHeld(s.Leaf.Lease.Escrow, func(e *scheduler.Escrow) {
		e.Risk -= min(e.Risk, uint64(left))
	})
}

// Refused returns how many leases had no room in their escrow.
func (l *Ledger) Refused() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

func (l *Ledger) millis() tx.Millis { return tx.Millis(l.now().UnixMilli()) }

// Paid is an interval in which a lease of a lane may be charged.
type Paid struct {
	Escrow tx.EscrowID
	Slot   uint32
	Epoch  uint64
	From   time.Time
	End    time.Time // zero = until the lease's own end
}

// Paid returns the intervals of all leases that were placed, in no order.
func (l *Ledger) Paid() []Paid {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Paid
	for id, p := range l.terms {
		if s, ok := l.leases[id]; ok {
			p.End = s.Ended
		}
		out = append(out, p)
	}
	return out
}

// EndLease implements scheduler.Ledger.
func (l *Ledger) EndLease(_ context.Context, id tx.LeaseID) error {
	if err := l.fail("EndLease"); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.leases[id]
	if !ok {
		return scheduler.ErrNotFound
	}
	if s.Ended.IsZero() {
		l.over(id)
	}
	return l.failAfter("EndLease")
}

// VerifyLease stands in for the signature check: the id is made of the lease's terms.
func VerifyLease(l *tx.Lease, _ sig.Signature) (tx.LeaseID, error) {
	return l.ID(sig.Anchor{}), nil
}

// NewOffer builds a live offer of host n at a price per core hour.
func NewOffer(n byte, coreHour uint64, now time.Time) *scheduler.Offer {
	big := price.Resources{CPUMilli: 4000, Memory: 8 << 30, Disk: 100 << 30}
	return &scheduler.Offer{
		Host: scheduler.Host{
			Executor: sig.PublicKey{n}, Operator: sig.AccountID{0xb0, n},
			Name: fmt.Sprintf("host-%d", n),
		},
		Payee: sig.AccountID{0xb0, n}, Hash: [32]byte{n}, Posted: now,
		Expires: now.Add(5 * time.Minute), Prices: price.Prices{Model: price.Linear, CoreHour: coreHour},
		Free: big, Total: big, Platforms: []string{"linux/amd64"}, Standard: true, Strict: true,
		Chains: []string{"main"},
	}
}
