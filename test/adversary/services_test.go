package adversary

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/executor"
)

// byServices are played in a house of the real services. The job uses a fifth of the processor that
// it reserved, so that there is something to lie about.
var byServices = []struct {
	name, named string
	bound       tx.Grains
	cheat       cheat
}{
	{"nobody cheats: real ledger, executor and owner's client", nothing, 0, cheat{}},
	{
		"executor's meter claims three times the work", rateTimesTime, reservedDue - honestDue,
		cheat{driver: lying(func(u *executor.Usage) { u.CPU *= 3 })},
	},
	{
		"executor's meter claims fifty times the work", rateTimesTime, reservedDue - honestDue,
		cheat{driver: lying(func(u *executor.Usage) { u.CPU *= 50 })},
	},
	{
		"executor's meter claims memory it never gave", rateTimesTime, reservedDue - honestDue,
		cheat{driver: lying(func(u *executor.Usage) { u.Memory += 1 << 40 })},
	},
	{
		"executor counts an hour for every minute", rateTimesTime, reservedDue - honestDue,
		cheat{driver: lying(func(u *executor.Usage) {
			u.CPU *= 60
			u.At = u.At.Add(59 * u.CPU / 12)
		})},
	},
	{
		"executor charges every note three times", nothing, 0,
		cheat{ledger: func(_ *house, l executor.Ledger) executor.Ledger { return greedy{l} }},
	},
	{
		"executor charges ten times what the owner signed", trustOfLease, houseTrust,
		cheat{ledger: func(h *house, l executor.Ledger) executor.Ledger { return forging{l, h} }},
	},
	{"ledger and owner are kept away for an hour of a job", nothing, 0, cheat{away: true}},
	{"host hears late that the owner ended its lease", nothing, 0, cheat{ends: 70 * time.Second}},
	{"what the owner signed is brought to the executor again", nothing, 0, cheat{repeats: true}},
}

const rateTimesTime = "rate of the lease times time"

// playHouse plays a cheat and returns what was paid beyond what an honest host is due.
func playHouse(t *testing.T, c cheat, bound tx.Grains) (gained tx.Grains) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, c)
		defer h.close()
		paid := h.play(c)
		// Or there would be nothing to gain on. Who is caught may get less.
		paidFor, slack := c.runs(), time.Duration(0)
		if c.ends > 0 { // its last note may be as old as that
			paidFor, slack = c.ends, executor.DefaultConfig().NoteEvery+2*time.Second
		}
		due := dueFor(paidFor)
		if least := dueFor(paidFor-slack) * 98 / 100; bound == 0 && paid < least {
			t.Errorf("paid %d, an honest host is due at least %d", paid, least)
		}
		gained = gain(due, paid)
	})
	return gained
}

// dueFor is what an honest host is due for so long.
func dueFor(d time.Duration) tx.Grains {
	return honestDue * tx.Grains(d/time.Second+1) / tx.Grains(jobRuns/time.Second+1)
}

// What jobRuns come to at the executor's prices, and what the reserved processor would: with a
// sixteenth of a GiB of memory, rounded up to the second in which it is metered.
const (
	honestDue   = fromHost*101/5 + memoryDue
	reservedDue = fromHost*101 + memoryDue
	memoryDue   = 101 * 100_000_000 / 16 / 3600
)

// lying is an engine whose meters are spoiled.
func lying(spoil func(*executor.Usage)) func(executor.Driver) executor.Driver {
	return func(d executor.Driver) executor.Driver { return lyingDriver{d, spoil} }
}

type lyingDriver struct {
	executor.Driver
	spoil func(*executor.Usage)
}

func (d lyingDriver) Create(ctx context.Context, s executor.ContainerSpec) (
	executor.Container, error,
) {
	c, err := d.Driver.Create(ctx, s)
	if err != nil {
		return nil, err
	}
	return lyingContainer{c, d.spoil}, nil
}

type lyingContainer struct {
	executor.Container
	spoil func(*executor.Usage)
}

func (c lyingContainer) Usage(ctx context.Context) (executor.Usage, error) {
	u, err := c.Container.Usage(ctx)
	c.spoil(&u)
	return u, err
}

// greedy submits every charge three times, each in a transaction of its own.
type greedy struct{ executor.Ledger }

func (g greedy) Charge(ctx context.Context, chain string, all []executor.Charge) (
	[]executor.Charged, error,
) {
	charged, err := g.Ledger.Charge(ctx, chain, all)
	for range 2 {
		_, _ = g.Ledger.Charge(ctx, chain, all)
	}
	return charged, err
}

// forging charges ten times the amount before it charges what is due. It has the executor's key, so
// the note is signed; the owner's word for it is missing.
type forging struct {
	executor.Ledger
	h *house
}

func (f forging) Charge(ctx context.Context, chain string, all []executor.Charge) (
	[]executor.Charged, error,
) {
	for _, c := range all {
		c.Ack = nil
		c.Note.Note.Cumulative *= 10
		c.Note.Signature = f.h.n.Keys[agentKey].Sign(c.Note.Note.TX().Preimage(f.h.n.Anchor))
		_, _ = f.Ledger.Charge(ctx, chain, []executor.Charge{c})
	}
	return f.Ledger.Charge(ctx, chain, all)
}
