package jobrun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// following is a job being watched: the scheduler tells which host holds it, a visit per attempt
// speaks with that host. Everything comes together in one goroutine, run.
type following struct {
	r *Runner
	e *errand

	jobs    chan *schedulerv1.Job
	reports chan report
	failed  chan error // the watch gave up
	visits  map[string]*visit
	order   []*visit // as they were begun
	shown   Event    // the state that was shown last
	asked   bool     // the job was cancelled here
	over    bool     // the scheduler says that it has ended
}

// report is what a visit has to tell; one field is set.
type report struct {
	from    *visit
	status  *jobv1.AttemptStatus
	log     *executorv1.LogChunk
	note    *noted
	warning string
	refused error
	done    bool
}

type noted struct {
	amount tx.Grains
	usage  price.Usage
}

const reportsAhead = 64 // reports that wait for the view

func newFollowing(r *Runner, e *errand) *following {
	return &following{
		r: r, e: e, jobs: make(chan *schedulerv1.Job, 1), reports: make(chan report, reportsAhead),
		failed: make(chan error, 1), visits: map[string]*visit{},
	}
}

// run follows until the job has ended and the hosts have said their last word. The job is nil only
// if it was never seen. When ctx ends, the job is cancelled and followed on.
func (f *following) run(ctx context.Context) (*schedulerv1.Job, error) {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer f.wait()
	defer stop()
	go f.watch(work)
	interrupt := ctx.Done()
	var last *schedulerv1.Job
	var over, late <-chan time.Time
	for {
		select {
		case j := <-f.jobs:
			last = j
			f.see(work, j)
			if j.GetState() == jobv1.State_STATE_ENDED && over == nil {
				timer := time.NewTimer(f.r.grace())
				defer timer.Stop()
				early := time.NewTimer(f.r.grace() / graceParts)
				defer early.Stop()
				over, late = timer.C, early.C
			}
		case rep := <-f.reports:
			f.take(&rep)
		case err := <-f.failed:
			return last, err
		case <-interrupt:
			interrupt = nil
			f.cancel(work)
		case <-late:
			f.nudge()
		case <-over:
			return last, nil
		}
		if over != nil && f.quiet() {
			return last, nil
		}
	}
}

// graceParts: after that part of the grace, streams that have not ended are asked for again.
const graceParts = 6

// nudge has visits that are not done ask their hosts again: one that was killed and came back has
// forgotten who listened, and the bus tells of that only after a while.
func (f *following) nudge() {
	for _, v := range f.order {
		if v.done {
			continue
		}
		select {
		case v.again <- struct{}{}:
		default: // it was nudged and has not looked yet
		}
	}
}

// wait lets the goroutines end; what they still report is dropped.
func (f *following) wait() {
	for _, v := range f.order {
		for open := true; open; {
			select {
			case <-v.ended:
				open = false
			case <-f.reports:
			}
		}
	}
}

// quiet tells whether no visit has anything more to say.
func (f *following) quiet() bool {
	for _, v := range f.order {
		if !v.done {
			return false
		}
	}
	return len(f.reports) == 0
}

// watch keeps the stream of the job's changes alive until ctx ends. It keeps the newest only.
func (f *following) watch(ctx context.Context) {
	wait := firstBackoff
	for {
		seen, err := f.watchOnce(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, io.EOF):
			return // it has ended, and was told
		case Lasting(err):
			f.failed <- fmt.Errorf("watch the job: %w", err)
			return
		}
		if seen {
			wait = firstBackoff
		}
		if !pause(ctx, wait) {
			return
		}
		wait = min(2*wait, lastBackoff)
	}
}

func (f *following) watchOnce(ctx context.Context) (seen bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := f.r.Session.Scheduler.WatchJob(ctx, &schedulerv1.WatchJobRequest{Job: f.e.id[:]})
	if err != nil {
		return false, err
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return seen, err
		}
		seen = true
		select {
		case <-f.jobs: // an older one that nobody has looked at
		default:
		}
		select {
		case f.jobs <- answer.GetJob():
		case <-ctx.Done():
			return seen, ctx.Err()
		}
	}
}

// see shows the job's state and begins to speak with the host of a new attempt.
func (f *following) see(ctx context.Context, j *schedulerv1.Job) {
	e := Event{
		Kind: KindState, State: stateText(j.GetState()), Reason: j.GetReason(),
	}
	if j.GetState() == jobv1.State_STATE_ENDED {
		e.State, f.over = endText(j.GetEndReason()), true
	}
	behind := false
	for _, run := range j.GetRuns() {
		for i, a := range run.GetAttempts() {
			if len(a.GetLease()) != len(tx.LeaseID{}) {
				behind = false
				continue // it was asked and has not promised anything
			}
			e.Host, e.Attempt = a.GetHost(), i+1
			e.Lease = leaseText(tx.LeaseID(a.GetLease()))
			v := f.visitOnce(ctx, run.GetId(), a)
			behind = v.status.GetState() > j.GetState()
		}
	}
	if many(f.e.spec) { // its hosts are several: the scheduler's sentence sums them up
		e.Host, e.Attempt, e.Lease = "", 0, ""
		behind = false
	}
	if !behind { // the host itself told more by now
		f.show(e)
	}
}

func (f *following) visitOnce(
	ctx context.Context, run []byte, a *schedulerv1.Attempt,
) *visit {
	key := string(a.GetId())
	if v := f.visits[key]; v != nil {
		v.attempt = a
		return v
	}
	v := newVisit(f, run, a)
	f.visits[key] = v
	f.order = append(f.order, v)
	go v.run(ctx)
	return v
}

// show shows a state unless it was shown last.
func (f *following) show(e Event) {
	if e.State == f.shown.State && e.Reason == f.shown.Reason && e.Host == f.shown.Host &&
		e.Attempt == f.shown.Attempt && e.Lease == f.shown.Lease {
		return
	}
	f.shown = e
	f.r.event(f.e, e)
}

// take shows what a host told.
func (f *following) take(rep *report) {
	v := rep.from
	switch {
	case rep.done:
		v.done = true
	case rep.status != nil:
		v.status = rep.status
		// The job's end is the scheduler's word, and which attempt is gone by.
		over := f.over || v.attempt.GetState() == jobv1.State_STATE_ENDED
		// On the way to running the scheduler may have told of a later state before.
		late := rep.status.GetState() < min(v.attempt.GetState(), jobv1.State_STATE_RUNNING)
		if rep.status.GetState() != jobv1.State_STATE_ENDED && !over && !late && !many(f.e.spec) {
			e := f.shown
			e.State, e.Reason = stateText(rep.status.GetState()), rep.status.GetReason()
			e.Host = v.host
			f.show(e)
		}
	case rep.log != nil:
		for _, line := range rep.log.GetLines() {
			f.r.event(f.e, Event{
				Kind: KindLog, Stream: streamText(line.GetStream()), Partial: line.GetPartial(),
				Text: string(line.GetText()), Host: v.host,
			})
		}
	case rep.note != nil:
		v.due = rep.note.amount
		v.usages[rep.note.usage.Hash()] = rep.note.usage
		total := amount.Amount(f.due())
		f.r.event(f.e, Event{
			Kind: KindNote, Amount: &total, Usage: usageOf(&rep.note.usage), Host: v.host,
			Lease: leaseText(v.lease),
		})
	case rep.refused != nil:
		text := fmt.Sprintf("%s asks for a countersignature and does not get it: %v", v.host,
			rep.refused)
		f.e.warnings = append(f.e.warnings, text)
		f.r.event(f.e, Event{
			Kind: KindRefused, Text: text, Host: v.host, Lease: leaseText(v.lease),
		})
	default:
		f.r.warn(f.e, "%s: %s", v.host, rep.warning)
	}
}

// due is what was countersigned on all leases.
func (f *following) due() (total tx.Grains) {
	for _, v := range f.order {
		total += v.due
	}
	return total
}

// cancel asks the scheduler to end the job; its end comes by the watch.
func (f *following) cancel(ctx context.Context) {
	if f.asked {
		return
	}
	f.asked = true
	e := f.shown
	e.State, e.Reason = "cancelling", "asking the scheduler to cancel; once more leaves at once"
	f.show(e)
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := f.r.Session.Scheduler.CancelJob(ctx, &schedulerv1.CancelJobRequest{
		Job: f.e.id[:], Reason: "interrupted by its owner",
	})
	if err != nil {
		f.r.warn(f.e, "cannot cancel: %v; try `ucn job cancel %s`", err, jobText(f.e.id))
	}
}

// outcome is how the last attempt ended, as the host told it over the bus or the scheduler. Of a
// job that completed it is the last one that did: what ran beside it was stopped.
func (f *following) outcome(j *schedulerv1.Job) *jobv1.Outcome {
	const completed = jobv1.EndReason_END_REASON_COMPLETED
	var last *jobv1.Outcome
	for _, run := range j.GetRuns() {
		for _, a := range run.GetAttempts() {
			o := a.GetStatus().GetOutcome()
			if v := f.visits[string(a.GetId())]; v != nil && v.status.GetOutcome() != nil {
				o = v.status.GetOutcome()
			}
			beside := j.GetEndReason() == completed && last.GetReason() == completed &&
				o.GetReason() != completed
			if o != nil && !beside {
				last = o
			}
		}
	}
	return last
}

func stateText(s jobv1.State) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "STATE_"))
}

func endText(r jobv1.EndReason) string {
	text := strings.ToLower(strings.TrimPrefix(r.String(), "END_REASON_"))
	return strings.ReplaceAll(text, "_", "-")
}

func streamText(s executorv1.Stream) string {
	if s == executorv1.Stream_STREAM_STDERR {
		return "stderr"
	}
	return "stdout"
}

func usageOf(u *price.Usage) *Usage {
	return &Usage{
		WallMS: u.WallMS, CPUNS: u.CPUNS, MemoryKiBMS: u.MemoryKiBMS, MemoryPeak: u.MemoryPeak,
		BytesIn: u.BytesIn, BytesOut: u.BytesOut, DiskKiBMS: u.DiskKiBMS, Runs: u.Runs,
		Unmeasured: u.Unmeasured,
	}
}
