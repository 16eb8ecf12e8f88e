// Package schedulertest holds what tests of the scheduler share: the contract of its store, a
// complete store in memory that can fail, and builders of jobs, offers and escrows.
package schedulertest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/scheduler"
)

// TestStore runs the store's contract. open returns the store over the same data each time it is
// called, as after a restart.
func TestStore(t *testing.T, open func(t *testing.T) scheduler.Store) {
	for name, test := range map[string]func(*testing.T, scheduler.Store){
		"job": testJob, "listing": testListing, "queue": testQueue, "live": testLive,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// Start is when the builders' jobs begin.
func Start() time.Time { return time.Unix(1_800_000_000, 0) }

// NewJob builds a pending job of an owner, submitted n seconds after Start.
func NewJob(owner byte, n int) *scheduler.Job {
	at := Start().Add(time.Duration(n) * time.Second)
	j := &scheduler.Job{
		ID: job.ID{owner, byte(n >> 8), byte(n)}, Owner: sig.AccountID{owner},
		Revision: []byte("revision"), Submitted: at,
		Spec: scheduler.Spec{
			Name: "test", Chain: "main", Image: "image", MaxTotal: 1_000_000,
			Resources: price.Resources{CPUMilli: 1000, Memory: 64 << 20},
		},
		Delivery: scheduler.ByScheduler,
	}
	j.Runs = []scheduler.Run{{
		ID: scheduler.RunID{owner, byte(n >> 8), byte(n)}, State: scheduler.Pending, Created: at,
	}}
	return j
}

func save(t *testing.T, s scheduler.Store, jobs ...*scheduler.Job) {
	t.Helper()
	for _, j := range jobs {
		if err := s.Save(context.Background(), scheduler.Change{Job: j}); err != nil {
			t.Fatal(err)
		}
	}
}

func testJob(t *testing.T, s scheduler.Store) {
	ctx := context.Background()
	j := NewJob(1, 1)
	if _, err := s.Job(ctx, j.ID); !errors.Is(err, scheduler.ErrNotFound) {
		t.Fatalf("a job that was never saved: %v, want ErrNotFound", err)
	}
	save(t, s, j, j)
	got, err := s.Job(ctx, j.ID)
	if err != nil {
		t.Fatal(err)
	}
	got.Current().Reason = "changed by the caller"
	again, err := s.Job(ctx, j.ID)
	if err != nil {
		t.Fatal(err)
	}
	if again.Current().Reason != "" || !again.Submitted.Equal(j.Submitted) || again.Owner != j.Owner {
		t.Errorf("read %+v, want what was saved, whatever the caller did to an earlier copy", again)
	}
}

func testListing(t *testing.T, s scheduler.Store) {
	ctx := context.Background()
	for n := range 5 {
		save(t, s, NewJob(1, n), NewJob(2, n))
	}
	twin := NewJob(1, 4) // submitted at the same time as another
	twin.ID[1] = 1
	save(t, s, twin)
	var got []job.ID
	var after scheduler.Cursor
	for {
		page, err := s.Jobs(ctx, sig.AccountID{1}, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, j := range page {
			got = append(got, j.ID)
			after = scheduler.Cursor{Time: j.Submitted, Job: j.ID}
		}
	}
	want := []job.ID{{1, 0, 4}, {1, 1, 4}, {1, 0, 3}, {1, 0, 2}, {1, 0, 1}, {1, 0, 0}}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
}

func testQueue(t *testing.T, s scheduler.Store) {
	ctx := context.Background()
	jobs := []*scheduler.Job{NewJob(1, 0), NewJob(1, 1), NewJob(1, 2), NewJob(3, 0)}
	save(t, s, jobs...)
	owners, err := s.Owners(ctx)
	if err != nil || !slices.Equal(owners, []sig.AccountID{{1}, {3}}) {
		t.Fatalf("owners %v, %v, want 1 and 3", owners, err)
	}
	refs, err := s.Pending(ctx, sig.AccountID{1}, scheduler.Cursor{}, 2)
	if err != nil || len(refs) != 2 || refs[0].Job != jobs[0].ID || refs[1].Run != jobs[1].Runs[0].ID {
		t.Fatalf("first page %v, %v, want the two oldest", refs, err)
	}
	rest, err := s.Pending(ctx, sig.AccountID{1}, refs[1].Cursor(), 2)
	if err != nil || len(rest) != 1 || rest[0].Job != jobs[2].ID {
		t.Fatalf("second page %v, %v, want the youngest", rest, err)
	}
	jobs[0].Current().NotBefore = Start().Add(time.Hour) // held back: goes behind
	jobs[1].Current().State = scheduler.Ended
	save(t, s, jobs[0], jobs[1])
	refs, err = s.Pending(ctx, sig.AccountID{1}, scheduler.Cursor{}, 10)
	if err != nil || len(refs) != 2 || refs[0].Job != jobs[2].ID || refs[1].Job != jobs[0].ID {
		t.Errorf("after changes %v, %v, want job 2 then job 0", refs, err)
	}
	jobs[3].Current().State = scheduler.Leased
	save(t, s, jobs[3])
	if owners, err = s.Owners(ctx); err != nil || !slices.Equal(owners, []sig.AccountID{{1}}) {
		t.Errorf("owners %v, %v, want only 1", owners, err)
	}
}

func testLive(t *testing.T, s scheduler.Store) {
	ctx := context.Background()
	j := NewJob(1, 0)
	save(t, s, j, NewJob(1, 1))
	check := func(want ...job.ID) {
		t.Helper()
		if ids, err := s.Live(ctx); err != nil || !slices.Equal(ids, want) {
			t.Errorf("live %v, %v, want %v", ids, err, want)
		}
	}
	check()
	j.Current().Attempts = []scheduler.Attempt{{State: scheduler.Pending}}
	save(t, s, j)
	check(j.ID)
	if refs, err := s.Pending(ctx, j.Owner, scheduler.Cursor{}, 10); err != nil || len(refs) != 1 {
		t.Errorf("pending %v, %v: a run with a live attempt does not wait", refs, err)
	}
	j.Current().Attempts[0].State = scheduler.Ended
	save(t, s, j)
	check()
}
