package executor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/telemetry"
)

// Identity is who this executor is.
type Identity struct {
	Key      sig.PrivateKey // of the instance; signs leases and notes
	Operator sig.AccountID
	Payee    sig.AccountID // account that is paid
	// Anchors of the chains whose money is taken, by the chain's name.
	Anchors map[string]sig.Anchor
}

// Deps is what an agent works with. All fields are needed.
type Deps struct {
	Driver  Driver
	Journal Journal
	Ledger  Ledger
	Files   Files
	Encoder Encoder
	Log     *slog.Logger
	Tracers trace.TracerProvider
	Meters  metric.MeterProvider
	Now     func() time.Time // the host's clock
}

// Agent runs the attempts of one host. It is made by New, works while Run does, and may be called
// from any goroutine. What it promised is in its journal before it is said, so a new Agent on the
// same journal and driver goes on where a killed one stopped.
type Agent struct {
	cfg      Config
	rules    rules // of the configuration
	identity Identity
	key      sig.PublicKey
	signer   signer
	deps     Deps
	dial     *dial // deps.Now is its time
	tracer   trace.Tracer
	counters counters
	offers   offers
	nudge    chan struct{} // asks the offer loop to look again
	evicting chan struct{} // asks the eviction loop to look again

	stating sync.Mutex // one word of the operator at a time
	pulls   *pulls

	// mu guards what follows. An attempt is in attempts from its question until it is closed; used
	// is the sum of what unfinished attempts reserve.
	mu        sync.Mutex
	attempts  map[AttemptID]*attempt
	byLease   map[LeaseID]*attempt
	heirs     map[AttemptID]*attempt // promised to go on with the program of the attempt named
	over      map[LeaseID]bool       // closed in this life, at most maxOver
	unopened  int                    // that wait for their payee's account, at most maxUnopened
	used      Resources
	abilities Abilities
	total     Resources
	running   context.Context // nil while Run does not run
	closed    int
	images    images
	state     HostState // written under stating, too
	set       rules     // of state.Set
	minded    minded
	lives     sync.WaitGroup
}

// New makes an agent; nothing happens before Run.
func New(cfg Config, identity Identity, deps Deps) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("executor configuration: %w", err)
	}
	rules, err := cfg.Policy.rules()
	if err != nil {
		return nil, fmt.Errorf("executor configuration: policy: %w", err)
	}
	counters, err := newCounters(deps.Meters)
	if err != nil {
		return nil, fmt.Errorf("executor metrics: %w", err)
	}
	for _, chain := range cfg.Chains {
		if _, ok := identity.Anchors[chain]; !ok {
			return nil, fmt.Errorf("executor: the anchor of chain %q is not known", chain)
		}
	}
	clock := &dial{own: deps.Now, began: deps.Now()}
	deps.Now = clock.now
	return &Agent{
		dial: clock,
		cfg:  cfg, rules: rules, identity: identity, key: identity.Key.Public(), deps: deps,
		signer: signer{key: identity.Key, anchors: identity.Anchors}, counters: counters,
		tracer: deps.Tracers.Tracer("ucn/executor"), nudge: make(chan struct{}, 1),
		evicting: make(chan struct{}, 1), pulls: newPulls(cfg.MaxPulls),
		attempts: map[AttemptID]*attempt{}, byLease: map[LeaseID]*attempt{},
		heirs: map[AttemptID]*attempt{},
		over:  map[LeaseID]bool{},
	}, nil
}

// Run adopts what an earlier life left, calls ready when questions can be answered, and works
// until ctx ends. It stops no container: they go on, and the next life adopts them.
func (a *Agent) Run(ctx context.Context, ready func()) error {
	abilities, err := a.deps.Driver.Probe(ctx)
	if err != nil {
		return fmt.Errorf("look at the container engine: %w", err)
	}
	if err := a.recall(ctx); err != nil {
		return err
	}
	a.compare(ctx) // before anything is found to be over
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.open(ctx, abilities)
	defer a.shut()
	if err := a.adopt(ctx); err != nil {
		return fmt.Errorf("adopt what runs here: %w", err)
	}
	ready()
	a.lives.Go(func() { a.fetchHeld(ctx) })
	a.lives.Go(func() { a.evictDue(ctx) })
	a.lives.Go(func() { a.mind(ctx) })
	a.postOffers(ctx)
	return nil
}

func (a *Agent) open(ctx context.Context, abilities Abilities) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.abilities = abilities
	a.total = a.cfg.Capacity
	if a.total.CPUMilli == 0 {
		a.total.CPUMilli = uint32(min(abilities.CPUMilli, 1<<31))
	}
	if a.total.Memory == 0 {
		a.total.Memory = abilities.MemoryBytes
	}
	if a.total.Disk == 0 {
		a.total.Disk = abilities.DiskBytes
	}
	a.running = ctx
}

// shut refuses new work and waits for the goroutines of the old.
func (a *Agent) shut() {
	a.mu.Lock()
	a.running = nil
	a.mu.Unlock()
	a.lives.Wait()
}

// Abilities returns what the host was found to be able to do.
func (a *Agent) Abilities() Abilities {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.abilities
}

// adopt reads the journal and the engine, and goes on with every attempt that is not closed.
// Containers that no open attempt knows are removed: nobody can be charged for them.
func (a *Agent) adopt(ctx context.Context) error {
	records, err := a.deps.Journal.Unclosed(ctx)
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	list, err := a.deps.Driver.List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	containers := make(map[AttemptID]Container, len(list))
	for _, c := range list {
		containers[c.Info().Attempt] = c
	}
	for i := range records {
		t := newAttempt(a, records[i])
		if name := records[i].container(); records[i].HandedTo == "" {
			t.container = containers[name]
			delete(containers, name)
		}
		if a.enter(t, nil) != nil {
			return errors.New("the journal names an attempt twice")
		}
		a.deps.Log.InfoContext(ctx, "attempt adopted", "attempt", t.id,
			"state", records[i].Phase.State(), "container", t.container != nil)
	}
	a.lives.Go(func() { a.removeStrays(ctx, containers) })
	for _, t := range a.snapshot() {
		a.start(t)
	}
	return nil
}

// removeStrays removes containers that nobody knows. One that cannot be removed keeps nobody from
// working: the next life tries again.
func (a *Agent) removeStrays(ctx context.Context, containers map[AttemptID]Container) {
	for id, c := range containers {
		a.deps.Log.WarnContext(ctx, "removing a container that no attempt knows", "attempt", id)
		if err := c.Remove(ctx); err != nil && ctx.Err() == nil {
			a.deps.Log.ErrorContext(ctx, "cannot remove it", "attempt", id, "error", err)
		}
	}
}

// enter makes the attempt known and reserves what it needs. An adopted one, which has no backing,
// is not weighed against what is free.
func (a *Agent) enter(t *attempt, by *backing) *Decline {
	a.mu.Lock()
	defer a.mu.Unlock()
	need := t.need
	rides := t.rec.rides()
	if rides { // the one that it continues holds it
		need = Resources{}
	}
	switch {
	case a.attempts[t.id] != nil:
		return declined(DeclineInvalid, "the attempt is being asked for already")
	case by == nil:
	case rides && a.heirs[t.ask.Continues] != nil:
		return declined(DeclineCapacity, "continues: promised to attempt %s already",
			a.heirs[t.ask.Continues].id)
	case len(a.attempts)-a.unopened >= a.cfg.MaxAttempts && !rides:
		return declined(DeclineCapacity, "%d attempts are here already", len(a.attempts)-a.unopened)
	case !fits(need, a.used, a.total):
		return declined(DeclineCapacity, "free: %s", describe(free(a.used, a.total)))
	}
	if by != nil {
		if no := a.checkDraining(); no != nil {
			return no
		}
		if no := a.judge(&t.ask.Spec); no != nil { // it may have been set since it was asked
			return no
		}
		if no := a.weigh(t, by); no != nil {
			return no
		}
	}
	a.attempts[t.id] = t
	a.byLease[t.lease.ID] = t
	if rides {
		a.heirs[t.ask.Continues] = t
	}
	if t.rec.Phase < PhaseEnded {
		a.used = plus(a.used, need)
		t.held = need
	}
	return nil
}

// release gives back what the attempt reserved; repeating it does nothing.
func (a *Agent) release(t *attempt) { a.keep(t, Resources{}) }

// keep gives back what the attempt reserved but for the rest, which is at most what it holds.
func (a *Agent) keep(t *attempt, rest Resources) {
	a.mu.Lock()
	a.used = plus(minus(a.used, t.held), rest)
	t.held = rest
	a.mu.Unlock()
	a.offerChanged()
}

// leave forgets a closed attempt, or one that never came to be.
func (a *Agent) leave(t *attempt) {
	a.release(t)
	a.mu.Lock()
	delete(a.attempts, t.id)
	delete(a.byLease, t.lease.ID)
	a.forgetHeir(t)
	if t.unopened {
		a.unopened--
	}
	if len(a.over) >= maxOver {
		clear(a.over)
	}
	a.over[t.lease.ID] = true
	a.closed++
	clean := a.closed%closeEvery == 0
	ctx := a.running
	a.mu.Unlock()
	if clean && ctx != nil {
		if err := a.deps.Journal.Forget(ctx, a.cfg.KeepClosed); err != nil {
			a.deps.Log.WarnContext(ctx, "cannot forget old attempts", "error", err)
		}
	}
}

// start gives the attempt its goroutine. It reports whether the agent runs.
func (a *Agent) start(t *attempt) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running == nil {
		return false
	}
	ctx := a.running
	a.lives.Go(func() { t.live(ctx) })
	return true
}

// whileRunning returns ctx so that it ends when Run does: what streams must not outlive it.
func (a *Agent) whileRunning(ctx context.Context) (context.Context, context.CancelFunc, error) {
	a.mu.Lock()
	running := a.running
	a.mu.Unlock()
	if running == nil {
		return nil, nil, errNotRunning
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(running, cancel)
	return ctx, func() {
		stop()
		cancel()
	}, nil
}

func (a *Agent) snapshot() []*attempt {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]*attempt, 0, len(a.attempts))
	for _, t := range a.attempts {
		list = append(list, t)
	}
	return list
}

func (a *Agent) find(id AttemptID) *attempt {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.attempts[id]
}

// Ask answers a scheduler. The same question gets the same answer, also after a restart; the lease
// in it is on disk, and its capacity held, before it is returned.
func (a *Agent) Ask(ctx context.Context, ask Ask) (Answer, error) {
	ctx, span := a.tracer.Start(ctx, "executor.ask", trace.WithAttributes(
		attribute.String("ucn.attempt", string(ask.Attempt))))
	defer span.End()
	if err := ask.Attempt.Validate(); err != nil {
		return Answer{}, fault.New(fault.InvalidArgument, ReasonBadArgument, "attempt: %v", err)
	}
	answer, err := a.answer(ctx, &ask)
	if err != nil {
		span.RecordError(err)
		return Answer{}, err
	}
	if answer.Declined != nil {
		span.SetAttributes(attribute.String("ucn.declined", string(answer.Declined.Code)))
	}
	a.counters.asked(ctx, answer)
	return answer, nil
}

func (a *Agent) answer(ctx context.Context, ask *Ask) (Answer, error) {
	if t := a.find(ask.Attempt); t != nil {
		return t.repeat(ask)
	}
	switch _, err := a.deps.Journal.Get(ctx, ask.Attempt); {
	case err == nil:
		return Answer{Declined: declined(DeclineInvalid, "the attempt is over")}, nil
	case !errors.Is(err, ErrNoAttempt):
		return Answer{}, fmt.Errorf("look the attempt up: %w", err)
	}
	if ask.Continues != "" {
		if no, err := a.continuable(ctx, ask); no != nil || err != nil {
			return Answer{Declined: no}, err
		}
	}
	now := a.deps.Now()
	lease, prices, no := a.consider(ask, now)
	if no != nil {
		return Answer{Declined: no}, nil
	}
	signed := a.signer.lease(ask.Spec.Chain, lease, prices)
	for try := 1; ; try++ {
		backed, no, err := a.backed(ctx, ask)
		if err != nil || no != nil {
			return Answer{Declined: no}, err
		}
		t := newAttempt(a, Record{
			Ask: *ask, Lease: signed, Prices: prices, Asked: now, Trace: telemetry.Inject(ctx),
		})
		answer, err := t.promise(ctx, backed)
		if answer.Declined == nil || !backed.missed || try == maxBackingReads {
			return answer, err
		}
	}
}

// promise reserves, writes down and only then says yes.
func (t *attempt) promise(ctx context.Context, money *backing) (Answer, error) {
	t.mu.Lock() // whoever asks the same meanwhile waits for the outcome
	defer t.mu.Unlock()
	if no := t.agent.enter(t, money); no != nil {
		return Answer{Declined: no}, nil
	}
	next := t.rec
	next.Phase, next.Changed = PhaseAsked, t.agent.deps.Now()
	err := t.agent.deps.Journal.Save(context.WithoutCancel(ctx), next)
	if err != nil {
		t.agent.leave(t)
		return Answer{}, fmt.Errorf("write the lease down: %w", err)
	}
	t.rec = next
	if !t.agent.start(t) {
		return Answer{}, errNotRunning
	}
	t.agent.offerChanged()
	return Answer{Lease: &t.lease}, nil
}

// repeat answers a question that was asked before.
func (t *attempt) repeat(ask *Ask) (Answer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	have := &t.rec.Ask
	same := have.Job == ask.Job && have.Revision == ask.Revision && have.Run == ask.Run &&
		have.Offer == ask.Offer && have.From == ask.From && have.Continues == ask.Continues &&
		reflect.DeepEqual(have.Terms, ask.Terms)
	switch {
	case t.rec.Phase == 0:
		return Answer{}, fault.New(fault.Unavailable, "NOT_WRITTEN", "ask again")
	case !same:
		return Answer{Declined: declined(DeclineInvalid, "the attempt was asked for otherwise")}, nil
	}
	lease := t.rec.Lease
	return Answer{Lease: &lease}, nil
}

// Attempts lists what runs and ran here, newest question first, asked before the time given (zero:
// from the newest): fewer than limit when they take much memory, none at the end only.
func (a *Agent) Attempts(ctx context.Context, before time.Time, limit int) ([]Record, error) {
	list, err := a.deps.Journal.List(ctx, before, limit)
	if err != nil {
		return nil, fmt.Errorf("list attempts: %w", err)
	}
	return list, nil
}

// tell makes the event of a status.
func (a *Agent) tell(s Status, trace string) (event.Event, error) {
	payload, err := a.deps.Encoder.Status(s)
	if err != nil {
		return event.Event{}, fmt.Errorf("encode status: %w", err)
	}
	return event.Event{
		Topic: event.TopicJob, Type: TypeAttemptChanged, Time: s.Time, Payload: payload,
		Traceparent: trace,
	}, nil
}

// Types of the events an executor posts.
const (
	TypeAttemptChanged = "attempt.changed" // topic job
	TypeOfferPosted    = "offer.posted"    // topic market
	TypePolicyChanged  = "policy.changed"  // topic operator
)
