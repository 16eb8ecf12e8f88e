package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
)

// Policy are the scheduler's own numbers. Zero fields take the defaults of DefaultPolicy, but for
// DeliverGrace, HostRetries and LeaseFee.
type Policy struct {
	// Asks is how many hosts are asked at the same time.
	Asks int
	// AskTimeout bounds one question to a host.
	AskTimeout time.Duration
	// PlaceWithin is how far ahead a lease's place_by lies, at most 10 min.
	PlaceWithin time.Duration
	// ClaimWindow of the leases, 24 h to 30 days.
	ClaimWindow time.Duration
	// DeliverGrace is how long a client has to deliver before the scheduler does.
	DeliverGrace time.Duration
	// StartWithin is how long a host may take from lease to its first report.
	StartWithin time.Duration
	// LostAfter is how long a host may be silent (no offer, no report) before it counts as lost.
	LostAfter time.Duration
	// HostRetries bounds attempts that failed for reasons of hosts, per run.
	HostRetries uint32
	// Overhead is added to a job's run time for fetching and collecting.
	Overhead time.Duration
	// Tick is how often what waits is looked at again.
	Tick time.Duration
	// MaxPending bounds runs that wait, MaxPendingOfOwner those of one owner. Submissions beyond are
	// refused; what was taken and waits again is not.
	MaxPending        int
	MaxPendingOfOwner int
	// LeaseFee is what is taken from an escrow for each lease that is placed under it, grains. It pays
	// for what placing, ending and settling the lease cost on the chain.
	LeaseFee uint64
}

// DefaultLeaseFee covers what a lease costs its scheduler at the lowest prices of a local network
// with a margin: 14,060 grains to place it, and up to 24,000 to end it and to settle it alone.
const DefaultLeaseFee = 50_000

// DefaultPolicy returns the numbers a network starts with.
func DefaultPolicy() Policy {
	return Policy{
		Asks: 256, AskTimeout: 5 * time.Second, PlaceWithin: 8 * time.Second,
		ClaimWindow: 24 * time.Hour, DeliverGrace: 5 * time.Second,
		StartWithin: 2 * time.Minute, LostAfter: 5 * time.Minute, HostRetries: 8,
		Overhead: 15 * time.Minute, Tick: time.Second,
		MaxPending: 2_000_000, MaxPendingOfOwner: 1_000_000, LeaseFee: DefaultLeaseFee,
	}
}

// orDefault fills zero fields, but for a grace of zero, no retries and no fee, which mean what they
// say.
func (p Policy) orDefault() Policy {
	d := DefaultPolicy()
	return Policy{
		Asks: cmp.Or(p.Asks, d.Asks), AskTimeout: cmp.Or(p.AskTimeout, d.AskTimeout),
		PlaceWithin: cmp.Or(p.PlaceWithin, d.PlaceWithin),
		ClaimWindow: cmp.Or(p.ClaimWindow, d.ClaimWindow), DeliverGrace: p.DeliverGrace,
		StartWithin: cmp.Or(p.StartWithin, d.StartWithin),
		LostAfter:   cmp.Or(p.LostAfter, d.LostAfter), HostRetries: p.HostRetries,
		Overhead: cmp.Or(p.Overhead, d.Overhead),
		Tick:     cmp.Or(p.Tick, d.Tick), MaxPending: cmp.Or(p.MaxPending, d.MaxPending),
		MaxPendingOfOwner: cmp.Or(p.MaxPendingOfOwner, d.MaxPendingOfOwner),
		LeaseFee:          p.LeaseFee,
	}
}

// Deps are what the engine stands on.
type Deps struct {
	Store  Store
	Ledger Ledger
	Hosts  Hosts
	// Assigner is the account that places leases.
	Assigner sig.AccountID
	// VerifyLease checks a lease's signature by its agent key and returns its id.
	VerifyLease func(l *tx.Lease, s sig.Signature) (tx.LeaseID, error)
	Now         func() time.Time
	// Random is what ids are made of; it is read by one at a time.
	Random io.Reader
	Log    *slog.Logger
	// Trace continues the trace of a job that was submitted earlier.
	Trace func(ctx context.Context, traceparent, step string) (context.Context, func(error))
}

// jobLocks is into how many locks the jobs are spread.
const jobLocks = 1 << 12

// Engine is the market at work. Make it with New, then Run it.
type Engine struct {
	deps   Deps
	policy Policy
	book   *Book

	// locks serialise changes of one job.
	locks [jobLocks]sync.Mutex

	watchers watchers

	// settled are attempts that ended lately; summaries holds the newest summary of the market.
	settled   endings
	summaries summaries

	// purses hold what is being promised of escrows.
	purses purses

	// refusals are the owners whose escrows' terms made the chain refuse leases.
	refusals refusals

	// awaited are the hosts of kept programs.
	awaited awaited

	// dismissals are what hosts keep for nothing and are to be told.
	dismissals dismissals

	// takers are who took a notice for what it had ended itself.
	takers takers

	// faults are hosts that failed tasks of arrays.
	faults faults

	// notes are what is known of runs that wait; lost at a restart, found again soon.
	notes notes

	// inflight are runs that are being placed and the host asked first; changed by the dispatcher
	// and its placers.
	inflightMu sync.Mutex
	inflight   map[RunID]Host

	// inbox brings runs to the dispatcher; wake tells it that offers changed.
	inbox chan queued
	wake  chan struct{}

	// chores are what is being done about attempts beside the dispatcher, so that none is begun
	// twice at once.
	choresMu sync.Mutex
	chores   map[chore]bool

	// heard is when any host was last heard, ms since 1970.
	heard atomic.Int64

	// life ends when Run is told to stop: what runs beside the dispatcher ends with it.
	life context.Context
	end  context.CancelFunc
	// dial tells the time; deps.Now is it. began is since when it is listened to hosts, ns since 1970.
	dial  dial
	began atomic.Int64
	// away is when the ledger last did not answer a look for a lease, ns since 1970; 0 = never.
	away atomic.Int64
	// swept is when the dispatcher last looked over what is due, dueFrom how far it came.
	swept   time.Time
	dueFrom Cursor
	// stopped is closed when Run returns.
	stopped chan struct{}
	// tasks counts the goroutines that Run started and waits for.
	tasks sync.WaitGroup
	// drawing guards deps.Random.
	drawing sync.Mutex
}

type queued struct {
	owner sig.AccountID
	ref   Ref
}

// maxInbox bounds the runs on their way to the dispatcher; a full inbox makes Submit wait.
const maxInbox = 1024

// New makes an engine. It starts nothing.
func New(policy Policy, deps Deps) *Engine {
	life, end := context.WithCancel(context.Background())
	e := &Engine{
		life: life, end: end,
		deps: deps, policy: policy.orDefault(), book: NewBook(),
		inflight: map[RunID]Host{}, chores: map[chore]bool{},
		inbox: make(chan queued, maxInbox), wake: make(chan struct{}, 1),
		stopped: make(chan struct{}),
	}
	e.purses.fee = e.policy.LeaseFee
	e.dial.own, e.deps.Now = deps.Now, e.dial.now
	return e
}

// Book returns the live offers.
func (e *Engine) Book() *Book { return e.book }

// Submit queues a job. Submitting it again with the same escrow returns what became of it, and
// leaves the newer storage token.
//
// Errors: ErrQueueFull, ErrOwnerFull, ErrEscrow (the text says why), ErrConflict, or the store's
// and the ledger's own.
func (e *Engine) Submit(ctx context.Context, j *Job) (*Job, error) {
	held, err := e.deps.Store.Job(ctx, j.ID)
	if errors.Is(err, ErrNotFound) {
		// Before the lock: a ledger that hangs holds up no other job.
		if err := e.admit(ctx, j.Owner); err != nil {
			return nil, err
		}
		if err := e.judgeEscrow(ctx, j); err != nil {
			return nil, err
		}
		held, err = e.insert(ctx, j)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("take the job: %w", err)
	case held.Escrow != j.Escrow:
		return nil, ErrConflict
	case held == j:
		e.enqueue(j.Owner, j.Waiting())
		return j, nil
	}
	return e.change(ctx, j.ID, func(held *Job) (string, *Run) {
		if state, _, _ := held.State(); state == Ended || j.StorageToken == "" ||
			j.StorageToken == held.StorageToken {
			return "", nil
		}
		held.StorageToken = j.StorageToken
		return "job.renewed", held.Current()
	})
}

// judgeEscrow looks whether the job's escrow pays for it, and until when.
func (e *Engine) judgeEscrow(ctx context.Context, j *Job) error {
	escrow, err := e.deps.Ledger.Escrow(ctx, j.Escrow)
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("%w: the chain holds no such escrow", ErrEscrow)
	} else if err != nil {
		return fmt.Errorf("look the escrow up: %w", err)
	}
	j.Expires, j.FirstTotal = e.lastLease(&escrow), escrow.MaxTotal
	return e.checkEscrow(j, escrow, e.deps.Now())
}

// lastLease is when the escrow does not pay for a lease any more.
func (e *Engine) lastLease(s *Escrow) time.Time { return s.Expires.Add(-e.policy.ClaimWindow) }

// insert saves a new job, unless another call was quicker; then it returns that one's.
func (e *Engine) insert(ctx context.Context, j *Job) (*Job, error) {
	lock := e.lock(j.ID)
	lock.Lock()
	defer lock.Unlock()
	held, err := e.deps.Store.Job(ctx, j.ID)
	switch {
	case err == nil:
		return held, nil
	case !errors.Is(err, ErrNotFound):
		return nil, fmt.Errorf("look the job up: %w", err)
	}
	j.Submitted = e.deps.Now()
	if err := e.lanes(j); err != nil {
		return nil, err
	}
	submitted := e.event("job.submitted", j, j.Current())
	if err := e.save(ctx, Change{Job: j, Event: submitted}); err != nil {
		return nil, err
	}
	return j, nil
}

// checkEscrow says why an escrow does not pay for a job.
func (e *Engine) checkEscrow(j *Job, s Escrow, now time.Time) error {
	need := e.policy.ClaimWindow + time.Minute
	if j.Spec.RunTime > 0 {
		need += j.Spec.RunTime
	}
	switch {
	case !s.ForJob:
		return fmt.Errorf("%w: its purpose is not a job", ErrEscrow)
	case s.Subject != [32]byte(j.ID):
		return fmt.Errorf("%w: it names another job", ErrEscrow)
	case s.Owner != j.Owner:
		return fmt.Errorf("%w: it belongs to another account", ErrEscrow)
	case s.Assigner != e.deps.Assigner:
		return fmt.Errorf("%w: its assigner is not this scheduler (%x)", ErrEscrow, e.deps.Assigner)
	case len(s.AckKeys) == 0:
		return fmt.Errorf("%w: it has no ack key", ErrEscrow)
	case s.grants() < e.policy.LeaseFee:
		return e.lacksFee(&s)
	case s.Unreserved <= e.policy.LeaseFee || s.Unreserved < s.Floor:
		return fmt.Errorf("%w: nothing in it is free to promise", ErrEscrow)
	case s.Expires.Before(now.Add(need)):
		return fmt.Errorf("%w: it expires at %s; run time and claim window need until %s", ErrEscrow,
			s.Expires.UTC().Format(time.RFC3339), now.Add(need).UTC().Format(time.RFC3339))
	}
	return nil
}

// grants is what the escrow's owner still grants for the next lease.
func (s *Escrow) grants() uint64 {
	return min(s.LeaseFee, s.LeaseFeeTotal-min(s.LeaseFeeTotal, s.LeaseFees))
}

func (e *Engine) lacksFee(s *Escrow) error {
	return fmt.Errorf("%w: %w: it grants %d grains for a lease, of %d in all of which %d are taken; "+
		"this scheduler takes %d", ErrEscrow, ErrLeaseFee, s.LeaseFee, s.LeaseFeeTotal, s.LeaseFees,
		e.policy.LeaseFee)
}

// Job returns the owner's job with the newest reason why it waits.
func (e *Engine) Job(ctx context.Context, owner sig.AccountID, id job.ID) (*Job, error) {
	j, err := e.deps.Store.Job(ctx, id)
	if err != nil {
		return nil, err
	}
	if j.Owner != owner {
		return nil, ErrNotFound
	}
	e.explainTo(j)
	e.position(ctx, j)
	return j, nil
}

// Jobs lists an owner's jobs without their revisions.
func (e *Engine) Jobs(ctx context.Context, q JobQuery) ([]*Job, error) {
	jobs, err := e.deps.Store.Jobs(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	for _, j := range jobs {
		e.explainTo(j)
	}
	return jobs, nil
}

func (e *Engine) explainTo(j *Job) {
	for i := range j.Runs {
		if r := &j.Runs[i]; r.Waits() {
			e.explainRun(j, r)
		}
	}
}

func (e *Engine) explainRun(j *Job, r *Run) {
	why, own := e.notes.why(r.ID)
	if of := e.book.Why(j.Spec.Shape()); !own && of != "" {
		why = of
	}
	if why != "" {
		r.say(why)
	}
}

// setWaiting changes the reason a pending run waits for.
func (e *Engine) setWaiting(id job.ID, run RunID, why string) {
	if e.notes.explain(run, shorten(why), e.deps.Now()) {
		e.watchers.notify(id)
	}
}

// Offer takes a host's verified offer.
func (e *Engine) Offer(o *Offer) {
	e.hear()
	if e.book.Post(o, e.deps.Now()) {
		e.poke()
	}
}

// draw makes an id. Runs are placed at the same time, and few sources of random bytes stand being
// read so: one that gave two of them the same id would leave a run for ever with a lease of which
// it does not know, as what becomes of an attempt is written down by its id.
func (e *Engine) draw(id []byte) error {
	e.drawing.Lock()
	defer e.drawing.Unlock()
	if _, err := io.ReadFull(e.deps.Random, id); err != nil {
		return fmt.Errorf("draw an id: %w", err)
	}
	return nil
}

func (e *Engine) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// enqueue hands pending runs to the dispatcher. When the engine is going down the store has them.
func (e *Engine) enqueue(owner sig.AccountID, refs []Ref) {
	for _, ref := range refs {
		select {
		case e.inbox <- queued{owner: owner, ref: ref}:
		case <-e.stopped:
			return
		}
	}
}

func (e *Engine) lock(id job.ID) *sync.Mutex {
	return &e.locks[(int(id[0])<<8|int(id[1]))%jobLocks]
}

// save makes a change durable and tells those who watch the job.
func (e *Engine) save(ctx context.Context, c Change) error {
	c.Job.forgetStatuses()
	e.awaited.set(c.Job.ID, c.Job.absences())
	c.Look = e.lookAt(c.Job)
	if err := e.deps.Store.Save(ctx, c); err != nil {
		return fmt.Errorf("save job: %w", err)
	}
	for i := range c.Job.Runs {
		if r := &c.Job.Runs[i]; r.State != Pending && r.moving() == nil {
			e.notes.forget(r.ID)
		}
	}
	e.watchers.notify(c.Job.ID)
	return nil
}

// event tells of a change of a run as it is now.
func (e *Engine) event(kind string, j *Job, r *Run) *Event {
	of := *r
	return &Event{Type: kind, Job: j, Run: &of, Time: e.deps.Now()}
}

// change loads a job, lets fn change it and saves it. fn returns the type of the event to publish
// and the run that changed; nil when nothing did. When the run, or the lane's next one, waits
// after that it is queued.
func (e *Engine) change(
	ctx context.Context, id job.ID, fn func(*Job) (event string, changed *Run),
) (*Job, error) {
	j, changed, err := e.changed(ctx, id, fn)
	if err != nil || changed == nil {
		return j, err
	}
	if ref, waits := j.WaitingSince(changed); waits {
		e.enqueue(j.Owner, []Ref{ref})
	}
	return j, nil
}

func (e *Engine) changed(
	ctx context.Context, id job.ID, fn func(*Job) (event string, changed *Run),
) (*Job, *Run, error) {
	lock := e.lock(id)
	lock.Lock()
	defer lock.Unlock()
	j, err := e.deps.Store.Job(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	live, kept := j.unclaimed(), j.keeps()
	j.rewind(e.deps.Now())
	kind, changed := fn(j)
	if changed == nil {
		return j, nil, nil
	}
	e.keepWaiting(ctx, j)
	claims := e.claims(j, live)
	told, away := e.event(kind, j, changed), j.letGo(kept)
	tasks, err := e.advance(ctx, j)
	if err != nil {
		return nil, nil, err
	}
	if err := e.save(ctx, Change{Job: j, Tasks: tasks, Claims: claims, Event: told}); err != nil {
		return nil, nil, err
	}
	for _, a := range away {
		e.sendAway(j.ID, a.Host, a.ID, "its program is not waited for any more")
	}
	return j, changed, nil
}

// keepWaiting holds to it that a run of which nothing is open waits or has ended: as anything else
// nobody would look at it again.
func (e *Engine) keepWaiting(ctx context.Context, j *Job) {
	for i := range j.Runs {
		if r := &j.Runs[i]; r.State != Ended && r.State != Pending && !r.Open() {
			e.deps.Log.ErrorContext(ctx, "a run goes on with no attempt that does", "job", j.ID,
				"state", r.State)
			r.State = Pending
		}
	}
}
