package e2e

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/token"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/wiring"
)

// jobOf returns the scheduler's view of the job that runs, and where its host is asked.
func (f *following) jobOf() (*schedulerv1.Job, *schedulerv1.Attempt, bus.Target) {
	t := f.u.t
	t.Helper()
	parsed, err := id.ParseBech32(id.Job, f.find("submitted")[0].Job)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.u.Scheduler.GetJob(f.u.ctx, &schedulerv1.GetJobRequest{Job: parsed[:]})
	if err != nil {
		t.Fatal(err)
	}
	attempt := r.GetJob().GetRuns()[0].GetAttempts()[0]
	raw, err := canon.Marshal(attempt.GetExecutor())
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := f.u.Judge().Verify(f.u.ctx, raw)
	if err != nil {
		t.Fatal(err)
	}
	target, err := bus.TargetOf(c, "executor")
	if err != nil {
		t.Fatal(err)
	}
	return r.GetJob(), attempt, target
}

// strangersAreRefused: nobody but its owner hears, feeds, stops or sees a job.
func strangersAreRefused(t *testing.T, s *scene) {
	u, stranger := s.user(t), s.user(t)
	going := u.start(u.job("out", "up", "forever"))
	going.running("up")
	j, attempt, target := going.jobOf()
	client, err := stranger.Bus()
	if err != nil {
		t.Fatal(err)
	}
	ctx := stranger.ctx
	err = firstReply(ctx, client, target, "executor.v1/Task", &executorv1.TaskRequest{
		Revision: j.GetRevision(), Run: j.GetRuns()[0].GetId(), Attempt: attempt.GetId(),
		Lease: attempt.GetLease(), StorageToken: "x",
	})
	wantKind(t, "another's task", err, fault.PermissionDenied, fault.NotFound)
	err = firstReply(ctx, client, target, "executor.v1/Logs", &executorv1.LogsRequest{Job: j.GetId()})
	wantKind(t, "another's log", err, fault.PermissionDenied, fault.NotFound)
	err = client.Call(ctx, target, "executor.v1/Stop", &executorv1.StopRequest{
		Job: j.GetId(), Attempt: attempt.GetId(),
	}, &executorv1.StopResponse{})
	wantKind(t, "stopping another's job", err, fault.PermissionDenied, fault.NotFound)
	_, err = stranger.Scheduler.GetJob(ctx, &schedulerv1.GetJobRequest{Job: j.GetId()})
	wantKind(t, "another's job", err, fault.PermissionDenied, fault.NotFound)
	_, err = stranger.Scheduler.CancelJob(ctx, &schedulerv1.CancelJobRequest{Job: j.GetId()})
	wantKind(t, "cancelling another's job", err, fault.PermissionDenied, fault.NotFound)
	going.stop()
	if report := going.end(); report.Result != "cancelled" {
		t.Errorf("the job ended %q: %s", report.Result, report.Reason)
	}
}

// wantKind checks that a call was refused in one of the ways.
func wantKind(t *testing.T, what string, err error, kinds ...fault.Kind) {
	t.Helper()
	for _, kind := range kinds {
		if fault.KindOf(err) == kind {
			return
		}
	}
	t.Errorf("%s: %v, want one of %v", what, err, kinds)
}

// firstReply asks for a stream and returns what its first reply says.
func firstReply(
	ctx context.Context, c *bus.Client, target bus.Target, method string, request proto.Message,
) error {
	stream, err := c.Stream(ctx, target, method, request)
	if err != nil {
		return err
	}
	defer stream.Close()
	return stream.Next(&executorv1.TaskUpdate{})
}

// escrowOfAnother: a job is not taken for an escrow that names another job, nor without one, nor
// when it was changed after its signature.
func escrowOfAnother(t *testing.T, s *scene) {
	u := s.user(t)
	first, second := u.sign(u.job("out", "x")), u.sign(u.job("out", "y"))
	escrow := u.openEscrow(first.id)
	forged := u.sign(u.job("out", "z"))
	forged.revision.Revision.Spec.Args = []string{"out", "forged"}
	tests := map[string]*schedulerv1.SubmitJobRequest{
		"another job's escrow": {Revision: second.revision, Escrow: escrow[:]},
		"no such escrow":       {Revision: first.revision, Escrow: make([]byte, len(escrow))},
		"changed after it was signed": {
			Revision: forged.revision, Escrow: escrow[:],
		},
	}
	for name, request := range tests {
		request.StorageToken = first.token
		request.Delivery = schedulerv1.Delivery_DELIVERY_SCHEDULER
		_, err := u.Scheduler.SubmitJob(u.ctx, request)
		wantKind(t, name, err, fault.FailedPrecondition, fault.InvalidArgument, fault.NotFound,
			fault.PermissionDenied)
	}
	_, err := u.Sender.Send(u.ctx, &tx.CloseEscrow{Escrow: escrow})
	if err != nil {
		t.Errorf("closing the escrow that nothing charged: %v", err)
	}
}

// signed is a job that a test submits by itself.
type signed struct {
	id       job.ID
	revision *jobv1.SignedRevision
	token    string
}

func (u *user) sign(f jobfile.File) signed {
	u.t.Helper()
	var nonce [16]byte
	copy(nonce[:], f.Args[len(f.Args)-1])
	spec, err := f.Spec(u.Account, u.Chain, nonce)
	if err != nil {
		u.t.Fatal(err)
	}
	var out signed
	if out.revision, out.id, err = job.Sign(u.Key, spec); err != nil {
		u.t.Fatal(err)
	}
	out.token, err = u.Token(u.Operator, time.Hour, "file:read:"+f.Image,
		"file:write:"+id.Bech32(id.Job, out.id))
	if err != nil {
		u.t.Fatal(err)
	}
	return out
}

// openEscrow opens an escrow for a job as a client of its own would.
func (u *user) openEscrow(j job.ID) tx.EscrowID {
	u.t.Helper()
	r, err := u.Scheduler.GetScheduler(u.ctx, &schedulerv1.GetSchedulerRequest{})
	if err != nil {
		u.t.Fatal(err)
	}
	const days = 4 * 24 * time.Hour
	result, err := u.Sender.Send(u.ctx, &tx.OpenEscrow{
		Purpose: chainv1.Purpose_PURPOSE_JOB, Subject: j[:], Amount: 1e9,
		Terms: tx.Terms{
			MaxRate: 1e10, MaxTotal: 1e9, Trust: 1e9, AckKeys: []sig.PublicKey{u.Key.Public()},
			Assigner: sig.AccountID(r.GetAssigner()),
			Expires:  tx.Millis(time.Now().Add(days).UnixMilli()),
			LeaseFee: tx.Grains(r.GetLeaseFee()), LeaseFeeTotal: 1e8,
		},
	})
	if err != nil {
		u.t.Fatal(err)
	}
	return tx.EscrowIDOf(result.ID, 0)
}

// tokens: a call without, with an expired, or with another's token is refused by name, over gRPC
// and REST.
func tokens(t *testing.T, s *scene) {
	u, stranger := s.user(t), s.user(t)
	now := time.Now()
	issue := func(
		key sig.PrivateKey, audience sig.AccountID, from, to time.Time, scope string,
	) string {
		text, err := token.Issue(keys.SingleSigner(key), token.Claims{
			Chain: u.Chain, Audience: audience, Scopes: []string{scope}, NotBefore: from, NotAfter: to,
		})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	later := now.Add(time.Hour)
	good := issue(u.Key, u.Operator, now, later, "job")
	tests := map[string]struct {
		token  string
		kind   fault.Kind
		status int
	}{
		"none": {"", fault.Unauthenticated, http.StatusUnauthorized},
		"expired": {issue(u.Key, u.Operator, now.Add(-2*time.Hour), now.Add(-time.Hour), "job"),
			fault.Unauthenticated, http.StatusUnauthorized},
		"for another operator": {issue(u.Key, stranger.Account, now, later, "job"),
			fault.Unauthenticated, http.StatusUnauthorized},
		"of another scope": {issue(u.Key, u.Operator, now, later, "file:read"),
			fault.PermissionDenied, http.StatusForbidden},
		"not a token":       {"abc", fault.Unauthenticated, http.StatusUnauthorized},
		"a good one":        {good, fault.OK, http.StatusOK},
		"cut in the middle": {good[:len(good)-9], fault.Unauthenticated, http.StatusUnauthorized},
	}
	bare, err := s.Session(u.ctx, sig.PrivateKey{})
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	for name, test := range tests {
		ctx := u.ctx
		if test.token != "" {
			ctx = rpc.WithToken(ctx, test.token)
		}
		_, err := bare.Scheduler.ListJobs(ctx, &schedulerv1.ListJobsRequest{})
		if fault.KindOf(err) != test.kind {
			t.Errorf("gRPC, %s: %v, want kind %v", name, err, test.kind)
		}
		if status := u.get(ctx, "/v1/jobs", test.token); status != test.status {
			t.Errorf("REST, %s: status %d, want %d", name, status, test.status)
		}
	}
	if status := u.get(u.ctx, "/v1/offers", ""); status != http.StatusOK {
		t.Errorf("offers are public, got status %d", status)
	}
}

// get asks the gateway and returns the status.
func (u *user) get(ctx context.Context, path, token string) int {
	u.t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.scene.File.REST+path, nil)
	if err != nil {
		u.t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		u.t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		u.t.Error(err)
	}
	return response.StatusCode
}

// forgedEvents: what comes from the broker in a host's name without its signature, or in the name
// of a host that is not the job's, changes no job.
func forgedEvents(t *testing.T, s *scene) {
	u := s.user(t)
	going := u.start(u.job("out", "up", "sleep", "3s", "out", "done"))
	going.running("up")
	j, attempt, target := going.jobOf()
	for _, forger := range []string{wiring.Alpha, wiring.Beta} {
		s.forge(t, forger, target, &jobv1.AttemptStatus{
			Job: j.GetId(), Run: j.GetRuns()[0].GetId(), Attempt: attempt.GetId(),
			State: jobv1.State_STATE_ENDED, Time: uint64(time.Now().UnixMilli()),
			Lease: attempt.GetLease(), Amount: 1e9,
			Outcome: &jobv1.Outcome{
				Reason: jobv1.EndReason_END_REASON_FAILED, Message: "forged", Amount: 1e9,
			},
		})
	}
	report := going.end()
	if !report.Completed() {
		t.Errorf("it ended %q: %s", report.Result, report.Reason)
	}
	checkBill(t, report.Bill)
}

// forge publishes an event about a job as an instance that its operator has certified as an
// executor, once on its own subject and, as far as the broker lets it, on the true host's.
func (s *scene) forge(t *testing.T, operator string, host bus.Target, m *jobv1.AttemptStatus) {
	t.Helper()
	identity, err := s.Identity("forger-"+operator, "executor", operator)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := event.NewSigner(identity.Key, identity.Certificate, "executor")
	if err != nil {
		t.Fatal(err)
	}
	notice := &eventv1.CertificateNotice{Certificate: &identityv1.Certificate{}}
	if err := canon.Unmarshal(identity.Certificate, notice.Certificate); err != nil {
		t.Fatal(err)
	}
	known, err := event.New(t.Context(), time.Now(), event.TopicOperator,
		event.TypeCertificateIssued, notice)
	if err != nil {
		t.Fatal(err)
	}
	said, err := event.New(t.Context(), time.Now(), "job", "attempt.changed", m)
	if err != nil {
		t.Fatal(err)
	}
	said.Chain = "main"
	login, err := bus.InstanceLogin(identity.Key, identity.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := bus.Connect(s.File.Bus, "forger", login, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, e := range []event.Event{known, said} {
		envelope, err := signer.Sign(e, event.Head{})
		if err != nil {
			t.Fatal(err)
		}
		for _, subject := range []string{
			signer.Subject(envelope), host.Event(string(e.Topic), e.Type),
		} {
			message := nats.NewMsg(subject)
			message.Data = envelope.Raw
			if err := conn.PublishMsg(message); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := conn.FlushTimeout(time.Minute); err != nil {
		t.Fatal(err)
	}
}
