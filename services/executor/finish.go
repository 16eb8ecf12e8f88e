package executor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/united-containers/ucn/kit/fault"
)

// maxCollectWaits bounds, in times CollectWait, how long storing may take while storage only says
// when to come again.
const maxCollectWaits = 12

// finish ends an attempt whose program is over: outputs and log are stored, then the outcome and
// the last note are written down and told at once; charging and clearing away come after. c is nil
// when the container is gone.
func (t *attempt) finish(ctx context.Context, c Container, exit Exit) error {
	if err := t.unwritten(ctx); err != nil {
		return err
	}
	r := t.view().rec
	if exit.Kind == ExitRefused {
		return t.endUnstarted(ctx, EndRefused, "the program could not be started: "+exit.Detail)
	}
	outcome := judge(&r, exit)
	tally := r.Tally
	if c != nil && exit.Kind != ExitLost {
		sample, err := c.Usage(ctx)
		if err != nil {
			t.agent.deps.Log.WarnContext(ctx, "the last measurement failed; what it would have "+
				"shown is not billed", "attempt", t.id, "error", err)
		}
		tally.Finish(sample, exit, t.need)
		// Storing may take long, or wait for a token: only the disk is still in use.
		t.agent.keep(t, Resources{Disk: t.need.Disk})
		if err := t.collect(ctx, c, outcome); err != nil {
			return err
		}
	}
	if err := t.cutBeforeTheEnd(ctx, &tally); err != nil {
		return err
	}
	r = t.view().rec
	note := t.lastWord(&r, &tally, outcome)
	outcome.Message = strings.ToValidUTF8(outcome.Message, "_") // or no event could hold it
	outcome.Usage, outcome.Amount = note.Usage, note.Note.Cumulative
	err := t.update(ctx, outcome.Message, func(r *Record) {
		r.Phase, r.Tally, r.Note, r.Outcome = PhaseEnded, tally, note, outcome
	})
	if err != nil {
		return err
	}
	t.agent.counters.ended(ctx, outcome)
	trace.SpanFromContext(ctx).SetAttributes(
		attribute.Int64("ucn.cost.grains", int64(outcome.Amount)),
		attribute.Int64("ucn.usage.cpu_ns", int64(outcome.Usage.CPUNS)),
		attribute.Int64("ucn.usage.wall_ms", int64(outcome.Usage.WallMS)))
	t.agent.release(t)
	return nil
}

// judge says how it ended. A program that ended by itself before it was stopped has ended by
// itself.
func judge(r *Record, exit Exit) *Outcome {
	o := &Outcome{Code: exit.Code, Message: exit.Detail}
	switch exit.Kind {
	case ExitCompleted:
		o.Reason = EndCompleted
		if exit.Code != 0 {
			o.Reason = EndFailed
			o.Message = fmt.Sprintf("the program exited with code %d", exit.Code)
			if exit.Code > 128 {
				o.Message = fmt.Sprintf("the program was ended by signal %d", exit.Code-128)
			}
		}
		if exit.OOM {
			o.Message = strings.TrimPrefix(o.Message+"; a process was killed for its memory", "; ")
		}
	case ExitOOM:
		o.Reason = EndFailed
		o.Message = fmt.Sprintf("out of memory: limit %d MiB", r.Ask.Spec.Resources.Memory>>20)
	case ExitStopped:
		o.Reason, o.Message = EndEvicted, "the host stopped the program"
		if r.Stop != nil {
			o.Reason, o.Message = r.Stop.Reason, r.Stop.Message
		}
	default:
		o.Reason, o.Message = EndHostLost, "the host lost the program"
	}
	return o
}

// collect stores outputs and log with the owner's token. What cannot be stored in time, see
// Config.CollectWait, is named in the outcome's message and does not change how the program ended.
// An error means that ctx ended: nothing is decided then.
func (t *attempt) collect(ctx context.Context, c Container, o *Outcome) error {
	ctx, span := t.agent.tracer.Start(ctx, "executor.collect")
	defer span.End()
	within, patience, cancel := patienceOf(ctx, t.agent.cfg.CollectWait)
	defer cancel()
	t.patience.Store(patience)
	logs := make(chan stored, 1)
	go func() { logs <- t.storeLog(within, c) }()
	h := &harvest{t: t, container: c, ctx: within}
	h.outputs(t.ask.Spec.Outputs)
	log := <-logs
	if log.err != nil {
		h.trouble("the log could not be stored: %s", publicText(log.err))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	span.SetAttributes(attribute.Int("ucn.outputs", len(h.files)))
	o.Outputs, o.LogCID = h.files, log.file.CID
	if len(h.troubles) > 0 {
		o.Message = strings.TrimPrefix(o.Message+"; "+strings.Join(h.troubles, "; "), "; ")
	}
	return nil
}

type stored struct {
	file StoredFile
	err  error
}

// store tries until it works, the error is final, or ctx ends. A refused token is waited for: the
// client may deliver the task again with a new one.
func (t *attempt) store(ctx context.Context, put func(FileAccess) (StoredFile, error)) stored {
	for wait := firstBackoff; ; wait = min(2*wait, lastBackoff) {
		v := t.view()
		file, err := put(FileAccess{Token: v.rec.Token, Job: t.ask.Job})
		if err == nil || ctx.Err() != nil || finalStore(err) {
			return stored{file, err}
		}
		pause := wait
		if f := fault.From(err); f != nil && f.Kind() == fault.ResourceExhausted && f.Retry() > 0 {
			pause = max(wait, f.Retry()) // storage is there and names when it takes more
			t.patience.Load().renew()
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-v.changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// patience is how long storing is tried. It begins anew when storage, which is there, says when to
// come again: what a job made was paid for.
type patience struct {
	timer *time.Timer
	wait  time.Duration
	last  time.Time
}

// patienceOf returns a context that ends when the patience does.
func patienceOf(ctx context.Context, wait time.Duration) (
	context.Context, *patience, context.CancelFunc,
) {
	ctx, cancel := context.WithCancelCause(ctx)
	p := &patience{wait: wait, last: time.Now().Add(maxCollectWaits * wait)}
	p.timer = time.AfterFunc(wait, func() { cancel(context.DeadlineExceeded) })
	return ctx, p, func() {
		p.timer.Stop()
		cancel(nil)
	}
}

// renew begins anew, unless it has ended.
func (p *patience) renew() {
	if p.timer.Stop() {
		p.timer.Reset(max(0, min(p.wait, time.Until(p.last))))
	}
}
