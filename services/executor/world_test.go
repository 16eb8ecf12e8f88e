package executor_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	meternoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/event"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/agenttest"
	"github.com/united-containers/ucn/services/executor/fake"
	"github.com/united-containers/ucn/services/executor/server"
)

const (
	image = "bafkreihddrhfp65j3gyy2qtc4rs4kfb5ciydggfcobmq5clojg72eb2qiu"
	ucn   = 1_000_000_000
)

func key(seed byte) sig.PrivateKey { return sig.FromSeed([32]byte{seed}) }

// world is a host with one executor, a chain, a storage, a scheduler and an owner.
type world struct {
	t       *testing.T
	cfg     executor.Config
	host    *fake.Host
	journal *agenttest.Journal
	ledger  *agenttest.Ledger
	files   *agenttest.Files
	id      executor.Identity
	owner   executor.Peer
	asker   executor.Peer
	ackKey  sig.PrivateKey
	anchor  sig.Anchor
	now     func() time.Time // the executor's clock

	mu   sync.Mutex // guards what follows
	dead error      // when set, every seam answers it: the life was killed
	life *life
	hook func(fake.Call) fake.Fault
	hang bool // storage never answers
	// gates hold the images back that they name until they are closed.
	gates map[executor.ImageID]*gate
}

// life is one life of the executor.
type life struct {
	agent  *executor.Agent
	cancel context.CancelFunc
	done   chan error
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, cfg: executor.DefaultConfig(), anchor: sig.Anchor{7},
		journal: agenttest.NewJournal(), files: agenttest.NewFiles(),
		owner:  executor.Peer{Account: sig.AccountOfKey(key(1).Public())},
		asker:  executor.Peer{Instance: key(2).Public(), Operator: sig.AccountID{2}},
		ackKey: key(3), now: time.Now,
	}
	w.ledger = agenttest.NewLedger(w.anchor, time.Now)
	w.id = executor.Identity{
		Key: key(4), Operator: sig.AccountID{4}, Payee: sig.AccountID{5},
		Anchors: map[string]sig.Anchor{"main": w.anchor},
	}
	w.host = fake.NewHost(fake.Options{AnyImage: true, Hook: w.driverHook})
	seam := func(string) (error, error) { return w.killed(), nil }
	w.journal.SetHook(seam)
	w.ledger.SetHook(seam)
	w.files.SetHook(seam)
	return w
}

func (w *world) killed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dead
}

func (w *world) driverHook(c fake.Call) fake.Fault {
	w.mu.Lock()
	dead, hook := w.dead, w.hook
	w.mu.Unlock()
	switch {
	case dead != nil:
		return fake.Fault{Err: dead}
	case hook != nil:
		return hook(c)
	}
	return fake.Fault{}
}

// setDriver replaces what the driver's calls are judged by.
func (w *world) setDriver(hook func(fake.Call) fake.Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hook = hook
}

// start begins a life.
func (w *world) start() *executor.Agent {
	w.t.Helper()
	encoder, err := server.NewEncoder(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	agent, err := executor.New(w.cfg, w.id, executor.Deps{
		Driver: w.host.Driver("e"), Journal: w.journal, Ledger: w.ledger, Files: w.storage(),
		Encoder: encoder, Log: slog.New(slog.DiscardHandler),
		Tracers: tracenoop.NewTracerProvider(), Meters: meternoop.NewMeterProvider(),
		Now: w.now,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &life{agent: agent, cancel: cancel, done: make(chan error, 1)}
	ready := make(chan struct{})
	go func() { l.done <- agent.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-l.done:
		w.t.Fatalf("the executor does not start: %v", err)
	}
	synctest.Wait()
	w.mu.Lock()
	w.life = l
	w.mu.Unlock()
	return agent
}

// stop ends the life as a graceful shutdown does.
func (w *world) stop() {
	w.mu.Lock()
	l := w.life
	w.life = nil
	w.mu.Unlock()
	l.cancel()
	if err := <-l.done; err != nil {
		w.t.Errorf("Run: %v", err)
	}
}

var errKilled = errors.New("killed")

// kill ends the life so that nothing it still does has any effect.
func (w *world) kill() {
	w.mu.Lock()
	w.dead = errKilled
	w.mu.Unlock()
	w.stop()
	w.mu.Lock()
	w.dead = nil
	w.mu.Unlock()
}

func (w *world) end() {
	w.mu.Lock()
	living := w.life != nil
	w.mu.Unlock()
	if living {
		w.stop()
	}
	if w.gates != nil {
		pass(time.Minute) // until what nobody wants has been given up
	}
	w.host.Shutdown()
}

// offer returns the hash of the newest offer.
func (w *world) offer() executor.Hash {
	w.t.Helper()
	events := w.journal.Events()
	for i := len(events) - 1; i >= 0; i-- {
		if events[i].Type == executor.TypeOfferPosted {
			var m marketv1.Offer
			if err := canon.Unmarshal(events[i].Payload, &m); err != nil {
				w.t.Fatal(err)
			}
			return canonHash(w.t, &m)
		}
	}
	w.t.Fatal("no offer was posted")
	return executor.Hash{}
}

func canonHash(t *testing.T, m *marketv1.Offer) executor.Hash {
	t.Helper()
	hash, err := canon.Hash(m)
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

// ask makes a question that the host says yes to; args is what the guest does.
func (w *world) ask(n byte, args ...string) executor.Ask {
	now := time.Now()
	a := executor.Ask{
		From: w.asker, Job: executor.JobID{n}, Revision: executor.Hash{n},
		Run: executor.RunID(fmt.Sprintf("%02x", n)), Attempt: executor.AttemptID(fmt.Sprintf("a%x", n)),
		Offer: w.offer(),
		Spec: executor.JobSpec{
			Owner: w.owner.Account, Chain: "main", Name: "test", Image: image, Args: args,
			Isolation: executor.IsolationStandard, Outputs: []string{"/out"},
			Resources: executor.Resources{CPUMilli: 1000, Memory: 64 << 20, Disk: 64 << 20},
		},
		Terms: executor.Terms{
			Escrow: executor.EscrowID{n}, Subject: executor.JobID{n}, Epoch: 1, Budget: ucn,
			AckKeys: []sig.PublicKey{w.ackKey.Public()},
			PlaceBy: uint64(now.Add(time.Minute).UnixMilli()),
			Until:   uint64(now.Add(24 * time.Hour).UnixMilli()),
		},
	}
	if n < 16 {
		a.Attempt = executor.AttemptID(fmt.Sprintf("a%01x", n))
	} else {
		a.Attempt = executor.AttemptID(fmt.Sprintf("%02x", n))
	}
	w.ledger.Open(a.Terms.Escrow, w.escrow(&a))
	return a
}

// escrow backs a question.
func (w *world) escrow(a *executor.Ask) executor.Escrow {
	return executor.Escrow{
		Job: a.Job, Owner: w.owner.Account, Free: 1 << 62,
		Assigner: sig.AccountOfKey(w.asker.Instance),
	}
}

// openEscrow opens the escrow of a question anew, changed.
func (w *world) openEscrow(a *executor.Ask, change func(*executor.Escrow)) {
	e := w.escrow(a)
	change(&e)
	w.ledger.Open(a.Terms.Escrow, e)
}

// lease asks and places what is answered.
func (w *world) lease(agent *executor.Agent, ask executor.Ask) executor.SignedLease {
	w.t.Helper()
	answer, err := agent.Ask(w.t.Context(), ask)
	if err != nil || answer.Lease == nil {
		w.t.Fatalf("Ask: %+v, %v", answer.Declined, err)
	}
	if err := w.ledger.Place(*answer.Lease); err != nil {
		w.t.Fatal(err)
	}
	return *answer.Lease
}

func (w *world) task(ask executor.Ask, lease executor.LeaseID) executor.Task {
	return executor.Task{
		From: w.owner, Job: ask.Job, Revision: ask.Revision, Run: ask.Run, Attempt: ask.Attempt,
		Lease: lease, StorageToken: "token",
	}
}

// client delivers a task and countersigns.
type client struct {
	w    *world
	away bool // countersigns nothing

	mu       sync.Mutex // guards what follows
	statuses []executor.Status
	notes    []executor.NoteAsk
	lines    []string
	offset   uint64
}

// run stays with the attempt until it has ended, over as many lives as that takes.
func (c *client) run(task executor.Task) *executor.Outcome {
	var last error
	wait := 20 * time.Millisecond
	for n := range 1000 {
		if n == 100 {
			wait = time.Second // something is away for long
		}
		c.w.mu.Lock()
		l := c.w.life
		c.w.mu.Unlock()
		if l != nil {
			task.LogOffset = c.offset
			if err := l.agent.Task(c.w.t.Context(), task, func(u executor.Update) error {
				return c.take(l.agent, task.Lease, u)
			}); err == nil {
				return c.outcome()
			} else {
				last = err
			}
		}
		timer := time.NewTimer(wait)
		<-timer.C
	}
	c.w.t.Errorf("the attempt never ended: %v", last)
	return &executor.Outcome{}
}

func (c *client) take(agent *executor.Agent, lease executor.LeaseID, u executor.Update) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case u.Status != nil:
		c.statuses = append(c.statuses, *u.Status)
	case u.Log != nil:
		for _, line := range u.Log.Lines {
			c.lines = append(c.lines, string(line.Text))
		}
		c.offset = u.Log.Next
	case u.Note != nil:
		c.notes = append(c.notes, *u.Note)
		if !c.away {
			err := agent.Acknowledge(c.w.t.Context(), lease, c.w.sign(u.Note.Note.Note))
			if !errors.Is(err, executor.ErrNoAttempt) { // else it was closed in an earlier life
				return err
			}
		}
	}
	return nil
}

func (c *client) outcome() *executor.Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.statuses[len(c.statuses)-1]
	if last.State != executor.AttemptEnded || last.Outcome == nil {
		c.w.t.Fatalf("the last status is %+v", last)
	}
	return last.Outcome
}

// sign countersigns a note.
func (w *world) sign(n executor.Note) executor.Ack {
	return executor.Ack{Note: n, Signature: w.ackKey.Sign(n.TX().AckPreimage(w.anchor))}
}

// closed waits until nothing is left to do for the attempt.
func (w *world) closed(id executor.AttemptID) executor.Record {
	w.t.Helper()
	r := w.waitClosed(id)
	synctest.Wait() // it is on disk before the agent has let go of it
	if r.Phase != executor.PhaseClosed {
		w.t.Fatalf("attempt %s is never closed: %+v", id, r)
	}
	return r
}

func (w *world) waitClosed(id executor.AttemptID) executor.Record {
	for range 10_000 {
		if r := w.journal.Record(id); r.Phase == executor.PhaseClosed {
			return r
		}
		timer := time.NewTimer(100 * time.Millisecond)
		<-timer.C
	}
	return w.journal.Record(id)
}

// states lists the states that events told of.
func (w *world) states() (list []jobv1.State) {
	for _, e := range w.journal.Events() {
		if e.Topic == event.TopicJob {
			var m jobv1.AttemptStatus
			if err := canon.Unmarshal(e.Payload, &m); err != nil {
				w.t.Fatal(err)
			}
			list = append(list, m.State)
		}
	}
	return list
}
