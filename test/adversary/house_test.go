package adversary

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	meternoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/ack"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/kit/rpc"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/agenttest"
	"github.com/united-containers/ucn/services/executor/fake"
	"github.com/united-containers/ucn/services/executor/ledgerclient"
	executorserver "github.com/united-containers/ucn/services/executor/server"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	ledgerserver "github.com/united-containers/ucn/services/ledger/server"
	"github.com/united-containers/ucn/services/ledger/solo"
	"github.com/united-containers/ucn/services/scheduler"
)

// Accounts of a house's network.
const (
	owner = iota
	assigner
	host
	agentKey
	neighbour // another host, which is paid under its agent's account
	people
)

const (
	image    = "bafkreihddrhfp65j3gyy2qtc4rs4kfb5ciydggfcobmq5clojg72eb2qiu"
	jobRuns  = 100 * time.Second
	fromHost = tx.Grains(block.UCN) / 3600 // a core, per second
	// What the owner allows to be paid that it has not signed for.
	houseTrust = 20 * fromHost
)

// house is the real services around one job: a ledger behind its gRPC service, the executor's agent
// with the real client of that ledger, and the owner's real checks. Only the container engine is
// a fake, in memory. Who cheats replaces one of them.
type house struct {
	t       *testing.T
	n       *ledgertest.Network
	chain   *ledger.Chain
	client  ledgerv1.LedgerServiceClient
	agent   *executor.Agent
	journal *agenttest.Journal
	nonces  [people]uint64
	escrow  tx.EscrowID
	lease   executor.SignedLease
	disk    ledgertest.Disk
	pipe    rpc.Pipe
	down    []func() // ends the ledger
	lose    func()   // ends the executor, for good
	fees    [people]tx.Grains
	closed  []func() // ends everything else

	mu     sync.Mutex // guards what the owner signed, and whether it does
	signed []executor.Ack
	absent bool
}

// cheat is what is wrong in a house.
type cheat struct {
	driver func(executor.Driver) executor.Driver
	ledger func(*house, executor.Ledger) executor.Ledger
	// away takes ledger and owner away for an hour of a job of 90 minutes.
	away bool
	// ends is when the owner ends the lease, without a word to the host; 0 for never.
	ends time.Duration
	// config changes the executor's, terms those of the escrow.
	config func(*executor.Config)
	terms  func(*tx.Terms)
	// repeats makes everything that the owner signed reach the executor again, oldest last.
	repeats bool
}

func newHouse(t *testing.T, c cheat) *house {
	t.Helper()
	h := &house{t: t, journal: agenttest.NewJournal()}
	var err error
	if h.n, err = ledgertest.NewNetwork(9, people); err != nil {
		t.Fatal(err)
	}
	h.openLedger()
	h.dial()
	h.openEscrow(c)
	h.openAgent(c)
	return h
}

// close ends everything, newest first.
func (h *house) close() {
	end(h.closed)
	end(h.down)
}

func end(closers []func()) {
	for i := len(closers) - 1; i >= 0; i-- {
		closers[i]()
	}
}

// anybody may submit.
type anybody struct{}

func (anybody) Authenticate(context.Context, string) (rpc.Caller, error) {
	return rpc.Caller{Scopes: []string{ledgerserver.Scope}}, nil
}

func (h *house) openLedger() {
	c, stop := ledgertest.Start(h.t, ledger.Config{Pool: ledger.DefaultPool()}, ledger.Deps{
		Genesis: h.n.Genesis, Store: h.disk.Open(),
		Orderer: func(head ledger.Header) (ledger.Orderer, error) {
			return solo.New(solo.Default(), h.n.MaxStep(), solo.Deps{Key: h.n.Proposer, Head: head})
		},
	})
	h.chain = c
	h.down = []func(){func() {
		if err := stop(); err != nil {
			h.t.Error(err)
		}
	}}
	s, err := ledgerserver.New(ledgerserver.Config{}, ledgerserver.Deps{Chains: []*ledger.Chain{c}})
	if err != nil {
		h.t.Fatal(err)
	}
	listener, err := h.pipe.Listen("ledger")
	if err != nil {
		h.t.Fatal(err)
	}
	front, err := rpc.NewServer(rpc.DefaultServer(), rpc.ServerDeps{
		Auth: anybody{}, Listener: listener, Public: ledgerserver.Public(),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	s.Register(front)
	h.down = append(h.down, h.run(s.Run), h.run(front.Run))
}

// dial connects everybody to the ledger.
func (h *house) dial() {
	conn, err := rpc.NewPipeDialer(&h.pipe, rpc.ClientDeps{
		Tokens: instance.NewTokens(h.n.Keys[agentKey], block.Main, h.n.Accounts[host], nil),
	}).Dial(h.t.Context(), "ledger")
	if err != nil {
		h.t.Fatal(err)
	}
	h.closed = append(h.closed, func() { _ = conn.Close() })
	h.client = ledgerv1.NewLedgerServiceClient(conn)
}

// run runs a component until the function it returns is called.
func (h *house) run(component func(context.Context, func()) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- component(ctx, func() { close(ready) }) }()
	<-ready
	return func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	}
}

// do commits an operation of an account.
func (h *house) do(from int, o tx.Operation) tx.Receipt {
	h.t.Helper()
	raw := h.n.Sign(from, h.n.Body(from, h.nonces[from], o))
	h.nonces[from]++
	results, _, err := h.chain.Submit(h.t.Context(), [][]byte{raw}, ledger.Committed)
	if err != nil || results[0].Err != nil {
		h.t.Fatalf("%T: %v, %+v", o, err, results)
	}
	receipt, err := tx.DecodeReceipt(results[0].Receipt)
	if err != nil || receipt.Status != chainv1.Status_STATUS_OK {
		h.t.Fatalf("%T: %+v, %v", o, receipt, err)
	}
	h.fees[from] += receipt.Fee
	return receipt
}

const escrowAmount = 2 * block.UCN

func (h *house) openEscrow(c cheat) {
	terms := tx.Terms{
		MaxRate: tx.GrainsPerHour(10 * block.UCN), MaxTotal: escrowAmount, Trust: c.trust(),
		AckKeys: []sig.PublicKey{h.n.Keys[owner].Public()}, Assigner: h.n.Accounts[assigner],
		Expires:  tx.Millis(time.Now().Add(60 * 24 * time.Hour).UnixMilli()),
		LeaseFee: scheduler.DefaultLeaseFee, LeaseFeeTotal: block.UCN / 10,
	}
	if c.terms != nil {
		c.terms(&terms)
	}
	r := h.do(owner, &tx.OpenEscrow{
		Purpose: chainv1.Purpose_PURPOSE_JOB, Subject: subject[:], Amount: escrowAmount, Terms: terms,
	})
	h.escrow = tx.EscrowID(r.Outcomes[0].Created)
}

func (h *house) openAgent(c cheat) {
	var run func(context.Context, func()) error
	h.agent, run = h.newAgent(c, agentKey, host, h.journal)
	h.lose = sync.OnceFunc(h.run(run))
	h.closed = append(h.closed, h.lose)
	synctest.Wait() // it has posted its offer
}

// newAgent makes an executor with a key of its own, paid to an account.
func (h *house) newAgent(c cheat, key, payee int, journal *agenttest.Journal) (
	*executor.Agent, func(context.Context, func()) error,
) {
	engine := fake.NewHost(fake.Options{AnyImage: true})
	h.closed = append(h.closed, engine.Shutdown)
	var driver executor.Driver = engine.Driver("e")
	if c.driver != nil {
		driver = c.driver(driver)
	}
	own := ledgerclient.New(h.client, h.n.Keys[key], ledgerclient.Clock{Now: time.Now})
	h.closed = append(h.closed, func() { _ = own.Close() })
	var money executor.Ledger = own
	if c.ledger != nil {
		money = c.ledger(h, own)
	}
	encoder, err := executorserver.NewEncoder(nil)
	if err != nil {
		h.t.Fatal(err)
	}
	config := executor.DefaultConfig()
	if c.config != nil {
		c.config(&config)
	}
	agent, err := executor.New(config, executor.Identity{
		Key: h.n.Keys[key], Operator: h.n.Accounts[payee], Payee: h.n.Accounts[payee],
		Anchors: map[string]sig.Anchor{block.Main: h.n.Anchor},
	}, executor.Deps{
		Driver: driver, Journal: journal, Ledger: money, Files: agenttest.NewFiles(),
		Encoder: encoder, Log: slog.New(slog.DiscardHandler),
		Tracers: tracenoop.NewTracerProvider(), Meters: meternoop.NewMeterProvider(), Now: time.Now,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return agent, agent.Run
}

// play runs a job of jobRuns on one core to its end and returns what was paid for it.
func (h *house) play(c cheat) tx.Grains {
	h.t.Helper()
	ask := executor.Ask{
		From: executor.Peer{
			Instance: h.n.Keys[assigner].Public(), Operator: h.n.Accounts[assigner],
		},
		Job: subject, Revision: executor.Hash{3}, Run: "01", Attempt: "a1", Offer: h.offer(),
		Spec: executor.JobSpec{
			Owner: h.n.Accounts[owner], Chain: block.Main, Name: "job", Image: image,
			Args:      []string{"use", "200", "sleep", c.runs().String()},
			Isolation: executor.IsolationStandard,
			Resources: executor.Resources{CPUMilli: 1000, Memory: 64 << 20, Disk: 64 << 20},
		},
		Terms: executor.Terms{
			Escrow: executor.EscrowID(h.escrow), Subject: subject, Epoch: 1, Budget: uint64(block.UCN),
			Trust: uint64(c.trust()), AckKeys: []sig.PublicKey{h.n.Keys[owner].Public()},
			PlaceBy: uint64(time.Now().Add(time.Minute).UnixMilli()),
			Until:   uint64(time.Now().Add(3 * time.Hour).UnixMilli()),
		},
	}
	answer, err := h.agent.Ask(h.t.Context(), ask)
	if err != nil || answer.Lease == nil {
		h.t.Fatalf("ask: %+v, %v", answer.Declined, err)
	}
	h.lease = *answer.Lease
	h.do(assigner, &tx.PlaceLease{Lease: *h.lease.Lease.TX(), Signature: h.lease.Signature})
	attended := make(chan struct{})
	go func() {
		defer close(attended)
		h.attend(ask)
	}()
	if c.away {
		h.goAway()
	}
	if c.ends > 0 {
		pass(c.ends)
		h.do(owner, &tx.End{Lease: tx.LeaseID(h.lease.ID)})
	}
	<-attended
	if c.repeats {
		h.repeat()
	}
	h.settled(ask.Attempt)
	state, _ := h.chain.State().Lease(tx.LeaseID(h.lease.ID))
	return state.Paid
}

func (c cheat) runs() time.Duration {
	switch {
	case c.away:
		return 90 * time.Minute
	case c.ends > 0:
		return time.Hour
	}
	return jobRuns
}

// trust is what the owner lets a host be paid without its signature: enough for all of the job when
// nobody can sign for most of it.
func (c cheat) trust() tx.Grains {
	if c.away {
		return block.UCN
	}
	return houseTrust
}

// goAway takes ledger and owner away after ten minutes and brings them back an hour later.
func (h *house) goAway() {
	pass(10 * time.Minute)
	h.setAbsent(true)
	end(h.down)
	pass(time.Hour)
	h.openLedger()
	h.setAbsent(false)
}

func pass(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

func (h *house) setAbsent(absent bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.absent = absent
}

// attend is the owner's client: it delivers the task and signs what its own checks let pass.
func (h *house) attend(ask executor.Ask) {
	h.t.Helper()
	if err := h.watch(ask); err != nil {
		h.t.Errorf("task: %v", err)
	}
}

// watch is attend for an executor that may go away, or take no signature for what it refuses.
func (h *house) watch(ask executor.Ask) error {
	held, _ := h.chain.State().Lease(tx.LeaseID(h.lease.ID))
	var checker *ack.Checker
	task := executor.Task{
		From: executor.Peer{Account: h.n.Accounts[owner]}, Job: ask.Job, Revision: ask.Revision,
		Run: ask.Run, Attempt: ask.Attempt, Lease: h.lease.ID, StorageToken: "token",
	}
	return h.agent.Task(h.t.Context(), task, func(u executor.Update) error {
		if u.Note == nil {
			return nil
		}
		if checker == nil {
			var err error
			checker, err = ack.New(ack.Agreement{
				Anchor: h.n.Anchor, Lease: held.Lease, From: held.From, Budget: held.Budget,
				Prices: u.Note.Prices.Rules(), Revision: tx.Hash(ask.Revision), Escrow: h.escrow,
				Job: ask.Job, Key: h.n.Keys[owner],
			}, time.Now)
			if err != nil {
				return err
			}
		}
		return h.sign(checker, u.Note)
	})
}

func (h *house) sign(checker *ack.Checker, n *executor.NoteAsk) error {
	h.mu.Lock()
	absent := h.absent
	h.mu.Unlock()
	if absent {
		return nil
	}
	checked, err := checker.Check(&jobv1.SignedNote{
		Note: n.Note.Note.TX().PB(), Signature: n.Note.Signature[:], Usage: n.Note.Usage.PB(),
		Prices: n.Prices.Rules().PB(), Final: n.Note.Final,
	})
	if err != nil {
		return nil // refused: the owner goes on watching
	}
	signed := executor.Ack{Note: n.Note.Note, Signature: checked.Countersignature.Signature}
	h.mu.Lock()
	h.signed = append(h.signed, signed)
	h.mu.Unlock()
	return h.agent.Acknowledge(h.t.Context(), h.lease.ID, signed)
}

// repeat sends everything that the owner signed again, newest first.
func (h *house) repeat() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.signed) - 1; i >= 0; i-- {
		for range 3 {
			_ = h.agent.Acknowledge(h.t.Context(), h.lease.ID, h.signed[i])
		}
	}
}

// settled waits until the executor has nothing more to do for the attempt.
func (h *house) settled(id executor.AttemptID) {
	h.t.Helper()
	h.settledIn(h.journal, id)
}

func (h *house) settledIn(journal *agenttest.Journal, id executor.AttemptID) {
	h.t.Helper()
	for range 10_000 {
		if journal.Record(id).Phase == executor.PhaseClosed {
			return
		}
		timer := time.NewTimer(100 * time.Millisecond)
		<-timer.C
	}
	h.t.Errorf("the attempt is never closed: its phase is %v", journal.Record(id).Phase)
}

// offer returns the hash of what the executor offers.
func (h *house) offer() executor.Hash {
	h.t.Helper()
	return offerIn(h.t, h.journal)
}

// offerIn returns the hash of the newest offer of an executor.
func offerIn(t *testing.T, journal *agenttest.Journal) executor.Hash {
	t.Helper()
	for _, e := range slices.Backward(journal.Events()) {
		if e.Type != executor.TypeOfferPosted {
			continue
		}
		var m marketv1.Offer
		if err := canon.Unmarshal(e.Payload, &m); err != nil {
			t.Fatal(err)
		}
		hash, err := canon.Hash(&m)
		if err != nil {
			t.Fatal(err)
		}
		return hash
	}
	t.Fatal("no offer was posted")
	return executor.Hash{}
}
