package scheduler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/tx"
)

// purseLife is how long what was read of an escrow may be used again while leases of other lanes
// are on their way to the chain.
const purseLife = 100 * time.Millisecond

// purses holds one purse for each escrow that something is being placed from.
type purses struct {
	mu sync.Mutex
	of map[tx.EscrowID]*purse
	// fee of a lease, grains.
	fee uint64
}

// purse shares an escrow's money among the lanes of its job that are placed at the same time. It
// knows what each was promised before its host is asked, and the escrow is never read while a lease
// is on its way: so each promise is counted once, as one or as reserved.
type purse struct {
	id    tx.EscrowID
	fee   uint64
	users int // guarded by the mutex of purses

	mu      sync.Mutex
	changed *sync.Cond
	// landing counts leases on their way, reading tells that the escrow is being read: only one of
	// the two is ever so. needed counts who waits to read; nothing more takes off meanwhile.
	landing int
	reading bool
	needed  int
	// escrow is what was read, at; version counts the readings.
	escrow  Escrow
	at      time.Time
	version uint64
	// promised is what runs were promised and the escrow, when it was read, did not hold; landed are
	// those of them that it holds now.
	promised map[RunID]promise
	landed   map[RunID]promise
}

// promise is what a lease will take of an escrow, and what superseding another gives back, as the
// escrow was in a reading: seen, at that time.
type promise struct {
	takes, frees draw
	version      uint64
	seen         Escrow
	at           time.Time
}

// draw is what a lease takes of its escrow; fee is of what the owner grants in fees, and part of
// the budget, since it is taken from the same money.
type draw struct{ budget, rate, trust, fee uint64 }

// in is what the promise takes of the escrow as it is in a reading: in a later one the lease to be
// superseded may have ended, and what it frees be free already.
func (p promise) in(version uint64) draw {
	d := p.takes
	if p.version == version {
		d.budget -= min(d.budget, p.frees.budget)
		d.rate -= min(d.rate, p.frees.rate)
		d.trust -= min(d.trust, p.frees.trust)
	}
	return d
}

// open returns the escrow's purse; close gives it back.
func (p *purses) open(id tx.EscrowID) *purse {
	p.mu.Lock()
	defer p.mu.Unlock()
	held := p.of[id]
	if held == nil {
		held = &purse{id: id, fee: p.fee, promised: map[RunID]promise{}, landed: map[RunID]promise{}}
		held.changed = sync.NewCond(&held.mu)
		if p.of == nil {
			p.of = map[tx.EscrowID]*purse{}
		}
		p.of[id] = held
	}
	held.users++
	return held
}

func (p *purses) close(held *purse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if held.users--; held.users == 0 {
		delete(p.of, held.id)
	}
}

// read returns the escrow as it stands, or stood a moment ago while leases are on their way, and
// which reading that is.
func (p *purse) read(ctx context.Context, e *Engine) (Escrow, uint64, error) {
	fresh := func() bool {
		age := e.deps.Now().Sub(p.at)
		return age >= 0 && age < purseLife
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.needed++
	for waited := false; ; waited = true {
		busy := p.reading || p.landing > 0
		if (busy || waited) && fresh() {
			p.needed--
			p.changed.Broadcast()
			return p.escrow, p.version, nil
		}
		if !busy {
			break
		}
		p.changed.Wait()
	}
	p.needed--
	p.reading = true
	p.mu.Unlock()
	escrow, err := e.deps.Ledger.Escrow(ctx, p.id)
	p.mu.Lock()
	p.reading = false
	if err == nil {
		p.escrow, p.at = escrow, e.deps.Now()
		p.version++
		clear(p.landed)
	}
	p.changed.Broadcast()
	return escrow, p.version, err
}

// take waits until the escrow is not being read and lets a lease go on its way, until land.
func (p *purse) take() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.reading || p.needed > 0 {
		p.changed.Wait()
	}
	p.landing++
}

// land tells that what became of a run's lease is known and written down, or that the job's record
// holds it as one whose fate is not.
func (p *purse) land(run RunID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.landing--
	if held, ok := p.promised[run]; ok {
		p.landed[run] = held
		delete(p.promised, run)
	}
	p.changed.Broadcast()
}

// forget takes a promise back that came to nothing.
func (p *purse) forget(run RunID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.promised, run)
}

// share is what of the escrow's money a lease for the run may promise: what the lease that it
// supersedes frees, and of what is free the same as every other lane that waits; beside what it had
// no more than an even part of all that the lanes hold, since what is free may be what another lane
// has just lost.
func (p *purse) share(j *Job, run RunID, frees uint64) uint64 {
	s := &p.escrow
	most := j.mayCost(s)
	free := min(s.Unreserved, most, s.MaxTotal-min(s.MaxTotal, s.Used))
	idle, lanes, held := uint64(1), uint64(1), uint64(0)
	for i := range j.Runs {
		r := &j.Runs[i]
		if r.ID == run || r.State == Ended {
			continue
		}
		lanes++
		takes, has := p.holds(r)
		free -= min(free, takes)
		held = addUpTo(held, has)
		if has == 0 && r.Waits() {
			idle++
		}
	}
	even := addUpTo(addUpTo(free, held), frees) / lanes
	return min(addUpTo(free/idle, frees), max(frees, even), most)
}

// mayCost is what leases of the job may promise: its max_total, and what its owner has raised that
// of the escrow by since.
func (j *Job) mayCost(s *Escrow) uint64 {
	if j.FirstTotal == 0 {
		return j.Spec.MaxTotal
	}
	return addUpTo(j.Spec.MaxTotal, s.MaxTotal-min(s.MaxTotal, j.FirstTotal))
}

// holds is what the run has of the escrow's money, promised or by its lease, the fee for that
// included, and what of it the escrow does not know as it was read.
func (p *purse) holds(r *Run) (takes, has uint64) {
	held, ok := p.promised[r.ID]
	if !ok {
		held, ok = p.landed[r.ID]
	}
	a := r.Current()
	switch {
	case ok:
		return held.in(p.version).budget, held.takes.budget
	case a == nil || a.State == Ended:
		return 0, 0
	case !a.Placed: // whose fate is not known, or of an earlier life
		has = addUpTo(uint64(a.Lease.Lease.Budget), p.fee)
		return has, has
	}
	return 0, addUpTo(uint64(a.Lease.Lease.Budget), p.fee)
}

// rateLeft is what the escrow's max_rate leaves for a run.
func (p *purse) rateLeft(run RunID, freesRate uint64) uint64 {
	used := p.escrow.Rate - min(p.escrow.Rate, freesRate)
	for _, held := range []map[RunID]promise{p.promised, p.landed} {
		for other, promised := range held {
			if other != run {
				used = addUpTo(used, promised.in(p.version).rate)
			}
		}
	}
	return p.escrow.MaxRate - min(p.escrow.MaxRate, used)
}

// trustLeft is what the escrow's trust leaves for a run.
func (p *purse) trustLeft(run RunID, freesTrust uint64) uint64 {
	used := p.escrow.Risk - min(p.escrow.Risk, freesTrust)
	for _, held := range []map[RunID]promise{p.promised, p.landed} {
		for other, promised := range held {
			if other != run {
				used = addUpTo(used, promised.in(p.version).trust)
			}
		}
	}
	return p.escrow.Trust - min(p.escrow.Trust, used)
}

// feeLeft is what the escrow's owner still grants for a lease of a run.
func (p *purse) feeLeft(run RunID) uint64 {
	s := p.escrow
	for _, held := range []map[RunID]promise{p.promised, p.landed} {
		for other, promised := range held {
			if other != run {
				s.LeaseFees = addUpTo(s.LeaseFees, promised.takes.fee)
			}
		}
	}
	return s.grants()
}

// usualTrust is what a host asks for of whom names no trust: what is due at once, and the use of a
// minute.
func usualTrust(budget, rate, upfront uint64) uint64 {
	grains, err := price.Accrued(tx.GrainsPerHour(rate), tx.Millis(time.Minute.Milliseconds()))
	if err != nil {
		return budget
	}
	return min(addUpTo(upfront, uint64(grains)), budget)
}

// funds is what a run is placed with.
type funds struct {
	purse   *purse
	escrow  Escrow
	version uint64 // of the reading of the escrow
	// old is the lease that is superseded, zero for none, and leaf what the chain holds of it, read
	// after the escrow.
	old  tx.LeaseID
	leaf tx.LeaseState
}

// errStale: the escrow was read again since the lane's last lease was: what that frees may be free
// in it already.
var errStale = fmt.Errorf("%w: it changes all the time", ErrEscrow)

// maxFunds is how often what a run can be placed with is read for one host.
const maxFunds = 3

// frees is what superseding surely frees if it is done by a time.
func (f *funds) frees(by time.Time) (d draw) {
	if f.old == (tx.LeaseID{}) {
		return d
	}
	if !f.leaf.RateFreed {
		d.rate = uint64(f.leaf.Lease.Rate)
	}
	at := tx.Millis(millis(by))
	d.budget, d.trust = uint64(price.Freed(&f.leaf, at)), uint64(price.FreedTrust(&f.leaf, at))
	return d
}

// fund reads what a run can be placed with: the escrow, and then the lane's last lease, so that
// what it left is counted once too little rather than twice.
func (e *Engine) fund(ctx context.Context, p *purse, r *Run) (*funds, error) {
	escrow, version, err := p.read(ctx, e)
	if err != nil {
		return nil, err
	}
	f, last := &funds{purse: p, escrow: escrow, version: version}, r.lastPlaced()
	if last == (tx.LeaseID{}) {
		return f, nil
	}
	state, err := e.deps.Ledger.Lease(ctx, last)
	switch {
	case err == nil && !state.Leaf.Settled && !state.Leaf.RateFreed:
		f.old, f.leaf = last, state.Leaf
	case err != nil && !errors.Is(err, ErrNotFound):
		return nil, fmt.Errorf("look at the lane's last lease: %w", err)
	}
	return f, nil
}

// lastPlaced is the lane's newest lease that was placed, zero for none. Records of before it was
// kept have it in their attempts.
func (r *Run) lastPlaced() tx.LeaseID {
	last := r.Lease
	for i := range r.Attempts {
		if a := &r.Attempts[i]; r.Lease == (tx.LeaseID{}) && a.Placed {
			last = a.Lease.ID
		}
	}
	return last
}
