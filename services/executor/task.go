package executor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/united-containers/ucn/kit/fault"
)

// Task is a job delivered to the executor that holds its lease.
type Task struct {
	From         Peer
	Job          JobID
	Revision     Hash
	Run          RunID
	Attempt      AttemptID
	Lease        LeaseID
	StorageToken string
	TokenUntil   time.Time // when StorageToken ends
	Secrets      map[string]string
	Registry     []RegistryCredential // at most maxCredentials, one for each host
	LogOffset    uint64
	Trace        string // W3C traceparent

	tokenOwned bool // the owner brought StorageToken himself
}

// Bounds of what a task brings.
const (
	maxSecretBytes     = 64 << 10 // of all secret values of a task together
	maxCredentials     = 8        // for registries
	maxCredentialBytes = 16 << 10 // of one
)

// Task takes a delivered task and tells send about the attempt until it has ended: every status,
// the log from the offset on, and notes to countersign. The last update is the status that ended
// it. Repeated tasks join the attempt. send is called by one goroutine; its error ends the call,
// not the attempt.
func (a *Agent) Task(ctx context.Context, task Task, send func(Update) error) error {
	ctx, cancel, err := a.whileRunning(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	t := a.find(task.Attempt)
	if t == nil {
		return a.tellClosed(ctx, &task, send)
	}
	leave, err := t.join()
	if err != nil {
		return err
	}
	defer leave()
	if err := t.deliver(ctx, &task); err != nil {
		return err
	}
	return t.follow(ctx, &task, send)
}

// maxStreams bounds who listens to one attempt at once: streams are the host's, not the owner's.
const maxStreams = 8

// join counts a stream of the attempt until leave is called.
func (t *attempt) join() (leave func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.streams >= maxStreams {
		return nil, ErrStreams
	}
	t.streams++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.streams--
	}, nil
}

// tellClosed answers for an attempt that is over.
func (a *Agent) tellClosed(ctx context.Context, task *Task, send func(Update) error) error {
	r, err := a.deps.Journal.Get(ctx, task.Attempt)
	if err != nil {
		return orNoAttempt(err)
	}
	if err := allowed(&r, task.From); err != nil {
		return err
	}
	if r.retold() {
		note := NoteAsk{Note: r.Note, Prices: r.Prices}
		if err := send(Update{Note: &note}); err != nil {
			return err
		}
	}
	s := r.Status("")
	if r.Outcome != nil {
		s.Reason = r.Outcome.Message
	}
	return send(Update{Status: &s})
}

func orNoAttempt(err error) error {
	if errors.Is(err, ErrNoAttempt) {
		return ErrNoAttempt
	}
	return fmt.Errorf("look the attempt up: %w", err)
}

// allowed lets the owner and the scheduler that asked through.
func allowed(r *Record, from Peer) error {
	owner := !from.Account.IsZero() && from.Account == r.Ask.Spec.Owner
	asker := from.Account.IsZero() && from == r.Ask.From
	if !owner && !asker {
		return ErrNotYours
	}
	return nil
}

// deliver hands the task to the attempt's goroutine. A later delivery brings a newer token, within
// what keepToken allows, and secrets that a restart lost. When it returns nil the caller counts as
// a reader of the log, and must follow.
func (t *attempt) deliver(ctx context.Context, task *Task) error {
	r := t.view().rec
	if err := allowed(&r, task.From); err != nil {
		return err
	}
	if task.Job != t.ask.Job || task.Revision != t.ask.Revision || task.Run != t.ask.Run ||
		task.Lease != t.lease.ID {
		return ErrOtherTask
	}
	if len(task.Secrets)+len(task.Registry) > 0 && task.From.Account.IsZero() {
		return fault.New(fault.PermissionDenied, ReasonSecrets,
			"only the job's owner brings secrets, not a scheduler")
	}
	if err := t.checkSecrets(task.Secrets); err != nil {
		return err
	}
	if err := t.checkCredentials(task.Registry); err != nil {
		return err
	}
	t.set(func() {
		if len(task.Registry) > 0 && t.container == nil {
			t.registry = task.Registry
		}
		task.Registry = nil // held in one place, and let go of there
		t.asked = t.ask.Spec.KeepOriginal
		t.keepToken(task)
		t.task = task
		t.readers++ // before anything can run: the log waits for this client
		if len(task.Secrets) > 0 {
			t.secrets = maps.Clone(task.Secrets)
		}
	})
	if r.Phase < PhaseTaken || r.Phase >= PhaseEnded || r.Token == task.StorageToken ||
		task.StorageToken == "" {
		return nil
	}
	err := t.update(context.WithoutCancel(ctx), "", func(r *Record) {
		if r.Phase < PhaseEnded {
			r.takeToken(task)
		}
	})
	if err != nil {
		t.set(func() { t.readers-- })
	}
	return err
}

// keepToken decides which token counts from this task on: outputs and the log go where it says.
// Whoever joins without one takes nothing away, and a scheduler replaces one that the owner brought
// himself only when that has ended. The caller holds mu.
func (t *attempt) keepToken(task *Task) {
	task.tokenOwned = !task.From.Account.IsZero()
	have := Task{
		StorageToken: t.rec.Token, TokenUntil: t.rec.TokenUntil, tokenOwned: t.rec.TokenOwned,
	}
	if t.task != nil {
		have = *t.task
	}
	ended := !have.TokenUntil.IsZero() && !t.agent.deps.Now().Before(have.TokenUntil)
	barred := have.StorageToken != "" && have.tokenOwned && !task.tokenOwned && !ended
	if task.StorageToken == "" || barred {
		task.StorageToken, task.TokenUntil = have.StorageToken, have.TokenUntil
		task.tokenOwned = have.tokenOwned
	}
}

// takeToken takes the task's token down.
func (r *Record) takeToken(task *Task) {
	r.Token, r.TokenUntil, r.TokenOwned = task.StorageToken, task.TokenUntil, task.tokenOwned
}

// checkCredentials bounds registry credentials.
func (t *attempt) checkCredentials(list []RegistryCredential) error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.InvalidArgument, ReasonCredentials, "registry_credentials: "+format,
			args...)
	}
	switch {
	case len(list) > maxCredentials:
		return bad("%d, at most %d", len(list), maxCredentials)
	case len(list) > 0 && t.ask.Spec.Reference == "":
		return bad("the job's image is not of a registry")
	}
	for i, one := range list {
		same := func(c RegistryCredential) bool { return c.Host == one.Host }
		switch {
		case one.Host == "" || slices.ContainsFunc(list[:i], same):
			return bad("number %d names no host, or one that was there", i)
		case len(one.Host)+len(one.Username)+len(one.Password) > maxCredentialBytes:
			return bad("number %d has more than %d bytes", i, maxCredentialBytes)
		}
	}
	return nil
}

// checkSecrets wants exactly the names of the spec. A task without any joins an attempt whose
// container has them already.
func (t *attempt) checkSecrets(secrets map[string]string) error {
	if len(secrets) == 0 && t.view().secrets != nil {
		return nil
	}
	v := t.view()
	if len(secrets) == 0 && (v.rec.Phase >= PhaseRunning || v.container != nil ||
		t.ask.Continues != "") {
		return nil
	}
	want := slices.Sorted(slices.Values(t.ask.Spec.Secrets))
	have := slices.Sorted(maps.Keys(secrets))
	if !slices.Equal(want, have) {
		return fault.New(fault.InvalidArgument, ReasonSecrets,
			"the task brings secrets %.200q, the spec names %.200q", have, want)
	}
	size := 0
	for name, value := range secrets {
		size += len(value)
		if slices.Contains([]byte(value), 0) {
			return fault.New(fault.InvalidArgument, ReasonSecrets,
				"secret %s has a zero byte in it, which an environment variable cannot hold", name)
		}
	}
	if size > maxSecretBytes {
		return fault.New(fault.InvalidArgument, ReasonSecrets,
			"the secrets take %d bytes, at most %d", size, maxSecretBytes)
	}
	return nil
}

// StopAsk asks to end an attempt.
type StopAsk struct {
	From    Peer
	Job     JobID
	Attempt AttemptID // empty: the newest attempt of the job here
	Reason  string    // at most 200 bytes are kept
	Grace   time.Duration
}

const maxReason = 200

// Stop ends an attempt as cancelled: by the owner, or by the scheduler that asked for it; as
// evicted if it was told to go and its lease is over, since another host has the lane then. It
// returns when that is written down; repeating it, or stopping what has ended, is success.
func (a *Agent) Stop(ctx context.Context, ask StopAsk) error {
	if ask.Grace < 0 || ask.Grace > MaxStopAsk {
		return fault.New(fault.InvalidArgument, ReasonBadArgument, "grace is %v, allowed 0 to %v",
			ask.Grace, MaxStopAsk)
	}
	t, closed, err := a.lookUp(ctx, ask.Job, ask.Attempt)
	if err != nil {
		return err
	}
	if t == nil {
		return allowed(closed, ask.From)
	}
	r := t.view().rec
	if err := allowed(&r, ask.From); err != nil {
		return err
	}
	cause := StopCause{Reason: EndCancelled, Message: "cancelled", Grace: ask.Grace}
	if ask.Reason != "" {
		cause.Message += ": " + clip(ask.Reason, maxReason)
	}
	if r.Evict != nil { // what told it may be that its replacement runs
		switch _, over, err := t.leaseOver(ctx); {
		case err != nil:
			t.agent.deps.Log.WarnContext(ctx, "cannot tell an eviction from a cancellation",
				"attempt", t.id, "error", err)
		case over:
			cause.Reason, cause.Message = EndEvicted, r.Evict.words()
		}
	}
	return t.requestStop(context.WithoutCancel(ctx), cause)
}

// lookUp finds an attempt of a job: the living one, or the record of a closed one.
func (a *Agent) lookUp(ctx context.Context, job JobID, id AttemptID) (*attempt, *Record, error) {
	if id == "" {
		t := a.newest(job)
		if t == nil {
			return nil, nil, ErrNoAttempt
		}
		return t, nil, nil
	}
	if t := a.find(id); t != nil {
		if t.ask.Job != job {
			return nil, nil, ErrNoAttempt
		}
		return t, nil, nil
	}
	r, err := a.deps.Journal.Get(ctx, id)
	if err != nil {
		return nil, nil, orNoAttempt(err)
	}
	if r.Ask.Job != job {
		return nil, nil, ErrNoAttempt
	}
	return nil, &r, nil
}

func (a *Agent) newest(job JobID) *attempt {
	var newest *attempt
	var asked time.Time
	for _, t := range a.snapshot() {
		r := t.view().rec
		if r.rides() { // the program is still that of another one
			continue
		}
		if t.ask.Job == job && (newest == nil || r.Asked.After(asked)) {
			newest, asked = t, r.Asked
		}
	}
	return newest
}

func clip(s string, n int) string {
	for len(s) > n {
		_, size := lastRune(s)
		s = s[:len(s)-size]
	}
	return s
}
