package adversary

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/submit"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/ledgerrpc"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// tenSeconds are what the program of these rows is due for that long: a fifth of a core and its
// memory.
const tenSeconds = fromHost*10/5 + memoryDue*10/101

// agreedNotice is the longest notice that the owner of these rows pays for.
const agreedNotice = 10 * time.Second

// refunds is the table of endings: one row for each way in which a run ends, played by the real
// ledger, scheduler, executor and owner's checks. Whatever the owner paid the host got, and the
// rest came back.
var refunds = []struct {
	name  string
	cheat cheat
	args  []string
	spec  func(*scheduler.Spec)
	// during is what happens a minute into the job.
	during func(*lodging)
	ends   scheduler.EndReason
	// least and most are what may be paid for it.
	least, most tx.Grains
	// window: nobody closes the lease, until the scheduler does after its claim window.
	window bool
}{
	{
		name: "completed: metered use", args: []string{"use", "200", "sleep", "100s"},
		ends: scheduler.Completed, least: honestDue * 98 / 100, most: honestDue,
	},
	{
		name: "exit other than 0: metered use",
		args: []string{"use", "200", "sleep", "100s", "exit", "3"},
		ends: scheduler.Failed, least: honestDue * 98 / 100, most: honestDue,
	},
	{
		name: "cancelled: metered use", args: forever, during: (*lodging).cancel,
		ends: scheduler.Cancelled, least: 6 * tenSeconds * 9 / 10, most: 7 * tenSeconds,
	},
	{
		name: "ended on the chain by its owner: metered use and the notice", args: forever,
		cheat:  cheat{config: func(c *executor.Config) { c.Notice = agreedNotice }},
		during: (*lodging).end, ends: scheduler.Cancelled,
		least: 6*tenSeconds*9/10 + reservedDue*10/101*9/10, most: 7*tenSeconds + reservedDue*10/101,
	},
	{
		name: "never started: nothing", args: forever,
		cheat: cheat{config: func(c *executor.Config) { c.Notice = agreedNotice }},
		spec:  func(s *scheduler.Spec) { s.Name = unreachable }, ends: scheduler.Expired,
	},
	{
		name: "refused, its image is nowhere: nothing", args: forever, ends: scheduler.Refused,
		cheat: cheat{driver: withoutImage(executor.ErrNoFile)},
	},
	{
		name: "image other than its CID: nothing", args: forever, ends: scheduler.Refused,
		cheat: cheat{driver: withoutImage(executor.ErrFileMismatch)},
	},
	{
		name: "evicted without notice: up to the last note", args: forever,
		during: (*lodging).evict, ends: scheduler.Evicted,
		least: 6 * tenSeconds * 9 / 10, most: 7 * tenSeconds,
	},
	{
		name: "host lost: the last charge", args: forever, during: (*lodging).vanish,
		ends: scheduler.HostLost, least: 5 * tenSeconds, most: 8 * tenSeconds, window: true,
	},
	{
		name: "exhausted: metered use, within the budget", args: forever,
		spec: func(s *scheduler.Spec) { s.MaxTotal = uint64(3 * tenSeconds) },
		ends: scheduler.Exhausted, least: 2 * tenSeconds, most: 3 * tenSeconds,
	},
	{
		name: "expired: metered use until then", args: forever, ends: scheduler.Expired,
		cheat: cheat{terms: func(t *tx.Terms) {
			t.Expires = tx.Millis(time.Now().Add(24*time.Hour + 90*time.Second).UnixMilli())
		}},
		least: 8 * tenSeconds, most: 9 * tenSeconds,
	},
}

var forever = []string{"use", "200", "forever"}

// unreachable is the name of a job whose task never gets to its host.
const unreachable = "unreachable"

// withoutImage is an engine that cannot load the image.
func withoutImage(cause error) func(executor.Driver) executor.Driver {
	return func(d executor.Driver) executor.Driver { return bareDriver{d, cause} }
}

type bareDriver struct {
	executor.Driver
	cause error
}

func (bareDriver) HasImage(context.Context, executor.ImageID) (bool, error) { return false, nil }

func (d bareDriver) LoadImage(context.Context, executor.ImageID, string, executor.OpenLayout) (
	executor.Image, error,
) {
	return executor.Image{}, d.cause
}

// TestRefunds plays the table.
func TestRefunds(t *testing.T) {
	for _, row := range refunds {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLodging(t, row.cheat, row.args)
				defer l.h.close()
				job := l.submit(row.spec)
				if row.during != nil {
					l.pass(time.Minute)
					row.during(l)
				}
				l.await(row.ends)
				if row.window {
					l.quiet()
					l.pass(24*time.Hour + 10*time.Minute)
					l.wantSettled()
				}
				l.pass(15 * time.Second) // the last charge, and past place_by
				l.close()
				paid := l.host() - l.hadHost
				if paid < row.least || paid > row.most {
					t.Errorf("the host got %d, want %d to %d", paid, row.least, row.most)
				}
				back := l.owner() + l.h.fees[owner] + scheduler.DefaultLeaseFee + paid
				if back != l.had {
					t.Errorf("the owner had %d, holds %d after %d of fees, those of a lease, and %d paid: "+
						"%d are missing", l.had, l.owner(), l.h.fees[owner], paid, l.had-back)
				}
				if r := job().Current(); len(r.Attempts) != 1 {
					t.Errorf("%d attempts, want 1", len(r.Attempts))
				}
			})
		})
	}
}

// lodging is a house with the real scheduler in it, which knows the house's executor.
type lodging struct {
	h            *house
	engine       *scheduler.Engine
	args         []string
	had, hadHost tx.Grains

	mu   sync.Mutex // guards asks and gone
	asks map[scheduler.AttemptID]executor.Ask
	gone bool

	quiet func() // ends the bus
}

var _ scheduler.Hosts = (*lodging)(nil)

func newLodging(t *testing.T, c cheat, args []string) *lodging {
	t.Helper()
	l := &lodging{h: newHouse(t, c), args: args, asks: map[scheduler.AttemptID]executor.Ask{}}
	l.hadHost = l.host()
	sender := submit.New(submit.Config{
		Ledger: l.h.client, Key: l.h.n.Keys[assigner], Chain: block.Main, Anchor: l.h.n.Anchor,
		Now: time.Now,
	})
	ledger := ledgerrpc.New(l.h.client, sender, block.Main, l.h.n.Anchor)
	policy := scheduler.DefaultPolicy()
	policy.HostRetries = 0
	l.engine = scheduler.New(policy, scheduler.Deps{
		Store: &schedulertest.Memory{}, Ledger: ledger, Hosts: l,
		Assigner: l.h.n.Accounts[assigner], VerifyLease: ledger.VerifyLease, Now: time.Now,
		Random: rand.NewChaCha8([32]byte{1}), Log: slog.New(slog.DiscardHandler),
		Trace: func(ctx context.Context, _, _ string) (context.Context, func(error)) {
			return ctx, func(error) {}
		},
	})
	l.h.closed = append(l.h.closed, sender.Close, l.h.run(l.engine.Run))
	l.quiet = sync.OnceFunc(l.h.run(l.bus))
	l.h.closed = append(l.h.closed, l.quiet)
	return l
}

func (l *lodging) balance(of int) tx.Grains {
	a, _ := l.h.chain.State().Account(l.h.n.Accounts[of])
	return a.Balance
}

func (l *lodging) owner() tx.Grains { return l.balance(owner) }
func (l *lodging) host() tx.Grains  { return l.balance(host) }

func (l *lodging) pass(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// bus carries the executor's events to the scheduler, and its offer, a tenth of a second late. It
// also brings the owner's client to each attempt.
func (l *lodging) bus(ctx context.Context, ready func()) error {
	l.offer()
	ready()
	var attended sync.WaitGroup
	defer attended.Wait()
	seen, watched := 0, map[scheduler.AttemptID]bool{}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if n%600 == 599 {
			l.offer()
		}
		events := l.h.journal.Events()
		for _, e := range events[seen:] {
			if e.Type == executor.TypeAttemptChanged {
				l.report(ctx, e.Payload)
			}
		}
		seen = len(events)
		l.attend(ctx, &attended, watched)
	}
}

// offer brings what the executor offers, unless it is gone.
func (l *lodging) offer() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return
	}
	o := schedulertest.NewOffer(1, 0, time.Now())
	o.Host.Executor, o.Payee = l.h.n.Keys[agentKey].Public(), l.h.n.Accounts[host]
	mine := l.h.agent.Offer()
	o.Hash, o.Prices, o.Notice = l.h.offer(), mine.Prices.Rules(), mine.Notice
	l.engine.Offer(o)
}

func (l *lodging) report(ctx context.Context, payload []byte) {
	var m jobv1.AttemptStatus
	if err := canon.Unmarshal(payload, &m); err != nil {
		l.h.t.Error(err)
		return
	}
	err := l.engine.Report(ctx, scheduler.Report{
		Job: subject, Run: scheduler.RunID(m.GetRun()), Attempt: scheduler.AttemptID(m.GetAttempt()),
		Executor: l.h.n.Keys[agentKey].Public(), State: scheduler.State(m.GetState()),
		End: scheduler.EndReason(m.GetOutcome().GetReason()), Reason: m.GetReason(),
		Time: time.UnixMilli(int64(m.GetTime())), Raw: payload,
		Ran: m.GetUsage().GetWallMs() > 0 || m.GetOutcome().GetUsage().GetWallMs() > 0,
	})
	if err != nil {
		l.h.t.Error(err)
	}
}

// attend brings the owner's client to an attempt that has its lease.
func (l *lodging) attend(
	ctx context.Context, attended *sync.WaitGroup, watched map[scheduler.AttemptID]bool,
) {
	j, err := l.engine.Job(ctx, l.h.n.Accounts[owner], subject)
	if err != nil || j.Spec.Name == unreachable {
		return
	}
	a := j.Current().Current()
	if a == nil || !a.Placed || watched[a.ID] {
		return
	}
	watched[a.ID] = true
	l.mu.Lock()
	ask := l.asks[a.ID]
	l.mu.Unlock()
	l.h.lease.ID = executor.LeaseID(a.Lease.ID)
	attended.Go(func() { _ = l.h.watch(ask) }) // what it signed is on the chain, or is not
}

// Ask implements scheduler.Hosts.
func (l *lodging) Ask(ctx context.Context, _ scheduler.Host, a scheduler.Ask) (
	scheduler.SignedLease, error,
) {
	t := a.Terms
	ask := executor.Ask{
		From: l.scheduler(), Job: subject, Revision: executor.Hash{3},
		Run:     executor.RunID(hex.EncodeToString(a.Run[:])),
		Attempt: executor.AttemptID(hex.EncodeToString(a.Attempt[:])), Offer: a.OfferHash,
		Spec: executor.JobSpec{
			Owner: l.h.n.Accounts[owner], Chain: block.Main, Name: "job", Image: image, Args: l.args,
			Isolation: executor.IsolationStandard, MaxNotice: agreedNotice,
			Resources: executor.Resources{CPUMilli: 1000, Memory: 64 << 20, Disk: 64 << 20},
		},
		Terms: executor.Terms{
			Escrow: executor.EscrowID(t.Escrow), Subject: subject, Slot: t.Slot, Epoch: t.Epoch,
			Budget: t.Budget, Trust: t.Trust, AckKeys: t.AckKeys,
			ClaimWindow: uint64(t.ClaimWindow.Milliseconds()),
			PlaceBy:     uint64(t.PlaceBy.UnixMilli()), Until: uint64(t.Until.UnixMilli()),
		},
	}
	l.mu.Lock()
	l.asks[a.Attempt] = ask
	l.mu.Unlock()
	answer, err := l.h.agent.Ask(ctx, ask)
	if err != nil {
		return scheduler.SignedLease{}, err
	}
	if answer.Lease == nil {
		return scheduler.SignedLease{}, fmt.Errorf("%w: %s", scheduler.ErrDeclined,
			answer.Declined.Message)
	}
	return scheduler.SignedLease{
		Lease: *answer.Lease.Lease.TX(), Signature: answer.Lease.Signature,
	}, nil
}

func (l *lodging) scheduler() executor.Peer {
	return executor.Peer{
		Instance: l.h.n.Keys[assigner].Public(), Operator: l.h.n.Accounts[assigner],
	}
}

// Deliver implements scheduler.Hosts: the owner's client delivers, the scheduler only asks whether
// the host is there.
func (l *lodging) Deliver(ctx context.Context, _ scheduler.Host, t scheduler.Task) (
	*scheduler.Report, error,
) {
	j, err := l.engine.Job(ctx, l.h.n.Accounts[owner], subject)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || l.gone || j.Spec.Name == unreachable {
		return nil, fmt.Errorf("%w: %w", scheduler.ErrUnreachable, scheduler.ErrAbsent)
	}
	return nil, nil
}

// Stop implements scheduler.Hosts.
func (l *lodging) Stop(ctx context.Context, _ scheduler.Host, s scheduler.Stop) error {
	return l.h.agent.Stop(ctx, executor.StopAsk{
		From: l.scheduler(), Job: subject, Reason: s.Reason, Grace: s.Grace,
		Attempt: executor.AttemptID(hex.EncodeToString(s.Attempt[:])),
	})
}

// submit submits the job and returns how to look at it.
func (l *lodging) submit(change func(*scheduler.Spec)) func() *scheduler.Job {
	l.h.t.Helper()
	j := schedulertest.NewJob(1, 1)
	j.ID, j.Owner, j.Escrow, j.Runs = subject, l.h.n.Accounts[owner], l.h.escrow, nil
	j.Delivery = scheduler.ByClient
	j.Spec.MaxTotal, j.Spec.Trust = uint64(block.UCN), uint64(houseTrust)
	j.Spec.Notice = agreedNotice
	if change != nil {
		change(&j.Spec)
	}
	escrow, _ := l.h.chain.State().Escrow(l.h.escrow)
	l.had = l.owner() + l.h.fees[owner] + escrow.Balance + escrow.Lock
	if _, err := l.engine.Submit(l.h.t.Context(), j); err != nil {
		l.h.t.Fatal(err)
	}
	return func() *scheduler.Job {
		held, err := l.engine.Job(context.Background(), j.Owner, j.ID)
		if err != nil {
			l.h.t.Fatal(err)
		}
		return held
	}
}

// await waits for the end of the job, half an hour at most.
func (l *lodging) await(end scheduler.EndReason) {
	l.h.t.Helper()
	for range 30 * 60 {
		j, err := l.engine.Job(l.h.t.Context(), l.h.n.Accounts[owner], subject)
		if err != nil {
			l.h.t.Fatal(err)
		}
		if state, got, why := j.State(); state == scheduler.Ended {
			if got != end {
				l.h.t.Errorf("it ended %s (%s), want %s", got, why, end)
			}
			return
		}
		l.pass(time.Second)
	}
	l.h.t.Error("it does not end")
}

// wantSettled checks that the lease is settled before its owner does anything.
func (l *lodging) wantSettled() {
	l.h.t.Helper()
	if s, ok := l.h.chain.State().Lease(tx.LeaseID(l.h.lease.ID)); ok && !s.Settled {
		l.h.t.Error("nobody settled the lease after its claim window")
	}
}

// close settles what is left of the lease and closes the escrow.
func (l *lodging) close() {
	l.h.t.Helper()
	lease := tx.LeaseID(l.h.lease.ID)
	if lease == (tx.LeaseID{}) {
		j, _ := l.engine.Job(l.h.t.Context(), l.h.n.Accounts[owner], subject)
		lease = j.Current().Attempts[0].Lease.ID
	}
	l.h.do(owner, &tx.Settle{Leases: []tx.LeaseID{lease}})
	l.h.do(owner, &tx.CloseEscrow{Escrow: l.h.escrow})
}

func (l *lodging) cancel() {
	j, err := l.engine.Job(l.h.t.Context(), l.h.n.Accounts[owner], subject)
	if err == nil {
		_, err = l.engine.Cancel(l.h.t.Context(), j, "enough")
	}
	if err != nil {
		l.h.t.Error(err)
	}
}

func (l *lodging) end() { l.h.do(owner, &tx.End{Lease: tx.LeaseID(l.h.lease.ID)}) }

func (l *lodging) attempt() executor.AttemptID {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.asks {
		return executor.AttemptID(hex.EncodeToString(id[:]))
	}
	return ""
}

func (l *lodging) evict() {
	if _, err := l.h.agent.Evict(l.h.t.Context(), l.attempt(), 0, "maintenance"); err != nil {
		l.h.t.Error(err)
	}
}

// vanish takes the host away after its first charge and before the second.
func (l *lodging) vanish() {
	l.pass(30 * time.Second)
	l.mu.Lock()
	l.gone = true
	l.mu.Unlock()
	l.h.lose()
}
