package schedulertest

import (
	"context"
	"fmt"
	"sync"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
)

// Hosts are executors that sign what they are asked and do what a test says.
type Hosts struct {
	// OnAsk may change or refuse the lease that is about to be signed.
	OnAsk func(h scheduler.Host, a scheduler.Ask, l *tx.Lease) error
	// OnDeliver and OnStop are called for each delivery and stop.
	OnDeliver func(h scheduler.Host, t scheduler.Task) error
	// OnTell is what a host says of an attempt when it is given the task.
	OnTell func(h scheduler.Host, t scheduler.Task) *scheduler.Report
	OnStop func(h scheduler.Host, s scheduler.Stop) error

	mu       sync.Mutex
	offers   map[sig.PublicKey]*scheduler.Offer
	asked    []sig.PublicKey
	programs map[scheduler.AttemptID]*program
}

// program is what runs at a host for an attempt, from the moment on that it was asked for.
type program struct {
	host sig.PublicKey
	job  job.ID
	run  scheduler.RunID
	slot uint32
	// continues is the attempt whose program it goes on with once it is delivered.
	continues scheduler.AttemptID
	over      bool
}

var _ scheduler.Hosts = (*Hosts)(nil)

// Know tells the hosts of the offer that one of them posted.
func (f *Hosts) Know(o *scheduler.Offer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.offers == nil {
		f.offers = map[sig.PublicKey]*scheduler.Offer{}
	}
	f.offers[o.Host.Executor] = o
}

// Asked returns which hosts were asked, in order.
func (f *Hosts) Asked() []sig.PublicKey {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]sig.PublicKey(nil), f.asked...)
}

// Hook sets hooks while hosts may be called.
func (f *Hosts) Hook(set func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	set()
}

// Ask implements scheduler.Hosts.
func (f *Hosts) Ask(
	_ context.Context, h scheduler.Host, a scheduler.Ask,
) (scheduler.SignedLease, error) {
	f.mu.Lock()
	f.asked = append(f.asked, h.Executor)
	o, hook := f.offers[h.Executor], f.OnAsk
	f.mu.Unlock()
	if o == nil {
		return scheduler.SignedLease{}, fmt.Errorf("%w: %s", scheduler.ErrUnreachable, h.Name)
	}
	t := a.Terms
	l := tx.Lease{
		Escrow: t.Escrow, Subject: t.Subject[:], Slot: t.Slot, Epoch: t.Epoch, Payee: o.Payee,
		AgentKey: h.Executor, Rate: 1, Budget: tx.Grains(t.Budget), Trust: tx.Grains(t.Trust),
		Holdback: tx.Grains(t.Holdback),
		AckKeys:  t.AckKeys, ClaimWindow: tx.Millis(t.ClaimWindow.Milliseconds()),
		PriceHash: o.Prices.Hash(), OfferHash: o.Hash,
		PlaceBy: tx.Millis(t.PlaceBy.UnixMilli()), Until: tx.Millis(t.Until.UnixMilli()),
	}
	if hook != nil {
		if err := hook(h, a, &l); err != nil {
			return scheduler.SignedLease{}, err
		}
	}
	if err := f.begin(h, a); err != nil {
		return scheduler.SignedLease{}, err
	}
	return scheduler.SignedLease{Lease: l}, nil
}

// begin notes what a host was asked for. It goes on with nothing that is not there, is over or of
// another run.
func (f *Hosts) begin(h scheduler.Host, a scheduler.Ask) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.programs == nil {
		f.programs = map[scheduler.AttemptID]*program{}
	}
	p := &program{
		host: h.Executor, job: a.Terms.Subject, run: a.Run, slot: a.Terms.Slot, continues: a.Continues,
	}
	if a.Continues != (scheduler.AttemptID{}) {
		old := f.programs[a.Continues]
		if old == nil || old.over || old.host != p.host || old.job != p.job || old.run != p.run ||
			old.slot != p.slot {
			return fmt.Errorf("%w: %w", scheduler.ErrDeclined, scheduler.ErrNotContinuable)
		}
	}
	f.programs[a.Attempt] = p
	return nil
}

// End notes that a program has ended.
func (f *Hosts) End(id scheduler.AttemptID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.programs[id]; p != nil {
		p.over = true
	}
}

// deliver hands the program over that an attempt goes on with.
func (f *Hosts) deliver(id scheduler.AttemptID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.programs[id]; p != nil && f.programs[p.continues] != nil {
		f.programs[p.continues].over = true
	}
}

// Deliver implements scheduler.Hosts.
func (f *Hosts) Deliver(
	_ context.Context, h scheduler.Host, t scheduler.Task,
) (*scheduler.Report, error) {
	f.mu.Lock()
	hook := f.OnDeliver
	f.mu.Unlock()
	if hook != nil {
		if err := hook(h, t); err != nil {
			return nil, err
		}
	}
	f.deliver(t.Attempt)
	f.mu.Lock()
	tell := f.OnTell
	f.mu.Unlock()
	if tell != nil {
		return tell(h, t), nil
	}
	return nil, nil
}

// Stop implements scheduler.Hosts.
func (f *Hosts) Stop(_ context.Context, h scheduler.Host, s scheduler.Stop) error {
	f.mu.Lock()
	hook := f.OnStop
	f.mu.Unlock()
	if hook != nil {
		if err := hook(h, s); err != nil {
			return err
		}
	}
	f.End(s.Attempt)
	return nil
}
