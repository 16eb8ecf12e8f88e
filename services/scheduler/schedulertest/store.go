// Package schedulertest holds what tests of the scheduler share: the contract of its store, a
// complete store in memory that can fail, and builders of jobs, offers and escrows.
package schedulertest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
)

// TestStore runs the store's contract. open returns the store over the same data each time it is
// called, as after a restart.
func TestStore(t *testing.T, open func(t *testing.T) scheduler.Store) {
	for name, test := range map[string]func(*testing.T, scheduler.Store){
		"job": testJob, "listing": testListing, "queue": testQueue, "skip": testSkip,
		"due": testDue, "live": testLive, "claims": testClaims,
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
	again.Current().Attempts = []scheduler.Attempt{{ID: scheduler.AttemptID{1}, Reason: "asked"}}
	save(t, s, again)
	again.Current().Reason, again.Current().Attempts[0].Reason = "changed", "changed"
	got, err = s.Job(ctx, j.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got.Current().Reason != "" || got.Current().Attempts[0].Reason != "asked" {
		t.Errorf("read %+v, want what was saved, whatever the caller did to it after that", got)
	}
	got.Current().Attempts[0].Reason = "changed"
	if got, err = s.Job(ctx, j.ID); err != nil || got.Current().Attempts[0].Reason != "asked" ||
		string(got.Revision) != "revision" {
		t.Errorf("read %+v, %v, want what was saved with its revision", got, err)
	}
}

func testListing(t *testing.T, s scheduler.Store) {
	for n := range 5 {
		save(t, s, NewJob(1, n), NewJob(2, n))
	}
	twin := NewJob(1, 4) // submitted at the same time as another
	twin.ID[1] = 1
	save(t, s, twin)
	all := []job.ID{{1, 0, 0}, {1, 0, 1}, {1, 0, 2}, {1, 0, 3}, {1, 0, 4}, {1, 1, 4}}
	newest := slices.Clone(all)
	slices.Reverse(newest)
	at := func(n int) time.Time { return Start().Add(time.Duration(n) * time.Second) }
	for name, tt := range map[string]struct {
		query scheduler.JobQuery
		want  []job.ID
	}{
		"newest":          {scheduler.JobQuery{}, newest},
		"oldest":          {scheduler.JobQuery{Oldest: true}, all},
		"since":           {scheduler.JobQuery{Since: at(3)}, newest[:3]},
		"until":           {scheduler.JobQuery{Until: at(3)}, newest[3:]},
		"between, oldest": {scheduler.JobQuery{Since: at(1), Until: at(3), Oldest: true}, all[1:3]},
		"nothing":         {scheduler.JobQuery{Since: at(3), Until: at(2)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := listAll(t, s, tt.query); !slices.Equal(got, tt.want) {
				t.Errorf("listed %v, want %v", got, tt.want)
			}
		})
	}
}

// listAll pages through an owner's jobs, two at a time.
func listAll(t *testing.T, s scheduler.Store, q scheduler.JobQuery) (got []job.ID) {
	t.Helper()
	q.Owner, q.Limit = sig.AccountID{1}, 2
	for {
		page, err := s.Jobs(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return got
		}
		for _, j := range page {
			got = append(got, j.ID)
			q.After = scheduler.Cursor{Time: j.Submitted, Job: j.ID}
		}
	}
}

func pending(
	t *testing.T, s scheduler.Store, q scheduler.PendingQuery,
) (ids []job.ID, page scheduler.PendingPage) {
	t.Helper()
	page, err := s.Pending(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range page.Refs {
		ids = append(ids, ref.Job)
	}
	return ids, page
}

func testQueue(t *testing.T, s scheduler.Store) {
	ctx := context.Background()
	jobs := []*scheduler.Job{NewJob(1, 0), NewJob(1, 1), NewJob(1, 2), NewJob(3, 0)}
	save(t, s, jobs...)
	checkCounts(t, s, map[sig.AccountID]int{{1}: 3, {3}: 1})
	first := scheduler.PendingQuery{Owner: sig.AccountID{1}, Limit: 2}
	ids, page := pending(t, s, first)
	want, _ := jobs[1].WaitingSince(jobs[1].Current())
	if !slices.Equal(ids, []job.ID{jobs[0].ID, jobs[1].ID}) || !page.More {
		t.Fatalf("first page %v, more %v, want the two oldest and more", ids, page.More)
	}
	if got := page.Refs[1]; got.Place().Compare(want.Place()) != 0 || !got.Due.Equal(want.Due) ||
		got.Shape != want.Shape || got.Size != want.Size || got.Bid != want.Bid {
		t.Errorf("ref %+v, want %+v", got, want)
	}
	rest := scheduler.PendingQuery{Owner: sig.AccountID{1}, Limit: 2, After: page.Next}
	if ids, page = pending(t, s, rest); !slices.Equal(ids, []job.ID{jobs[2].ID}) || page.More {
		t.Fatalf("second page %v, more %v, want the youngest and no more", ids, page.More)
	}
	for n, j := range jobs[:3] {
		ref, _ := j.WaitingSince(j.Current())
		if got, err := s.Ahead(ctx, j.Owner, ref.Place(), 2); err != nil || got != n {
			t.Errorf("%d, %v ahead of job %d", got, err, n)
		}
	}
	jobs[0].Current().NotBefore = Start().Add(time.Hour) // held back: goes behind
	jobs[1].Current().State = scheduler.Ended
	save(t, s, jobs[0], jobs[1])
	if ids, _ = pending(t, s, first); !slices.Equal(ids, []job.ID{jobs[2].ID, jobs[0].ID}) {
		t.Errorf("after changes %v, want job 2 then job 0", ids)
	}
	jobs[3].Current().State = scheduler.Leased
	save(t, s, jobs[3])
	checkCounts(t, s, map[sig.AccountID]int{{1}: 2})
}

func checkCounts(t *testing.T, s scheduler.Store, want map[sig.AccountID]int) {
	t.Helper()
	ctx := context.Background()
	runs := 0
	for owner, n := range want {
		runs += n
		if got, err := s.CountOf(ctx, owner); err != nil || got != n {
			t.Errorf("owner %d has %d, %v waiting, want %d", owner[0], got, err, n)
		}
	}
	if got, err := s.Count(ctx); err != nil || got.Runs != runs || got.Owners != len(want) {
		t.Errorf("count %+v, %v, want %d runs of %d owners", got, err, runs, len(want))
	}
	owners, err := s.Owners(ctx)
	if err != nil || !slices.Equal(owners, slices.SortedFunc(maps.Keys(want), sig.AccountID.Compare)) {
		t.Errorf("owners %v, %v, want those of %v", owners, err, want)
	}
}

// testSkip: shapes that are skipped do not fill a page, and better bids stand before.
func testSkip(t *testing.T, s scheduler.Store) {
	small := NewJob(1, 0).Spec.Shape()
	var big []job.ID
	for n := range 9 {
		j := NewJob(1, n)
		if n%3 == 2 {
			j.Spec.Resources.CPUMilli, j.Spec.MaxTotal = 2000, 2_000_000
			big = append(big, j.ID)
		}
		save(t, s, j)
	}
	skip := func(shape scheduler.Shape) bool { return shape == small }
	q := scheduler.PendingQuery{Owner: sig.AccountID{1}, Limit: 3, Skip: skip}
	if ids, page := pending(t, s, q); !slices.Equal(ids, big) || page.More {
		t.Errorf("without the small ones %v, more %v, want %v and no more", ids, page.More, big)
	}
	rich := NewJob(1, 10)
	rich.Spec.MaxTotal *= 8 // three doublings: 90 s
	save(t, s, rich)
	q = scheduler.PendingQuery{Owner: sig.AccountID{1}, Limit: 1}
	if ids, _ := pending(t, s, q); !slices.Equal(ids, []job.ID{rich.ID}) {
		t.Errorf("first is %v, want the one that pays more", ids)
	}
}

func testDue(t *testing.T, s scheduler.Store) {
	ctx := context.Background()
	at := func(n int) time.Time { return Start().Add(time.Duration(n) * time.Minute) }
	look := func(n int, when time.Time) {
		t.Helper()
		if err := s.Save(ctx, scheduler.Change{Job: NewJob(1, n), Look: when}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, after scheduler.Cursor, want ...byte) (last scheduler.Cursor) {
		t.Helper()
		due, err := s.Due(ctx, after, at(5), 2)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for _, c := range due {
			got, last = append(got, c.Job[2]), c
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: due %v, want %v", what, got, want)
		}
		return last
	}
	look(1, at(3))
	look(2, at(1))
	look(3, at(5))
	look(4, at(6))
	look(5, time.Time{})
	last := check("first page", scheduler.Cursor{}, 2, 1)
	check("second page", last, 3)
	look(2, at(9)) // heard meanwhile
	look(1, time.Time{})
	check("after changes", scheduler.Cursor{}, 3)
}

func testLive(t *testing.T, s scheduler.Store) {
	ctx := context.Background()
	jobs := []*scheduler.Job{NewJob(1, 0), NewJob(1, 1), NewJob(1, 2)}
	save(t, s, jobs...)
	check := func(after job.ID, want ...job.ID) {
		t.Helper()
		if ids, err := s.Live(ctx, after, 1); err != nil || !slices.Equal(ids, want) {
			t.Errorf("live behind %x: %v, %v, want %v", after[:3], ids, err, want)
		}
	}
	check(job.ID{})
	for _, j := range jobs[:2] {
		j.Current().Attempts = []scheduler.Attempt{{State: scheduler.Pending}}
	}
	save(t, s, jobs...)
	check(job.ID{}, jobs[0].ID)
	check(jobs[0].ID, jobs[1].ID)
	check(jobs[1].ID)
	checkCounts(t, s, map[sig.AccountID]int{{1}: 1}) // with a live attempt a run does not wait
	jobs[0].Current().Attempts[0].State = scheduler.Ended
	save(t, s, jobs[0])
	check(job.ID{}, jobs[1].ID)
	checkCounts(t, s, map[sig.AccountID]int{{1}: 2})
	jobs[0].Current().Attempts[0].Kept = true
	save(t, s, jobs[0])
	check(job.ID{}, jobs[0].ID)
}

func testClaims(t *testing.T, s scheduler.Store) {
	ctx := context.Background()
	at := func(n int) scheduler.Claim {
		due := Start().Add(time.Duration(n) * time.Hour)
		c := scheduler.Claim{Lease: tx.LeaseID{byte(9 - n)}, Due: due}
		if n == 2 {
			c.By = scheduler.Teller{
				Executor: sig.PublicKey{1}, Operator: sig.AccountID{2}, Leased: Start(), Told: due,
			}
		}
		return c
	}
	claims := []scheduler.Claim{at(3), at(1), at(2)}
	err := s.Save(ctx, scheduler.Change{Job: NewJob(1, 1), Claims: claims})
	if err != nil {
		t.Fatal(err)
	}
	behind := func(after scheduler.Claim, by, limit int, want ...scheduler.Claim) {
		t.Helper()
		got, err := s.Claims(ctx, after, Start().Add(time.Duration(by)*time.Hour), limit)
		if err != nil || !slices.EqualFunc(got, want, func(a, b scheduler.Claim) bool {
			return a.Lease == b.Lease && a.Due.Equal(b.Due) &&
				a.By.Executor == b.By.Executor && a.By.Operator == b.By.Operator &&
				a.By.Leased.Equal(b.By.Leased) && a.By.Told.Equal(b.By.Told)
		}) {
			t.Errorf("claims by %d h: %v, %v, want %v", by, got, err, want)
		}
	}
	check := func(by, limit int, want ...scheduler.Claim) {
		t.Helper()
		behind(scheduler.Claim{}, by, limit, want...)
	}
	check(0, 9)
	behind(at(1), 9, 1, at(2))
	behind(at(1), 2, 9, at(2))
	behind(at(3), 9, 9)
	check(2, 9, at(1), at(2))
	check(9, 2, at(1), at(2))
	later := scheduler.Claim{Lease: at(1).Lease, Due: at(5).Due}
	if err := s.Claimed(ctx, []scheduler.Claim{at(1), at(2)}, []scheduler.Claim{later}); err != nil {
		t.Fatal(err)
	}
	check(9, 9, at(3), later)
}
