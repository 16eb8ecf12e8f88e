package adversary

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/submit"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/agenttest"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/ledgerrpc"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// street is a house with a neighbour's executor and the real scheduler, which knows both. The first
// is the cheaper one. Nobody countersigns: the hosts are trusted with the whole budget.
type street struct {
	h      *house
	hosts  map[sig.PublicKey]*resident
	ledger *ledgerrpc.Ledger
	// current is the scheduler of this life, stop ends it; its store outlives it.
	current atomic.Pointer[scheduler.Engine]
	stop    func()
	lives   byte
	store   schedulertest.Memory
	tasks   sync.WaitGroup
	ctx     context.Context
	// keep is the job's policy, which hosts read in its revision.
	keep scheduler.Keep
}

// resident is an executor of a street.
type resident struct {
	agent   *executor.Agent
	journal *agenttest.Journal
	offer   *scheduler.Offer

	mu   sync.Mutex // guards gone: nothing gets through to it, nor from it
	gone bool
}

var _ scheduler.Hosts = (*street)(nil)

func newStreet(t *testing.T) *street {
	t.Helper()
	h := newHouse(t, cheat{terms: func(t *tx.Terms) { t.Trust = 16 * escrowAmount }})
	s := &street{h: h, hosts: map[sig.PublicKey]*resident{}}
	var end context.CancelFunc
	s.ctx, end = context.WithCancel(context.Background())
	h.closed = append(h.closed, s.tasks.Wait, end)
	other := agenttest.NewJournal()
	agent, run := h.newAgent(cheat{config: func(c *executor.Config) {
		c.Prices.CoreHour = c.Prices.CoreHour * 6 / 5
	}}, neighbour, neighbour, other)
	h.closed = append(h.closed, h.run(run))
	synctest.Wait()
	s.resident(1, agentKey, host, &resident{agent: h.agent, journal: h.journal})
	s.resident(2, neighbour, neighbour, &resident{agent: agent, journal: other})
	sender := submit.New(submit.Config{
		Ledger: h.client, Key: h.n.Keys[assigner], Chain: block.Main, Anchor: h.n.Anchor, Now: time.Now,
	})
	s.ledger = ledgerrpc.New(h.client, sender, block.Main, h.n.Anchor)
	s.begin()
	h.closed = append(h.closed, sender.Close, func() { s.stop() }, h.run(s.bus))
	return s
}

// begin starts a life of the scheduler.
func (s *street) begin() {
	s.lives++
	engine := scheduler.New(scheduler.DefaultPolicy(), scheduler.Deps{
		Store: &s.store, Ledger: s.ledger, Hosts: s,
		Assigner: s.h.n.Accounts[assigner], VerifyLease: s.ledger.VerifyLease, Now: time.Now,
		Random: rand.NewChaCha8([32]byte{s.lives}), Log: slog.New(slog.DiscardHandler),
		Trace: func(ctx context.Context, _, _ string) (context.Context, func(error)) {
			return ctx, func(error) {}
		},
	})
	s.current.Store(engine)
	s.stop = s.h.run(engine.Run)
}

func (s *street) engine() *scheduler.Engine { return s.current.Load() }

func (s *street) resident(n byte, key, payee int, r *resident) {
	r.offer = schedulertest.NewOffer(n, 0, time.Now())
	r.offer.Host.Executor, r.offer.Payee = s.h.n.Keys[key].Public(), s.h.n.Accounts[payee]
	mine := r.agent.Offer()
	r.offer.Prices, r.offer.Notice = mine.Prices.Rules(), mine.Notice
	s.hosts[r.offer.Host.Executor] = r
}

func (r *resident) setGone(gone bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = gone
}

func (r *resident) away() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return fmt.Errorf("%w: %w", scheduler.ErrUnreachable, scheduler.ErrAbsent)
	}
	return nil
}

// bus carries the executors' events and offers to the scheduler.
func (s *street) bus(ctx context.Context, ready func()) error {
	ready()
	seen := map[sig.PublicKey]int{}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		for key, r := range s.hosts {
			if r.away() != nil {
				continue
			}
			if n%50 == 0 {
				o := *r.offer
				o.Posted, o.Expires = time.Now(), time.Now().Add(5*time.Minute)
				o.Hash = offerIn(s.h.t, r.journal)
				s.engine().Offer(&o)
			}
			events := r.journal.Events()
			for _, e := range events[seen[key]:] {
				if e.Type == executor.TypeAttemptChanged {
					s.report(ctx, key, e.Payload)
				}
			}
			seen[key] = len(events)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *street) report(ctx context.Context, key sig.PublicKey, payload []byte) {
	var m jobv1.AttemptStatus
	if err := canon.Unmarshal(payload, &m); err != nil {
		s.h.t.Error(err)
		return
	}
	rep := scheduler.Report{
		Job: subject, Run: scheduler.RunID(m.GetRun()), Attempt: scheduler.AttemptID(m.GetAttempt()),
		Executor: key, State: scheduler.State(m.GetState()), Reason: m.GetReason(), Raw: payload,
		End: scheduler.EndReason(m.GetOutcome().GetReason()), Ran: m.GetUsage().GetWallMs() > 0,
		Time: time.UnixMilli(int64(m.GetTime())),
	}
	if at := m.GetEvictAt(); at != 0 {
		rep.EvictAt = time.UnixMilli(int64(at))
	}
	if at := m.GetHeldUntil(); at != 0 {
		rep.HeldUntil = time.UnixMilli(int64(at))
	}
	if err := s.engine().Report(ctx, rep); err != nil && ctx.Err() == nil {
		s.h.t.Error(err)
	}
}

// Ask implements scheduler.Hosts.
func (s *street) Ask(ctx context.Context, to scheduler.Host, a scheduler.Ask) (
	scheduler.SignedLease, error,
) {
	r, t := s.hosts[to.Executor], a.Terms
	if err := r.away(); err != nil {
		return scheduler.SignedLease{}, err
	}
	question := s.h.question(hex.EncodeToString(a.Run[:]),
		hex.EncodeToString(a.Attempt[:]), a.OfferHash, executor.Terms{
			Escrow: executor.EscrowID(t.Escrow), Subject: subject, Slot: t.Slot, Epoch: t.Epoch,
			Budget: t.Budget, Trust: t.Trust, AckKeys: t.AckKeys,
			ClaimWindow: uint64(t.ClaimWindow.Milliseconds()),
			PlaceBy:     uint64(t.PlaceBy.UnixMilli()), Until: uint64(t.Until.UnixMilli()),
			Supersedes: executor.LeaseID(t.Supersedes),
		})
	question.Spec.KeepOriginal = s.keep == scheduler.KeepOriginal
	if a.Continues != (scheduler.AttemptID{}) {
		question.Continues = executor.AttemptID(hex.EncodeToString(a.Continues[:]))
	}
	answer, err := r.agent.Ask(ctx, question)
	switch {
	case err != nil:
		return scheduler.SignedLease{}, err
	case answer.Lease == nil && answer.Declined.Code == executor.DeclineNotContinuable:
		return scheduler.SignedLease{}, fmt.Errorf("%w: %w: %s", scheduler.ErrDeclined,
			scheduler.ErrNotContinuable, answer.Declined.Message)
	case answer.Lease == nil:
		return scheduler.SignedLease{}, fmt.Errorf("%w: %s", scheduler.ErrDeclined,
			answer.Declined.Message)
	}
	return scheduler.SignedLease{
		Lease: *answer.Lease.Lease.TX(), Signature: answer.Lease.Signature,
	}, nil
}

// question is what the scheduler asks of an executor.
func (h *house) question(run, attempt string, offer [32]byte, t executor.Terms) executor.Ask {
	return executor.Ask{
		From: executor.Peer{
			Instance: h.n.Keys[assigner].Public(), Operator: h.n.Accounts[assigner],
		},
		Job: subject, Revision: executor.Hash{3}, Run: executor.RunID(run),
		Attempt: executor.AttemptID(attempt), Offer: offer,
		Spec: executor.JobSpec{
			Owner: h.n.Accounts[owner], Chain: block.Main, Name: "job", Image: image, Args: forever,
			Isolation: executor.IsolationStandard,
			Resources: executor.Resources{CPUMilli: 1000, Memory: 64 << 20, Disk: 64 << 20},
		},
		Terms: t,
	}
}

// Deliver implements scheduler.Hosts.
func (s *street) Deliver(_ context.Context, to scheduler.Host, t scheduler.Task) (
	*scheduler.Report, error,
) {
	r := s.hosts[to.Executor]
	if err := r.away(); err != nil {
		return nil, err
	}
	s.tasks.Go(func() {
		_ = r.agent.Task(s.ctx, executor.Task{
			From: s.h.question("", "", [32]byte{}, executor.Terms{}).From, Job: subject,
			Revision: executor.Hash{3}, Lease: executor.LeaseID(t.Lease), StorageToken: "token",
			Run:     executor.RunID(hex.EncodeToString(t.Run[:])),
			Attempt: executor.AttemptID(hex.EncodeToString(t.Attempt[:])),
		}, func(executor.Update) error { return nil })
	})
	return nil, nil
}

// Stop implements scheduler.Hosts.
func (s *street) Stop(ctx context.Context, to scheduler.Host, stop scheduler.Stop) error {
	r := s.hosts[to.Executor]
	if err := r.away(); err != nil {
		return err
	}
	return r.agent.Stop(ctx, executor.StopAsk{
		From: s.h.question("", "", [32]byte{}, executor.Terms{}).From, Job: subject,
		Reason: stop.Reason, Grace: stop.Grace,
		Attempt: executor.AttemptID(hex.EncodeToString(stop.Attempt[:])),
	})
}

// submit submits an always job that may cost all that its escrow holds.
func (s *street) submit(change func(*scheduler.Spec)) {
	s.h.t.Helper()
	j := schedulertest.NewJob(1, 1)
	j.ID, j.Owner, j.Escrow, j.Runs = subject, s.h.n.Accounts[owner], s.h.escrow, nil
	j.Spec.MaxTotal, j.Spec.Trust = uint64(escrowAmount), uint64(escrowAmount)
	j.Spec.Always, j.Spec.LostAfter = true, 5*time.Minute
	change(&j.Spec)
	s.keep = j.Spec.Keep
	if _, err := s.engine().Submit(s.h.t.Context(), j); err != nil {
		s.h.t.Fatal(err)
	}
}

// run submits a job of one lane and waits until it runs.
func (s *street) run(keep scheduler.Keep) scheduler.Attempt {
	s.h.t.Helper()
	s.submit(func(spec *scheduler.Spec) { spec.Keep = keep })
	a := s.await(1)
	if e, _ := s.h.chain.State().Escrow(s.h.escrow); e.Balance != e.Reserved {
		s.h.t.Errorf("the lease leaves %d of %d free", e.Balance-e.Reserved, e.Balance)
	}
	return a
}

// await waits until the newest of so many attempts runs, half an hour at most.
func (s *street) await(attempts int) scheduler.Attempt {
	s.h.t.Helper()
	var r *scheduler.Run
	for range 30 * 60 {
		j, err := s.engine().Job(s.h.t.Context(), s.h.n.Accounts[owner], subject)
		if err != nil {
			s.h.t.Fatal(err)
		}
		r = j.Current()
		if a := r.Current(); len(r.Attempts) == attempts && a.State == scheduler.Running {
			return *a
		}
		s.pass(time.Second)
	}
	s.h.t.Fatalf("after half an hour it is %s: %s; %+v", r.State, r.Reason, r.Attempts)
	return scheduler.Attempt{}
}

func (s *street) pass(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
	synctest.Wait()
}

func (s *street) of(a scheduler.Attempt) *resident { return s.hosts[a.Host.Executor] }

func idOf(a scheduler.Attempt) executor.AttemptID {
	return executor.AttemptID(hex.EncodeToString(a.ID[:]))
}

// handedOver tests that one lease ended where the other began, and that what was paid on the first
// is within what its time allows. It returns what of it is beyond.
func (s *street) handedOver(from, to scheduler.Attempt) (beyond tx.Grains) {
	s.h.t.Helper()
	a, okA := s.h.chain.State().Lease(from.Lease.ID)
	b, okB := s.h.chain.State().Lease(to.Lease.ID)
	if !okA || !okB || a.End == 0 || a.End != b.From || b.Lease.Epoch != a.Lease.Epoch+1 {
		s.h.t.Errorf("the leases are %+v and %+v", a, b)
	}
	most, err := price.Accrued(a.Lease.Rate, a.End-a.From)
	if err != nil {
		s.h.t.Fatal(err)
	}
	if a.Paid == 0 {
		s.h.t.Error("the first host is paid nothing")
	}
	return gain(most, a.Paid)
}

// lanes waits until all lanes run on a host, half an hour at most, and returns their attempts.
func (s *street) lanes(n int, on sig.PublicKey) (list []scheduler.Attempt) {
	s.h.t.Helper()
	var j *scheduler.Job
	for range 30 * 60 {
		var err error
		if j, err = s.engine().Job(s.h.t.Context(), s.h.n.Accounts[owner], subject); err != nil {
			s.h.t.Fatal(err)
		}
		list = nil
		for i := range j.Runs {
			a := j.Runs[i].Current()
			if a != nil && a.State == scheduler.Running && a.Host.Executor == on {
				list = append(list, *a)
			}
		}
		if len(list) == n {
			return list
		}
		s.pass(time.Second)
	}
	s.h.t.Fatalf("after half an hour %d of %d lanes run there: %+v", len(list), n, j.Runs)
	return nil
}
