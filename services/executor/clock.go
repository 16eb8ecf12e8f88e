package executor

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// How the host's clock is compared with its first chain's.
const (
	// maxApart is how far the clocks may be apart for new work to be taken: tokens and messages are
	// judged by the own clock.
	maxApart = 10 * time.Minute
	// apart is how far they may be for the own clock to be gone by, together how near again.
	apart    = 30 * time.Second
	together = 10 * time.Second
	// maxChainAhead is how far ahead of the own clock a chain's is gone by.
	maxChainAhead = 24 * time.Hour
	// compareEvery is the time between two looks, compareSoon while there was none.
	compareEvery = time.Minute
	compareSoon  = 2 * time.Second
	// compareWithin bounds the first look, which a start waits for, and every other.
	compareWithin = time.Second
	// unknownFor is how long after its start a host that could not ask the chain yet keeps what is
	// over by its own clock alone.
	unknownFor = 10 * time.Minute
)

// dial tells the time: by the own clock or, while that is far from the chain's, by the chain's. A
// clock may be wrong by days when the process begins, and what runs here is paid by the chain's:
// by a clock that is ahead all leases would be over, and their programs ended. The chain's is
// believed, as it is for money.
type dial struct {
	own func() time.Time
	// off is by how much the own clock is ahead, ns; 0 while it is gone by.
	off atomic.Int64
	// ahead is by how much it was ahead at the last look, ns.
	ahead atomic.Int64
	known atomic.Bool // there was a look
	began time.Time
}

func (d *dial) now() time.Time { return d.own().Add(-time.Duration(d.off.Load())) }

// set compares the own clock with the chain's.
func (d *dial) set(chain time.Time) {
	away, off := d.own().Sub(chain), time.Duration(d.off.Load())
	d.ahead.Store(int64(away))
	next := time.Duration(0)
	switch {
	case away < -maxChainAhead, away.Abs() <= together:
	case away.Abs() > apart || off != 0:
		next = away
	}
	if moved := next - off; next == 0 || moved.Abs() > together {
		d.off.Store(int64(next))
	}
	d.known.Store(true) // at last: see sure
}

// wrong tells whether the clocks are too far apart for new work.
func (d *dial) wrong() bool { return time.Duration(d.ahead.Load()).Abs() > maxApart }

// sure tells whether something is over that is so by now, if asked before now: not while the own
// clock may be wrong and nobody could be asked yet.
func (d *dial) sure() bool { return d.known.Load() || d.own().Sub(d.began) > unknownFor }

// words says how the clocks differ, empty: hardly.
func (d *dial) words() string {
	away := time.Duration(d.ahead.Load()).Round(time.Second)
	if away.Abs() <= together {
		return ""
	}
	side := "ahead of"
	if away < 0 {
		side = "behind"
	}
	s := fmt.Sprintf("this host's clock is %v %s the chain's", away.Abs(), side)
	if d.wrong() {
		return s + ": it takes no new work until the clock is set and the executor started anew"
	}
	return s + fmt.Sprintf("; beyond %v it takes no new work", maxApart)
}

// compare looks at the chain's clock.
func (a *Agent) compare(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, compareWithin)
	defer cancel()
	t, err := a.deps.Ledger.Time(ctx, a.cfg.Chains[0])
	if err != nil || t.Now.IsZero() {
		return // it is away, as others will notice
	}
	was := a.dial.wrong()
	a.dial.set(t.Now)
	if a.dial.wrong() != was {
		a.offerChanged()
	}
}

// checkClock declines while the clock is wrong: what is asked for and promised is told in times.
func (a *Agent) checkClock(*Ask) *Decline {
	if !a.dial.wrong() {
		return nil
	}
	return declined(DeclineClock, "%s", a.dial.words())
}
