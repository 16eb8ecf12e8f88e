package server_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/kit/fault"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/scheduler/server"
)

// always submits an always job and returns its first revision.
func (m *market) always(u user, n int) (*jobv1.SignedRevision, []byte) {
	m.t.Helper()
	s := u.spec(n)
	s.Trigger = &jobv1.Trigger{Kind: &jobv1.Trigger_Always{Always: &jobv1.Always{}}}
	r := m.request(u, s)
	submitted, err := u.SubmitJob(m.t.Context(), r)
	if err != nil {
		m.t.Fatal(err)
	}
	return r.GetRevision(), submitted.GetJob()
}

// next signs a revision that follows another.
func (m *market) next(
	u user, id []byte, before *jobv1.SignedRevision, change func(*jobv1.JobSpec),
) *schedulerv1.UpdateJobRequest {
	m.t.Helper()
	s := proto.CloneOf(before.GetRevision().GetSpec())
	change(s)
	revision, err := job.SignNext(u.key, job.ID(id), before, s)
	if err != nil {
		m.t.Fatal(err)
	}
	return &schedulerv1.UpdateJobRequest{Job: id, Revision: revision}
}

func TestUpdateJob(t *testing.T) {
	m := newMarket(t)
	alice := m.user(1, "job")
	first, id := m.always(alice, 1)
	three := m.next(alice, id, first, func(s *jobv1.JobSpec) { s.Replicas = 3 })
	for range 2 { // repeating it is harmless
		r, err := alice.UpdateJob(t.Context(), three)
		if err != nil || r.GetJob().GetCounts().GetPending() != 3 {
			t.Fatalf("UpdateJob = %v, %v, want 3 replicas that wait", r, err)
		}
	}
	got, err := alice.GetJob(t.Context(), &schedulerv1.GetJobRequest{Job: id})
	if err != nil || !proto.Equal(got.GetJob().GetUpdate(), three.GetRevision()) ||
		!proto.Equal(got.GetJob().GetRevision(), first) {
		t.Errorf("the job shows %v, %v, want the first revision and the one in force", got, err)
	}
	one := m.next(alice, id, three.GetRevision(), func(s *jobv1.JobSpec) { s.Replicas = 1 })
	r, err := alice.UpdateJob(t.Context(), one)
	if err != nil || r.GetJob().GetCounts().GetPending() != 1 {
		t.Errorf("UpdateJob = %v, %v, want one replica that waits", r, err)
	}
}

func TestUpdateJobRefuses(t *testing.T) {
	m := newMarket(t)
	alice, bob := m.user(1, "job"), m.user(2, "job")
	first, id := m.always(alice, 1)
	once := m.request(alice, alice.spec(2))
	if _, err := alice.SubmitJob(t.Context(), once); err != nil {
		t.Fatal(err)
	}
	onceID := once.GetEscrow() // the test's escrows are called like their jobs
	more := func(s *jobv1.JobSpec) { s.Replicas = 2 }
	good := m.next(alice, id, first, more)
	changed := func(change func(*schedulerv1.UpdateJobRequest)) *schedulerv1.UpdateJobRequest {
		r := proto.CloneOf(good)
		change(r)
		return r
	}
	large := strings.Repeat("x", 65<<10)
	for name, tt := range map[string]struct {
		by    user
		r     *schedulerv1.UpdateJobRequest
		is    fault.Reason
		words string
	}{
		"another's job": {bob, good, server.ReasonNotFound, ""},
		"no token":      {m.user(1), good, "TOKEN_MISSING", ""},
		"other scope":   {m.user(1, "file"), good, "SCOPE_MISSING", ""},
		"short id": {alice, changed(func(r *schedulerv1.UpdateJobRequest) { r.Job = id[1:] }),
			server.ReasonBadRequest, "32 bytes"},
		"no revision": {alice, &schedulerv1.UpdateJobRequest{Job: id}, server.ReasonSpec, "missing"},
		"signed by another": {alice, m.next(bob, id, first, more), server.ReasonSignature,
			"not signed"},
		"first again": {alice, &schedulerv1.UpdateJobRequest{Job: id, Revision: once.GetRevision()},
			server.ReasonSignature, "another job"},
		"skips a number": {alice, m.next(alice, id, good.GetRevision(), more),
			server.ReasonSignature, "number 3"},
		"changed after signing": {alice, changed(func(r *schedulerv1.UpdateJobRequest) {
			r.Revision.Revision.Spec.Replicas = 9
		}), server.ReasonSignature, ""},
		"another image": {alice, m.next(alice, id, first, func(s *jobv1.JobSpec) {
			s.Resources.CpuMilli *= 2
		}), server.ReasonSpec, "resources"},
		"too many replicas": {alice, m.next(alice, id, first, func(s *jobv1.JobSpec) {
			s.Replicas = 101
		}), server.ReasonSpec, "replicas"},
		"too large": {alice, changed(func(r *schedulerv1.UpdateJobRequest) {
			r.Revision.Revision.Spec.Args = []string{large}
		}), server.ReasonSpec, "bytes"},
		"runs once": {alice, m.next(alice, onceID, once.GetRevision(), more), server.ReasonNotBuilt,
			"always"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tt.by.UpdateJob(t.Context(), tt.r)
			if !errors.Is(err, tt.is) || !strings.Contains(fault.From(err).Message(), tt.words) {
				t.Errorf("UpdateJob = %v, want %s with %q", err, tt.is, tt.words)
			}
		})
	}
	if _, err := alice.CancelJob(t.Context(), &schedulerv1.CancelJobRequest{Job: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.UpdateJob(t.Context(), good); !errors.Is(err, server.ReasonOver) {
		t.Errorf("a cancelled job: %v, want %s", err, server.ReasonOver)
	}
}

// TestListsRefuse: what ListRuns and ListTasks do not take.
func TestListsRefuse(t *testing.T) {
	m := newMarket(t)
	alice, bob := m.user(1, "job"), m.user(2, "job")
	_, id := m.always(alice, 1)
	s := alice.spec(2)
	s.Array = &jobv1.Array{Count: 10, Parallel: 2}
	r := m.request(alice, s)
	array, err := alice.SubmitJob(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		by    user
		id    []byte
		size  uint32
		token string
		is    fault.Reason
	}{
		"another's job": {by: bob, id: array.GetJob(), is: server.ReasonNotFound},
		"no job":        {by: alice, id: make([]byte, 32), is: server.ReasonNotFound},
		"short id":      {by: alice, id: id[1:], is: server.ReasonBadRequest},
		"no token":      {by: m.user(1), id: id, is: "TOKEN_MISSING"},
		"large page":    {by: alice, id: array.GetJob(), size: 10_001, is: server.ReasonBadRequest},
		"garbage":       {by: alice, id: array.GetJob(), token: "?!", is: server.ReasonBadRequest},
		"short cursor":  {by: alice, id: array.GetJob(), token: "AAAA", is: server.ReasonBadRequest},
	} {
		_, runs := tt.by.ListRuns(t.Context(), &schedulerv1.ListRunsRequest{
			Job: tt.id, PageSize: tt.size, PageToken: tt.token,
		})
		_, tasks := tt.by.ListTasks(t.Context(), &schedulerv1.ListTasksRequest{
			Job: tt.id, PageSize: tt.size, PageToken: tt.token,
		})
		if !errors.Is(runs, tt.is) || !errors.Is(tasks, tt.is) {
			t.Errorf("%s: ListRuns %v, ListTasks %v, want %s", name, runs, tasks, tt.is)
		}
	}
	_, err = alice.ListTasks(t.Context(), &schedulerv1.ListTasksRequest{Job: id})
	if !errors.Is(err, fault.FailedPrecondition) {
		t.Errorf("tasks of a job that is no array: %v", err)
	}
}

// TestRunsOfAnotherJob: the page of one job's runs is not gone on with at another's, nor at tasks:
// that would leave out what comes before.
func TestRunsOfAnotherJob(t *testing.T) {
	m := newMarket(t)
	alice := m.user(1, "job")
	var jobs [][]byte
	for n := range 2 {
		s := alice.spec(n + 2)
		s.Array = &jobv1.Array{Count: 10, Parallel: 2}
		answer, err := alice.SubmitJob(t.Context(), m.request(alice, s))
		if err != nil {
			t.Fatal(err)
		}
		jobs = append(jobs, answer.GetJob())
	}
	page, err := alice.ListRuns(t.Context(), &schedulerv1.ListRunsRequest{Job: jobs[0], PageSize: 1})
	if err != nil || page.GetNextPageToken() == "" {
		t.Fatal(page, err)
	}
	token := page.GetNextPageToken()
	_, other := alice.ListRuns(t.Context(), &schedulerv1.ListRunsRequest{
		Job: jobs[1], PageToken: token,
	})
	_, tasks := alice.ListTasks(t.Context(), &schedulerv1.ListTasksRequest{
		Job: jobs[0], PageToken: token,
	})
	if !errors.Is(other, server.ReasonOtherQuery) || !errors.Is(tasks, server.ReasonOtherQuery) {
		t.Errorf("another job %v, tasks %v", other, tasks)
	}
	rest, err := alice.ListRuns(t.Context(), &schedulerv1.ListRunsRequest{
		Job: jobs[0], PageToken: token,
	})
	if err != nil || rest.GetRuns()[0].GetSlot() != 1 {
		t.Errorf("the next page: %v, %v", rest, err)
	}
}
