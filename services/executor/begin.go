package executor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/telemetry"
)

// errNotPlaced holds an attempt up while its lease is on its way to the chain.
var errNotPlaced = errors.New("the lease is not on the chain yet")

const (
	maxFetches = 4                // of inputs at once, for one attempt
	minStart   = 10 * time.Second // for the last try to start
)

// awaitTask waits for the task, and for the lease to be on the chain; then the attempt is taken.
// A lease that was never placed costs nobody anything; one that waits for a task in vain is given
// back.
func (t *attempt) awaitTask(ctx context.Context) error {
	v := t.view()
	now := t.agent.deps.Now()
	lapse := time.UnixMilli(int64(t.lease.Lease.PlaceBy)).Add(placeSlack)
	switch {
	case v.rec.Stop != nil || v.task != nil || !now.Before(lapse):
		return t.look(ctx, &v, now.Before(lapse))
	}
	timer := time.NewTimer(lapse.Sub(now))
	defer timer.Stop()
	select {
	case <-v.changed:
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}

// look reads the lease from the chain and decides; early says that it may still be placed.
func (t *attempt) look(ctx context.Context, v *view, early bool) error {
	chain := t.ask.Spec.Chain
	state, err := t.agent.deps.Ledger.Lease(ctx, chain, t.lease.ID)
	switch {
	case errors.Is(err, ErrNoLease) && !early:
		return t.endUnstarted(ctx, EndExpired, "the lease was never placed")
	case errors.Is(err, ErrNoLease) && v.rec.Stop != nil && v.task == nil:
		// It may be placed until it lapses; then it must be given back.
		return t.waitChange(ctx, v, t.lapse())
	case errors.Is(err, ErrNoLease):
		return errNotPlaced
	case err != nil:
		return fmt.Errorf("read the lease: %w", err)
	}
	t.seen(state)
	late := state.From.Add(t.agent.cfg.TaskWait)
	switch {
	case v.rec.Stop != nil:
		return t.endUnstarted(ctx, v.rec.Stop.Reason, v.rec.Stop.Message)
	case t.agent.leaseIsOver(ctx, &state):
		return t.endUnstarted(ctx, EndRefused, "the lease has ended already")
	case v.task != nil:
		return t.take(ctx, v.task)
	case !t.agent.deps.Now().Before(late):
		return t.endUnstarted(ctx, EndExpired, "no task arrived in time")
	}
	return t.waitChange(ctx, v, late)
}

// seen notes when the lease began. The chain tells it again after a crash, so it is written down
// with the next change only.
func (t *attempt) seen(s LeaseState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rec.LeaseFrom = s.From
	t.placed.Store(true)
}

func (t *attempt) lapse() time.Time {
	return time.UnixMilli(int64(t.lease.Lease.PlaceBy)).Add(placeSlack)
}

// waitChange waits for a change of the attempt, at most until the time given.
func (t *attempt) waitChange(ctx context.Context, v *view, until time.Time) error {
	timer := time.NewTimer(max(until.Sub(t.agent.deps.Now()), time.Millisecond))
	defer timer.Stop()
	select {
	case <-v.changed:
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}

// leaseIsOver tells whether the lease has ended, by the chain's word or by its own time. Where the
// clock was not compared yet, it is now: the chain answers.
func (a *Agent) leaseIsOver(ctx context.Context, s *LeaseState) bool {
	if s.Settled || !s.End.IsZero() {
		return true
	}
	if !a.dial.known.Load() {
		a.compare(ctx)
	}
	return a.dial.sure() && !a.deps.Now().Before(s.Until)
}

// take checks that the escrow names the job, and writes down that the attempt will be run.
func (t *attempt) take(ctx context.Context, task *Task) error {
	ctx, span := t.agent.tracer.Start(telemetry.Extract(ctx, task.Trace), "executor.task")
	defer span.End()
	escrow, err := t.agent.deps.Ledger.Escrow(ctx, t.ask.Spec.Chain, t.lease.Lease.Escrow)
	switch {
	case errors.Is(err, ErrNoEscrow):
		return t.endUnstarted(ctx, EndRefused, "the escrow is gone")
	case err != nil:
		return fmt.Errorf("read the escrow: %w", err)
	case escrow.Job != t.ask.Job:
		return t.endUnstarted(ctx, EndRefused, "the escrow names another job")
	case escrow.Owner != t.ask.Spec.Owner:
		return t.endUnstarted(ctx, EndRefused, "the escrow belongs to another account")
	}
	why := fetching
	if t.ask.Continues != "" {
		why = "about to go on with the program of attempt " + string(t.ask.Continues)
	}
	return t.update(ctx, why, func(r *Record) {
		r.Phase, r.TaskTrace = PhaseTaken, task.Trace
		r.takeToken(task)
		r.Private = len(t.registry) > 0
	})
}

// begin makes and starts the container. Whatever an earlier life did of it is found again, since
// the engine is asked for the same.
func (t *attempt) begin(ctx context.Context) error {
	life, whole := ctx, context.WithoutCancel(ctx)
	late, missed := t.startBy()
	ctx, cancel := context.WithTimeout(ctx, max(late.Sub(t.agent.deps.Now()), minStart))
	defer cancel()
	defer context.AfterFunc(t.stopped, cancel)()
	err := t.launch(ctx)
	v := t.view()
	switch {
	case v.rec.Phase != PhaseTaken:
		return nil
	case v.rec.Stop != nil:
		return t.cutShort(whole, &v)
	case err == nil:
		return nil
	case life.Err() != nil:
		return err
	case final(err), t.crowded(err):
		return t.endUnstarted(whole, EndRefused, publicText(err))
	case !t.agent.deps.Now().Before(late):
		return t.endUnstarted(whole, EndRefused, missed+": "+first(v.rec.Waiting, publicText(err)))
	}
	return err
}

// maxNoRoom is how often an attempt finds no room for its image, over some 16 s, before it gives
// up: another host may have room.
const maxNoRoom = 10

// crowded tells whether the disk had no room for the image for too long.
func (t *attempt) crowded(err error) bool {
	if errors.Is(err, ReasonNoRoom) {
		t.noRoom++
	}
	return t.noRoom >= maxNoRoom
}

// startBy returns until when the program must have begun, and what is said if it has not: the lease
// does not wait for an image that waits for its turn.
func (t *attempt) startBy() (late time.Time, missed string) {
	late = t.view().rec.Changed.Add(t.agent.cfg.StartWait)
	until := time.UnixMilli(int64(min(t.lease.Lease.Until, 1<<53)))
	if until.Before(late) {
		return until, "the lease ended before the program could be started"
	}
	return late, "could not be started in time"
}

// cutShort ends an attempt that is to be stopped before it was seen running. A program that did
// start is metered to its end like any other.
func (t *attempt) cutShort(ctx context.Context, v *view) error {
	c, err := t.locate(ctx)
	if err != nil {
		return err
	}
	if c != nil {
		state, err := c.State(ctx)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("look at the container: %w", err)
		}
		if err == nil && state != StateCreated {
			return t.started(ctx)
		}
	}
	return t.endUnstarted(ctx, v.rec.Stop.Reason, v.rec.Stop.Message)
}

// locate returns the attempt's container, nil when there is none. A call that was cut short may
// have made one without telling.
func (t *attempt) locate(ctx context.Context) (Container, error) {
	if c := t.view().container; c != nil {
		return c, nil
	}
	r := t.view().rec
	list, err := t.agent.deps.Driver.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	for _, c := range list {
		if c.Info().Attempt == r.container() {
			t.set(func() { t.container = c })
			return c, nil
		}
	}
	return nil, nil
}

func (t *attempt) launch(ctx context.Context) error {
	v := t.view()
	if v.container == nil {
		if len(t.ask.Spec.Secrets) > 0 && v.secrets == nil || v.rec.Private && v.registry == nil {
			return t.awaitSecrets(ctx, &v)
		}
		c, err := t.create(ctx, &v)
		if err != nil {
			return err
		}
		t.set(func() { t.container, t.registry = c, nil })
		v.container = c
	}
	ctx, span := t.agent.tracer.Start(ctx, "executor.start")
	defer span.End()
	if err := v.container.Start(ctx); err != nil {
		return fmt.Errorf("start the container: %w", err)
	}
	return t.started(context.WithoutCancel(ctx))
}

// awaitSecrets waits for the task to be delivered again: secret values and registry credentials are
// never written down, so a restart before the container was made loses them.
func (t *attempt) awaitSecrets(ctx context.Context, v *view) error {
	late := v.rec.Changed.Add(t.agent.cfg.TaskWait)
	if !t.agent.deps.Now().Before(late) {
		return fault.New(fault.FailedPrecondition, ReasonSecrets,
			"the secrets were lost in a restart and did not come again")
	}
	return t.waitChange(ctx, v, late)
}

func (t *attempt) create(ctx context.Context, v *view) (Container, error) {
	sources, err := t.fetch(ctx, v)
	if err != nil {
		return nil, err
	}
	if until := t.lease.Lease.Until; t.agent.dial.sure() && unixMillis(t.agent.deps.Now()) >= until {
		return nil, fault.New(fault.FailedPrecondition, ReasonNoLease,
			"the lease ended before the program could be started")
	}
	ctx, span := t.agent.tracer.Start(ctx, "executor.create")
	defer span.End()
	spec, err := t.agent.containerSpec(t.ask, sources, v.secrets)
	if err != nil {
		return nil, err
	}
	c, err := t.agent.deps.Driver.Create(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("create the container: %w", err)
	}
	return c, nil
}

// fetch brings image and inputs here, all at once.
func (t *attempt) fetch(ctx context.Context, v *view) ([]string, error) {
	ctx, span := t.agent.tracer.Start(ctx, "executor.fetch", trace.WithAttributes(
		attribute.String("ucn.image", string(t.ask.Spec.Image)),
		attribute.Int("ucn.inputs", len(t.ask.Spec.Inputs))))
	defer span.End()
	as := FileAccess{Token: v.rec.Token, Job: t.ask.Job}
	sources := make([]string, len(t.ask.Spec.Inputs))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxFetches)
	group.Go(func() error { return t.fetchImage(ctx, as, v) })
	for i, in := range t.ask.Spec.Inputs {
		group.Go(func() error {
			path, err := t.agent.deps.Files.FetchInput(ctx, as, FetchInput{
				Attempt: t.id, Index: i, CID: in.CID, Max: t.maxInputs(),
			})
			sources[i] = path
			if err != nil {
				return fmt.Errorf("fetch input %s: %w", in.CID, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		span.RecordError(err)
		return nil, err
	}
	return sources, nil
}

// maxInputs bounds the inputs together by what the host has left for anyone: they are not part of
// the job's own disk.
func (t *attempt) maxInputs() uint64 { return t.agent.Abilities().DiskBytes / 2 }

// started writes down that the program runs, with the first note, which covers what is due at once.
func (t *attempt) started(ctx context.Context) error {
	v := t.view()
	var tally Tally
	tally.Begin(t.agent.deps.Now())
	note := t.sign(&v.rec, &tally, false)
	return t.update(ctx, "", func(r *Record) {
		r.Phase, r.Tally = PhaseRunning, tally
		r.noted(note, 0)
	})
}

// final tells errors that no repetition mends.
func final(err error) bool {
	if none := (*NoRoomError)(nil); errors.As(err, &none) && none.Lasting {
		return true
	}
	for _, f := range []error{
		ErrInvalid, ErrUnsupported, ErrImageMismatch, ErrExists, ErrNoFile, ErrFileMismatch,
		ErrFileTooBig, ErrFileDenied, fault.FailedPrecondition, fault.InvalidArgument,
	} {
		if errors.Is(err, f) {
			return true
		}
	}
	return false
}

// publicText is what the owner is told of an error: the words of a fault, or of the driver's
// own errors, which name fields of the spec; nothing else of this host.
func publicText(err error) string {
	if f := fault.From(err); f != nil {
		return f.Message()
	}
	for _, e := range []error{ErrInvalid, ErrUnsupported, ErrImageMismatch, ErrNoImage, ErrExists} {
		if errors.Is(err, e) {
			return err.Error()
		}
	}
	return "the host could not start it"
}
