package adversary

import (
	"cmp"
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/submit"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/ledgerrpc"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// byFriends are played with the real scheduler on the real ledger: it knows one host, a friend that
// signs whatever it is asked, changed to its liking, runs nothing, and charges what it can. What a
// row changes is what a friend that takes no more than an honest host leaves alone: that one gets a
// lease in every row, or it would show nothing.
var byFriends = []friendly{
	{name: "scheduler leases to a friend who runs nothing", named: trustOfEscrow,
		bound: houseTrust, given: houseTrust, leases: 1},
	{name: "scheduler leases to it again whenever it gives up", named: trustOfEscrow,
		bound: houseTrust, given: houseTrust / 4, leases: 3},
	{name: "trusted host of a detached job runs nothing", named: trustOfEscrow,
		bound: detachedTrust, trust: detachedTrust, given: detachedTrust, leases: 1,
		says: scheduler.Running},
	{name: "trusted host of an array completes its tasks without running them",
		named: trustOfEscrow, bound: houseTrust, given: houseTrust / 4, leases: 3,
		change: func(s *scheduler.Spec) { s.Tasks = 100 }, end: scheduler.Completed},
	{name: "trusted host tells the end and charges on",
		named: "rate until ten minutes after its word", bound: (10*60 + afterSweep) * fromHost,
		trust: detachedTrust, given: detachedTrust, leases: 1, end: scheduler.Completed, on: true},
	{name: "trusted host tells the end of an array's task and charges on",
		named: "rate until ten seconds after its word", bound: (10 + afterSweep) * fromHost,
		trust: detachedTrust, given: detachedTrust, leases: 1, end: scheduler.Completed, on: true,
		change: func(s *scheduler.Spec) { s.Tasks = 1 }},
	{name: "trusted host with a notice tells the end, charges on and is paid the notice",
		named: "rate until ten minutes after its word, and the notice",
		bound: (11*60 + afterSweep) * fromHost, trust: detachedTrust, given: detachedTrust,
		leases: 1, end: scheduler.Completed, on: true, change: grantNotice,
		offer: wantNotice, sign: signNotice},
	{name: "trusted host with a notice does so with an array's task",
		named: "rate until a minute after its word, and the notice",
		bound: (2*60 + afterSweep) * fromHost, trust: detachedTrust, given: detachedTrust,
		leases: 1, end: scheduler.Completed, on: true, offer: wantNotice, sign: signNotice,
		change: func(s *scheduler.Spec) { grantNotice(s); s.Tasks = 1 }},
	{name: "friend takes all trust where its owner names none", named: nothing,
		trust: 10 * fromHost * 60, sign: func(l *tx.Lease) { l.Trust = 10 * fromHost * 60 }},
	{name: "friend signs for twice the price of its offer", named: nothing, given: houseTrust,
		sign: func(l *tx.Lease) { l.Rate *= 2 }},
	{name: "friend wants more trust than the owner gives", named: nothing, given: houseTrust,
		trust: 2 * houseTrust, sign: func(l *tx.Lease) { l.Trust *= 2 }},
	{name: "friend takes the whole trust for arriving", named: nothing, given: houseTrust,
		sign: func(l *tx.Lease) { l.Upfront = houseTrust }},
	{name: "friend wants years of notice", named: nothing, given: houseTrust,
		sign: func(l *tx.Lease) { l.Notice = math.MaxInt64 }},
	{name: "friend offers and wants a day of notice", named: nothing, given: houseTrust,
		offer: func(o *scheduler.Offer) { o.Notice = 24 * time.Hour },
		sign:  func(l *tx.Lease) { l.Notice = tx.Millis((24 * time.Hour).Milliseconds()) }},
}

// The longest notice there is, granted and taken.
func grantNotice(s *scheduler.Spec) { s.Notice = time.Minute }
func wantNotice(o *scheduler.Offer) { o.Notice = time.Minute }
func signNotice(l *tx.Lease)        { l.Notice = tx.Millis(time.Minute.Milliseconds()) }

const (
	// detachedTrust is half an hour's, of an owner who leaves and trusts the host with all of a job.
	detachedTrust = 30 * 60 * fromHost
	// afterSweep are seconds until what is due is looked after, and the lease's end is in a block.
	afterSweep = 7
)

// friendly is one row of byFriends.
type friendly struct {
	name, named string
	bound       tx.Grains
	given       tx.Grains // the trust that the owner names for a lease, 0 for none
	trust       tx.Grains // of the escrow; 0 for houseTrust
	// leases is how many are at least placed, or the attack did not take place.
	leases int
	offer  func(*scheduler.Offer)
	sign   func(*tx.Lease)
	change func(*scheduler.Spec)
	// says is what it says after each charge, by default that the attempt ended, as end, by default
	// failed. If it goes on its lease is charged after that all the same.
	says scheduler.State
	end  scheduler.EndReason
	on   bool
}

// honest is the row with a friend that changes nothing.
func (f friendly) honest() friendly {
	f.offer, f.sign = nil, nil
	return f
}

// friend is a host that signs and runs nothing.
type friend struct {
	h     *house
	offer *scheduler.Offer
	sign  func(*tx.Lease)
}

var _ scheduler.Hosts = friend{}

// Ask implements scheduler.Hosts.
func (f friend) Ask(_ context.Context, _ scheduler.Host, a scheduler.Ask) (
	scheduler.SignedLease, error,
) {
	rate, err := price.Rate(f.offer.Prices, a.Resources, 0)
	if err != nil {
		return scheduler.SignedLease{}, err
	}
	t := a.Terms
	l := tx.Lease{
		Escrow: t.Escrow, Subject: t.Subject[:], Slot: t.Slot, Epoch: t.Epoch,
		Payee: f.offer.Payee, AgentKey: f.offer.Host.Executor, Rate: rate,
		Budget: tx.Grains(t.Budget), AckKeys: t.AckKeys,
		ClaimWindow: tx.Millis(t.ClaimWindow.Milliseconds()),
		PriceHash:   f.offer.Prices.Hash(), OfferHash: f.offer.Hash,
		PlaceBy: tx.Millis(t.PlaceBy.UnixMilli()), Until: tx.Millis(t.Until.UnixMilli()),
		Trust: tx.Grains(t.Trust),
	}
	if f.sign != nil {
		f.sign(&l)
	}
	return scheduler.SignedLease{
		Lease: l, Signature: f.h.n.Keys[agentKey].Sign(l.Preimage(f.h.n.Anchor)),
	}, nil
}

// Deliver implements scheduler.Hosts.
func (friend) Deliver(context.Context, scheduler.Host, scheduler.Task) (*scheduler.Report, error) {
	return nil, nil
}

// Stop implements scheduler.Hosts.
func (friend) Stop(context.Context, scheduler.Host, scheduler.Stop) error { return nil }

// market adds the real scheduler to a house whose only host is a friend.
func (h *house) market(sign func(*tx.Lease)) (*scheduler.Engine, *scheduler.Offer) {
	h.t.Helper()
	offer := schedulertest.NewOffer(1, uint64(block.UCN), time.Now())
	offer.Host.Executor, offer.Payee = h.n.Keys[agentKey].Public(), h.n.Accounts[host]
	sender := submit.New(submit.Config{
		Ledger: h.client, Key: h.n.Keys[assigner], Chain: block.Main, Anchor: h.n.Anchor,
		Now: time.Now,
	})
	h.closed = append(h.closed, sender.Close)
	ledger := ledgerrpc.New(h.client, sender, block.Main, h.n.Anchor)
	engine := scheduler.New(scheduler.DefaultPolicy(), scheduler.Deps{
		Store: &schedulertest.Memory{}, Ledger: ledger, Hosts: friend{h, offer, sign},
		Assigner: h.n.Accounts[assigner], VerifyLease: ledger.VerifyLease, Now: time.Now,
		Random: rand.NewChaCha8([32]byte{1}), Log: slog.New(slog.DiscardHandler),
		Trace: func(ctx context.Context, _, _ string) (context.Context, func(error)) {
			return ctx, func(error) {}
		},
	})
	h.closed = append(h.closed, h.run(engine.Run))
	return engine, offer
}

// playFriend has the scheduler place the owner's job with its friend until it does not any more, or
// for an hour. It returns what was paid, of one that charges on what was paid after its word, and
// how many leases there were.
func playFriend(t *testing.T, f friendly) (paid tx.Grains, leases int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, cheat{terms: func(t *tx.Terms) { t.Trust = cmp.Or(f.trust, t.Trust) }})
		defer h.close()
		engine, offer := h.market(f.sign)
		if f.offer != nil {
			f.offer(offer)
		}
		j := schedulertest.NewJob(1, 1)
		j.ID, j.Owner, j.Escrow, j.Runs = subject, h.n.Accounts[owner], h.escrow, nil
		j.Spec.MaxTotal, j.Spec.Retries = uint64(block.UCN), 100
		j.Spec.Trust = uint64(f.given)
		if f.change != nil {
			f.change(&j.Spec)
		}
		var before tx.Grains
		var last tx.LeaseID
		if _, err := engine.Submit(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		for range 60 {
			next := *offer
			next.Posted, next.Expires = time.Now(), time.Now().Add(5*time.Minute)
			engine.Offer(&next)
			timer := time.NewTimer(time.Minute)
			<-timer.C
			if id, charged := h.charged(engine, j, f); charged {
				leases, last = leases+1, id
				before = h.paid()
			} else if f.on && leases > 0 {
				h.charge(last)
			}
		}
		if paid = h.paid(); f.on {
			paid -= before
		}
	})
	return paid, leases
}

// paid is what the escrow has paid.
func (h *house) paid() tx.Grains {
	e, _ := h.chain.State().Escrow(h.escrow)
	return e.Paid
}

// charge has the friend charge a lease for all it can.
func (h *house) charge(id tx.LeaseID) {
	h.t.Helper()
	n := tx.Note{
		Lease: id, Revision: tx.Hash{3}, Upto: h.chain.Now(), Cumulative: math.MaxInt64,
		UsageHash: tx.Hash{4},
	}
	h.do(agentKey, &tx.Charge{Note: n, Signature: h.n.Keys[agentKey].Sign(n.Preimage(h.n.Anchor))})
}

// charged has the friend charge its present lease, for all it can, and say what it says then. It
// returns false when it has none.
func (h *house) charged(
	engine *scheduler.Engine, j *scheduler.Job, f friendly,
) (id tx.LeaseID, charged bool) {
	h.t.Helper()
	held, err := engine.Job(h.t.Context(), j.Owner, j.ID)
	if err != nil {
		h.t.Fatal(err)
	}
	r := held.Current()
	a := r.Current()
	if a == nil || a.State == scheduler.Ended {
		return id, false
	}
	id = a.Lease.Lease.ID(h.n.Anchor)
	if _, placed := h.chain.State().Lease(id); !placed {
		return id, false
	}
	h.charge(id)
	err = engine.Report(h.t.Context(), scheduler.Report{
		Job: j.ID, Run: r.ID, Attempt: a.ID, Executor: sig.PublicKey(a.Host.Executor),
		State: cmp.Or(f.says, scheduler.Ended), End: cmp.Or(f.end, scheduler.Failed),
		Reason: "says so", Time: time.Now(),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return id, true
}
