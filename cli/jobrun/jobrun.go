package jobrun

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/proof"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/cli/session"
	"github.com/united-containers/ucn/cli/unclosed"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/registry"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// How long things may take.
const (
	callTimeout   = 20 * time.Second       // one call to a service
	DefaultPoll   = 150 * time.Millisecond // between looks at a lease that is to be settled
	DefaultSettle = 30 * time.Second       // for hosts to make their last charge
	DefaultGrace  = 6 * time.Second        // for the last note after the job's end
	firstBackoff  = 200 * time.Millisecond // before a stream that broke is asked for again
	lastBackoff   = 5 * time.Second
)

// maxWatched is how many tasks of an array are followed to their bill.
const maxWatched = 1000

// Errors of a run, beside those of the services.
var (
	ErrFee       = errors.New("the scheduler's lease fee")
	ErrBalance   = errors.New("the wallet holds too little for this job's escrow")
	ErrScheduler = errors.New("the scheduler does not prove that it is the operator's")
	ErrNotYours  = errors.New("the job is another account's")
	ErrSecrets   = errors.New("secrets and their values do not match")
	ErrTooMany   = errors.New("too many tasks to follow in a terminal: use --detach, and `ucn job " +
		"wait`, `job tasks` and `job bill` later")
)

// Runner runs jobs for one wallet.
type Runner struct {
	Session *session.Session
	View    View
	// Registry resolves image references; nil asks registries.
	Registry Resolver
	// Errands remembers jobs on their way; nil remembers none.
	Errands Errands
	// Unclosed remembers escrows that had to be left open; nil remembers none.
	Unclosed Unclosed
	// Save keeps an output in a file of this machine; nil keeps none.
	Save func(ctx context.Context, cid, path string) error
	// Poll, Settle and Grace replace the defaults when positive.
	Poll, Settle, Grace time.Duration
}

// Request is a job to run.
type Request struct {
	File jobfile.File
	// Secrets has a value for each name in the file, and no other.
	Secrets map[string][]byte
	// Dir is where outputs without a place of their own are saved.
	Dir string
	// Detach returns once the job is queued. The host then is trusted with the whole budget, since
	// nobody countersigns.
	Detach bool
	// Credentials are for registries of the image; hosts get them sealed, at most 8.
	Credentials []registry.Credential
	// Insecure names registries that the reference is resolved at without TLS.
	Insecure []string
}

// errand is one job on its way.
type errand struct {
	id       job.ID
	revision *jobv1.SignedRevision
	spec     *jobv1.JobSpec
	file     jobfile.File
	secrets  map[string][]byte
	dir      string
	// credentials for registries
	credentials []registry.Credential

	key    sig.PrivateKey
	trust  proof.Trust
	escrow tx.EscrowID
	token  string // for storage
	// since is the height from which the job's charges are searched.
	since  uint64
	before tx.Grains // balance
	// own are the owner's transactions for this job; fees what they cost.
	own      []tx.ID
	fees     tx.Grains
	warnings []string

	// release lets other commands work on the job; never nil once it is kept.
	release func()
	// resumed says that another command was killed over the job, at some time after started; anew
	// that its escrow was opened again, unsure that something of it may be left.
	resumed, anew, unsure bool
	// joined says that another command opened the escrow, and that before is not known from it.
	joined  bool
	started time.Time
}

// Run submits the job and follows it to the end. When ctx ends while the job is on its way the job
// is cancelled and billed all the same. The report is not nil when the job was submitted, even if
// an error comes with it.
func (r *Runner) Run(ctx context.Context, q Request) (*Report, error) {
	e, err := r.submit(ctx, q)
	if err != nil {
		return nil, err
	}
	if e.release != nil {
		defer e.release()
	}
	return r.follow(ctx, e, q.Detach)
}

// follow sees a queued job to its end, unless nobody waits for that.
func (r *Runner) follow(ctx context.Context, e *errand, detach bool) (*Report, error) {
	if !detach {
		return r.see(ctx, e)
	}
	r.closeTwins(ctx, e)
	later := r.closeLater(e, unclosed.Escrow{})
	r.drop(e)
	report := &Report{
		Job: jobText(e.id), Name: e.spec.GetName(), State: "pending", Warnings: e.warnings,
		Escrow: escrowText(e.escrow), TraceID: traceID(ctx), Outputs: []Output{},
		ClosesLater: later,
	}
	r.event(e, Event{Kind: KindResult, Report: report})
	return report, nil
}

// Attach follows a job that was submitted before: it countersigns, shows and bills as Run does.
// Ending ctx cancels the job only if cancel is set.
func (r *Runner) Attach(ctx context.Context, jobID job.ID, q Request) (*Report, error) {
	e, err := r.find(ctx, jobID, q)
	if err != nil {
		return nil, err
	}
	return r.see(ctx, e)
}

// find makes the errand of a job that the scheduler knows. What the scheduler says of the job is
// held against the job's id, which is the hash of what the owner signed.
func (r *Runner) find(ctx context.Context, jobID job.ID, q Request) (*errand, error) {
	s := r.Session
	key, err := s.Key()
	if err != nil {
		return nil, err
	}
	genesis, err := s.Genesis(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := s.Scheduler.GetJob(ctx, &schedulerv1.GetJobRequest{Job: jobID[:]})
	if err != nil {
		return nil, fmt.Errorf("look the job up: %w", err)
	}
	j := answer.GetJob()
	spec := j.GetRevision().GetRevision().GetSpec()
	got, err := job.Verify(j.GetRevision(), sig.KeySet{})
	switch {
	case err != nil:
		return nil, fmt.Errorf("the scheduler's copy of the job: %w", err)
	case got != jobID || string(spec.GetOwner()) != string(s.Account[:]):
		return nil, ErrNotYours
	case len(j.GetEscrow()) != len(tx.EscrowID{}):
		return nil, fmt.Errorf("%w: the scheduler names no escrow", ErrNotYours)
	}
	e := &errand{
		id: jobID, revision: j.GetRevision(), spec: spec, file: q.File, secrets: q.Secrets,
		credentials: q.Credentials, dir: q.Dir, key: key, trust: proof.TrustOf(genesis),
		escrow: tx.EscrowID(j.GetEscrow()), joined: true,
	}
	if e.token, err = r.storageToken(e); err != nil {
		return nil, err
	}
	e.since, err = r.heightAt(ctx, j.GetSubmitted())
	return e, err
}

// see follows the job and finishes.
func (r *Runner) see(ctx context.Context, e *errand) (*Report, error) {
	f := newFollowing(r, e)
	last, err := f.run(ctx)
	if last == nil {
		return nil, err
	}
	report := f.report(ctx, last)
	if err != nil {
		return report, err
	}
	r.finish(context.WithoutCancel(ctx), f, last, report)
	r.closeTwins(context.WithoutCancel(ctx), e)
	r.drop(e)
	report.Warnings = e.warnings
	r.event(e, Event{Kind: KindResult, Report: report})
	return report, nil
}

// event completes and shows an event.
func (r *Runner) event(e *errand, event Event) {
	event.Time = r.Session.Now()
	if e != nil {
		event.Job = jobText(e.id)
	}
	r.View.Event(event)
}

// warn tells and keeps a warning.
func (r *Runner) warn(e *errand, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	e.warnings = append(e.warnings, text)
	r.event(e, Event{Kind: KindWarning, Text: text})
}

func (r *Runner) storageToken(e *errand) (string, error) {
	var scopes []string
	if image := e.spec.GetImage().GetCid(); image != "" {
		scopes = append(scopes, "file:read:"+image)
	}
	for _, in := range e.spec.GetInputs() {
		scopes = append(scopes, "file:read:"+in.GetCid())
	}
	scopes = append(scopes, "file:write:"+jobText(e.id))
	const life = 24 * time.Hour // the most a token may live
	text, err := r.Session.Token(r.Session.Operator, life, scopes...)
	if err != nil {
		return "", fmt.Errorf("make a storage token (images and inputs together are at most 63): %w",
			err)
	}
	return text, nil
}

func (r *Runner) poll() time.Duration   { return or(r.Poll, DefaultPoll) }
func (r *Runner) settle() time.Duration { return or(r.Settle, DefaultSettle) }
func (r *Runner) grace() time.Duration  { return or(r.Grace, DefaultGrace) }

func or(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

// pause waits and reports whether ctx still stands.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func traceID(ctx context.Context) string {
	if c := trace.SpanContextFromContext(ctx); c.HasTraceID() {
		return c.TraceID().String()
	}
	return ""
}

func jobText(j job.ID) string         { return id.Bech32(id.Job, j) }
func escrowText(e tx.EscrowID) string { return id.Bech32(id.Escrow, e) }
func leaseText(l tx.LeaseID) string   { return id.Bech32(id.Lease, l) }

// Lasting tells whether trying the same again cannot help.
func Lasting(err error) bool {
	f := fault.From(err)
	if f == nil {
		return false
	}
	switch f.Kind() {
	case fault.NotFound, fault.PermissionDenied, fault.Unauthenticated, fault.InvalidArgument,
		fault.FailedPrecondition, fault.Unimplemented:
		return true
	}
	return false
}
