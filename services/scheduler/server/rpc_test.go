package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/fault"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
	"github.com/united-containers/ucn/services/scheduler/server"
)

func TestSubmitRefuses(t *testing.T) {
	type request = schedulerv1.SubmitJobRequest
	m := newMarket(t)
	alice, bob := m.user(1, "job"), m.user(2, "job")
	spec := func(r *request) *jobv1.JobSpec { return r.GetRevision().GetRevision().GetSpec() }
	tests := map[string]struct {
		by    user
		sign  func(s *jobv1.JobSpec)
		spoil func(r *request)
		kind  fault.Kind
		is    fault.Reason
		words string
	}{
		"no token":    {by: m.user(1), kind: fault.Unauthenticated, is: "TOKEN_MISSING"},
		"other scope": {by: m.user(1, "file"), kind: fault.PermissionDenied, is: "SCOPE_MISSING"},
		"other owner": {by: bob, kind: fault.PermissionDenied, is: server.ReasonNotOwner},
		"nothing": {
			spoil: func(r *request) { proto.Reset(r) }, kind: fault.InvalidArgument, is: server.ReasonSpec,
			words: "spec",
		},
		"signature": {
			spoil: func(r *request) { r.Revision.Signature.Signatures[0].Signature[7] ^= 1 },
			kind:  fault.InvalidArgument, is: server.ReasonSignature,
		},
		"changed after signing": {
			spoil: func(r *request) { spec(r).Name = "other" },
			kind:  fault.InvalidArgument, is: server.ReasonSignature,
		},
		"second revision": {
			spoil: func(r *request) { r.Revision.Revision.Number = 2 },
			kind:  fault.Unimplemented, is: server.ReasonNotBuilt, words: "revision.number",
		},
		"field invalid": {
			sign: func(s *jobv1.JobSpec) { s.Resources.CpuMilli = 1 },
			kind: fault.InvalidArgument, is: server.ReasonSpec, words: "resources.cpu_milli",
		},
		"field not built": {
			sign: func(s *jobv1.JobSpec) { s.PauseMarker = "x" },
			kind: fault.Unimplemented, is: server.ReasonNotBuilt, words: "pause_marker",
		},
		"other chain": {
			sign: func(s *jobv1.JobSpec) { s.Chain = "side" },
			kind: fault.InvalidArgument, is: server.ReasonSpec, words: `"main"`,
		},
		"escrow id": {
			spoil: func(r *request) { r.Escrow = r.Escrow[1:] },
			kind:  fault.InvalidArgument, is: server.ReasonBadRequest, words: "32 bytes",
		},
		"escrow unknown": {
			spoil: func(r *request) { r.Escrow = make([]byte, 32) },
			kind:  fault.FailedPrecondition, is: server.ReasonEscrow, words: "no such escrow",
		},
		"token too long": {
			spoil: func(r *request) { r.StorageToken = strings.Repeat("x", 5000) },
			kind:  fault.InvalidArgument, is: server.ReasonBadRequest, words: "storage_token",
		},
		"delivery": {
			spoil: func(r *request) { r.Delivery = 9 },
			kind:  fault.Unimplemented, is: server.ReasonNotBuilt, words: "delivery",
		},
		"too large": {
			sign: func(s *jobv1.JobSpec) {
				s.Placement = &jobv1.Placement{
					Labels: []*jobv1.Label{{Name: "a", Value: strings.Repeat("x", 300<<10)}},
				}
			},
			kind: fault.InvalidArgument, is: server.ReasonSpec, words: "bytes",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := alice.spec(1)
			if tt.sign != nil {
				tt.sign(s)
			}
			r := m.request(alice, s)
			if tt.spoil != nil {
				tt.spoil(r)
			}
			by := tt.by
			if by.SchedulerServiceClient == nil {
				by = alice
			}
			_, err := by.SubmitJob(t.Context(), r)
			if !errors.Is(err, tt.kind) || !errors.Is(err, tt.is) ||
				!strings.Contains(fault.From(err).Message(), tt.words) {
				t.Errorf("SubmitJob = %v, want %s %s with %q", err, tt.kind, tt.is, tt.words)
			}
		})
	}
	if list, err := alice.ListJobs(t.Context(), &schedulerv1.ListJobsRequest{}); err != nil ||
		len(list.GetJobs()) != 0 {
		t.Errorf("after refusals %v, %v, want no jobs", list.GetJobs(), err)
	}
}

func TestSubmitUnfitEscrowAndConflict(t *testing.T) {
	m := newMarket(t)
	alice := m.user(1, "job")
	r := m.request(alice, alice.spec(1))
	m.ledger.Change([32]byte(r.GetEscrow()), func(s *scheduler.Escrow) { s.Owner = sig.AccountID{9} })
	_, err := alice.SubmitJob(t.Context(), r)
	if !errors.Is(err, server.ReasonEscrow) || !strings.Contains(err.Error(), "another account") {
		t.Errorf("another's escrow: %v", err)
	}
	m.submit(alice, 1)
	r = m.request(alice, alice.spec(1))
	r.Escrow = bytes.Repeat([]byte{5}, 32)
	if _, err := alice.SubmitJob(t.Context(), r); !errors.Is(err, server.ReasonConflict) {
		t.Errorf("with another escrow: %v, want %s", err, server.ReasonConflict)
	}
	if _, err := alice.SubmitJob(t.Context(), m.request(alice, alice.spec(1))); err != nil {
		t.Errorf("repeated: %v", err)
	}
}

// TestLife follows a job from submission to its end, and its trace.
func TestLife(t *testing.T) {
	m := newMarket(t)
	alice, h := m.user(1, "job"), m.host(7)
	delivered := newSignal()
	m.hosts.OnDeliver = func(scheduler.Host, scheduler.Task) error {
		delivered.give()
		return nil
	}
	ctx, span := m.telemetry.MustService(t, "client").Tracers.Tracer("test").Start(t.Context(), "job")
	r := m.request(alice, alice.spec(1))
	r.Delivery = schedulerv1.Delivery_DELIVERY_SCHEDULER
	submitted, err := alice.SubmitJob(ctx, r)
	span.End()
	if err != nil {
		t.Fatal(err)
	}
	waits := m.watch(alice, submitted.GetJob(), jobv1.State_STATE_PENDING)
	if want := span.SpanContext().TraceID().String(); waits.GetTraceId() != want {
		t.Errorf("trace %s, want %s", waits.GetTraceId(), want)
	}
	m.post(h, m.offer(h, 1000))
	leased := m.watch(alice, submitted.GetJob(), jobv1.State_STATE_LEASED)
	a := leased.GetRuns()[0].GetAttempts()[0]
	if len(a.GetLease()) != 32 || !strings.HasSuffix(a.GetSubject(), ".rpc") ||
		!proto.Equal(a.GetExecutor(), m.offer(h, 1).GetCertificate()) {
		t.Errorf("attempt %v, want lease, subject and certificate", a)
	}
	delivered.await(t)
	m.report(h, leased, jobv1.State_STATE_RUNNING, nil)
	m.watch(alice, submitted.GetJob(), jobv1.State_STATE_RUNNING)
	stream, err := alice.WatchJob(t.Context(), &schedulerv1.WatchJobRequest{Job: leased.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	m.report(h, leased, jobv1.State_STATE_ENDED, &jobv1.Outcome{
		Reason: jobv1.EndReason_END_REASON_FAILED, ExitCode: 3, Message: "exit\x1b[2J 3", Amount: 7,
	})
	var last *schedulerv1.Job
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break // the stream ends with the job
		}
		if err != nil {
			t.Fatal(err)
		}
		last = r.GetJob()
	}
	if last.GetEndReason() != jobv1.EndReason_END_REASON_FAILED || last.GetReason() != "exit[2J 3" ||
		last.GetRuns()[0].GetAttempts()[0].GetStatus().GetOutcome().GetAmount() != 7 {
		t.Errorf("job ended %v", last)
	}
	m.wantSpans(span.SpanContext().TraceID(), "scheduler.place", "scheduler.deliver")
}

func TestJobsOfOthersAreNotFound(t *testing.T) {
	m := newMarket(t)
	alice, bob := m.user(1, "job"), m.user(2, "job")
	id := m.submit(alice, 1)
	calls := map[string]func(u user, id []byte) error{
		"get": func(u user, id []byte) error {
			_, err := u.GetJob(t.Context(), &schedulerv1.GetJobRequest{Job: id})
			return err
		},
		"cancel": func(u user, id []byte) error {
			_, err := u.CancelJob(t.Context(), &schedulerv1.CancelJobRequest{Job: id})
			return err
		},
		"watch": func(u user, id []byte) error {
			stream, err := u.WatchJob(t.Context(), &schedulerv1.WatchJobRequest{Job: id})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
	}
	for name, call := range calls {
		if err := call(bob, id); !errors.Is(err, server.ReasonNotFound) {
			t.Errorf("%s another's job: %v, want %s", name, err, server.ReasonNotFound)
		}
		if err := call(bob, make([]byte, 32)); !errors.Is(err, server.ReasonNotFound) {
			t.Errorf("%s no job: %v, want %s", name, err, server.ReasonNotFound)
		}
		if err := call(bob, id[:31]); !errors.Is(err, server.ReasonBadRequest) {
			t.Errorf("%s a short id: %v, want %s", name, err, server.ReasonBadRequest)
		}
		if err := call(m.user(1), id); !errors.Is(err, fault.Unauthenticated) {
			t.Errorf("%s without a token: %v", name, err)
		}
	}
	if got, err := alice.GetJob(t.Context(), &schedulerv1.GetJobRequest{Job: id}); err != nil ||
		got.GetJob().GetState() != jobv1.State_STATE_PENDING {
		t.Errorf("the owner's own job: %v, %v", got, err)
	}
}

func TestListJobs(t *testing.T) {
	m := newMarket(t)
	alice, bob := m.user(1, "job"), m.user(2, "job")
	var want [][]byte
	for n := range 5 {
		want = append([][]byte{m.submit(alice, n)}, want...)
		m.submit(bob, n)
	}
	cancel := &schedulerv1.CancelJobRequest{Job: want[3]}
	if _, err := alice.CancelJob(t.Context(), cancel); err != nil {
		t.Fatal(err)
	}
	read := func(r *schedulerv1.ListJobsRequest) (ids [][]byte) {
		for {
			page, err := alice.ListJobs(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			for _, j := range page.GetJobs() {
				ids = append(ids, j.GetId())
			}
			if r.PageToken = page.GetNextPageToken(); r.PageToken == "" {
				return ids
			}
		}
	}
	for _, size := range []uint32{0, 1, 2, 5, 1000} {
		if got := read(&schedulerv1.ListJobsRequest{PageSize: size}); !equal(got, want) {
			t.Errorf("pages of %d: %x, want newest first %x", size, got, want)
		}
		ended := read(&schedulerv1.ListJobsRequest{PageSize: size, State: jobv1.State_STATE_ENDED})
		if !equal(ended, want[3:4]) {
			t.Errorf("pages of %d: ended %x, want %x", size, ended, want[3:4])
		}
	}
	for name, r := range map[string]*schedulerv1.ListJobsRequest{
		"garbage cursor": {PageToken: "garbage!"}, "short cursor": {PageToken: "AAAA"},
		"page too big": {PageSize: 1001},
	} {
		if _, err := alice.ListJobs(t.Context(), r); !errors.Is(err, server.ReasonBadRequest) {
			t.Errorf("%s: %v, want %s", name, err, server.ReasonBadRequest)
		}
	}
}

func equal(a, b [][]byte) bool {
	return bytes.Equal(bytes.Join(a, nil), bytes.Join(b, nil))
}

func TestCancel(t *testing.T) {
	m := newMarket(t)
	alice := m.user(1, "job")
	id := m.submit(alice, 1)
	long := strings.Repeat("x", 201)
	_, err := alice.CancelJob(t.Context(), &schedulerv1.CancelJobRequest{Job: id, Reason: long})
	if !errors.Is(err, server.ReasonBadRequest) {
		t.Errorf("a reason of 201 bytes: %v", err)
	}
	for range 2 { // repeating it is harmless
		r, err := alice.CancelJob(t.Context(), &schedulerv1.CancelJobRequest{Job: id})
		if err != nil || r.GetJob().GetEndReason() != jobv1.EndReason_END_REASON_CANCELLED ||
			r.GetJob().GetReason() != "cancelled by its owner" {
			t.Fatalf("CancelJob = %v, %v", r, err)
		}
	}
}

// TestWatchers: no more than MaxWatchers, and one that leaves makes room.
func TestWatchers(t *testing.T) {
	m := newMarket(t)
	alice := m.user(1, "job")
	id := m.submit(alice, 1)
	open := func(ctx context.Context) (
		grpc.ServerStreamingClient[schedulerv1.WatchJobResponse], error,
	) {
		stream, err := alice.WatchJob(ctx, &schedulerv1.WatchJobRequest{Job: id})
		if err == nil {
			_, err = stream.Recv()
		}
		return stream, err
	}
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	for range scheduler.MaxWatchers {
		if _, err := open(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := open(t.Context()); !errors.Is(err, fault.ResourceExhausted) {
		t.Errorf("one too many: %v", err)
	}
	leave()
	late := time.After(20 * time.Second)
	for {
		if _, err := open(t.Context()); err == nil {
			return
		}
		select {
		case <-late:
			t.Fatal("those who left still hold their places")
		default:
		}
	}
}

func TestGetScheduler(t *testing.T) {
	m := newMarket(t)
	r, err := m.user(1).GetScheduler(t.Context(), &schedulerv1.GetSchedulerRequest{})
	want := schedulertest.Assigner()
	if err != nil || !bytes.Equal(r.GetAssigner(), want[:]) {
		t.Errorf("GetScheduler = %v, %v, want the assigner for anybody", r, err)
	}
}
