package scheduler

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
)

// pendings is a store's index of waiting runs.
type pendings struct {
	Lister
	refs map[sig.AccountID][]Ref
}

func compareRefs(a, b Ref) int { return a.Place().Compare(b.Place()) }

func (p *pendings) Owners(context.Context) (owners []sig.AccountID, _ error) {
	for owner, refs := range p.refs {
		if len(refs) > 0 {
			owners = append(owners, owner)
		}
	}
	slices.SortFunc(owners, sig.AccountID.Compare)
	return owners, nil
}

func (p *pendings) Pending(_ context.Context, q PendingQuery) (page PendingPage, _ error) {
	page.Next = q.After
	for _, ref := range p.refs[q.Owner] {
		if !q.After.IsZero() && ref.Place().Compare(q.After) <= 0 {
			continue
		}
		if len(page.Refs) == q.Limit {
			page.More = true
			break
		}
		page.Next = ref.Place()
		if q.Skip == nil || !q.Skip(ref.Shape) {
			page.Refs = append(page.Refs, ref)
		}
	}
	return page, nil
}

func (p *pendings) put(owner sig.AccountID, ref Ref) {
	at, _ := slices.BinarySearchFunc(p.refs[owner], ref, compareRefs)
	p.refs[owner] = slices.Insert(p.refs[owner], at, ref)
}

func (p *pendings) drop(owner sig.AccountID, run RunID) {
	p.refs[owner] = slices.DeleteFunc(p.refs[owner], func(r Ref) bool { return r.Run == run })
}

// shop is a queue with a store behind it, in which some runs fit nowhere.
type shop struct {
	t      *rapid.T
	store  *pendings
	queue  *queue
	owners map[RunID]sig.AccountID
	unfit  map[RunID]bool
	// here are the runs that wait, fits and unfits how many of each owner.
	here         map[RunID]Ref
	fits, unfits map[sig.AccountID]int
	now          time.Time
	made         int
	// served counts placements; since is at which count an owner was last served or began to have
	// a run that fits.
	served int
	since  map[sig.AccountID]int
}

func newShop(t *rapid.T) *shop {
	store := &pendings{refs: map[sig.AccountID][]Ref{}}
	return &shop{
		t: t, store: store, queue: &queue{store: store}, owners: map[RunID]sig.AccountID{},
		unfit: map[RunID]bool{}, now: time.Unix(1_800_000_000, 0), since: map[sig.AccountID]int{},
		here: map[RunID]Ref{}, fits: map[sig.AccountID]int{}, unfits: map[sig.AccountID]int{},
	}
}

func (s *shop) come(owner sig.AccountID, unfit bool) {
	s.made++
	s.now = s.now.Add(time.Millisecond)
	ref := Ref{Order: s.now, Due: s.now, Run: RunID{byte(s.made >> 8), byte(s.made)}, Size: 1000}
	ref.Job = job.ID{owner[0], byte(s.made >> 8), byte(s.made)}
	if !unfit && !s.waits(owner) {
		s.since[owner] = s.served
	}
	s.owners[ref.Run], s.unfit[ref.Run], s.here[ref.Run] = owner, unfit, ref
	if s.fits[owner]++; unfit {
		s.fits[owner]--
		s.unfits[owner]++
	}
	s.store.put(owner, ref)
	s.queue.add(owner, ref)
}

// waits tells whether the owner has a run that fits.
func (s *shop) waits(owner sig.AccountID) bool {
	return s.fits[owner] > 0
}

// serve makes rounds until n runs are placed or none can be.
func (s *shop) serve(n int) {
	idle := 0
	for n > 0 && idle <= s.made/maxWindow+2 {
		got, _, err := s.queue.round(context.Background(), s.now, func(ref Ref) verdict {
			owner := s.owners[ref.Run]
			switch {
			case n == 0:
				return nobodyNow
			case s.here[ref.Run] != ref:
				return gone
			case s.unfit[ref.Run]:
				return notNow
			}
			n--
			s.placed(owner, ref)
			return taken
		})
		if err != nil {
			s.t.Fatal(err)
		}
		if idle++; got > 0 {
			idle = 0
		}
	}
}

func (s *shop) placed(owner sig.AccountID, ref Ref) {
	s.served++
	s.store.drop(owner, ref.Run)
	delete(s.here, ref.Run)
	s.fits[owner]--
	s.since[owner] = s.served
}

func (s *shop) check() {
	for owner := range s.store.refs {
		if s.unfits[owner] > maxWindow/2 {
			continue // those that fit come up once the window has passed over the others
		}
		if waited := s.served - s.since[owner]; s.waits(owner) && waited > s.bound() {
			s.t.Fatalf("owner %d has waited for %d placements, bound %d", owner[0], waited, s.bound())
		}
	}
}

// maxOwners of a shop.
const maxOwners = 6

// bound: every other owner once in the round that goes on and once in the next.
func (s *shop) bound() int { return 2 * maxOwners }

// TestQueueIsFair: whoever comes and goes, and however many of their runs fit nowhere, an owner
// with few enough of those waits for a round or two, and in the end everything that fits is placed.
func TestQueueIsFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newShop(t)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			owner := sig.AccountID{byte(rapid.IntRange(1, maxOwners).Draw(t, "owner"))}
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				for range rapid.IntRange(1, 150).Draw(t, "many") {
					s.come(owner, false)
				}
			case 1:
				for range rapid.IntRange(1, 2*maxWindow).Draw(t, "unfit") {
					s.come(owner, true)
				}
			case 2:
				s.come(owner, false)
			default:
				places := rapid.IntRange(1, 3).Draw(t, "places")
				for range rapid.IntRange(1, 30).Draw(t, "times") {
					s.serve(places)
					s.check()
				}
			}
			s.check()
			for _, l := range s.queue.lines {
				if len(l.head) > 2*maxWindow {
					t.Fatalf("a line holds %d refs in memory", len(l.head))
				}
			}
		}
		s.serve(s.made)
		for owner, refs := range s.store.refs {
			if s.waits(owner) {
				t.Fatalf("owner %d: something that fits is left among %d", owner[0], len(refs))
			}
		}
	})
}

// TestQueueIsLoadedWhole: after a restart each run comes up once, oldest first.
func TestQueueIsLoadedWhole(t *testing.T) {
	store := &pendings{refs: map[sig.AccountID][]Ref{}}
	now := time.Unix(1_800_000_000, 0)
	for n := range 300 {
		id := [2]byte{byte(n >> 8), byte(n)}
		ref := Ref{Run: RunID(append(id[:], make([]byte, 14)...)), Order: now.Add(-time.Hour), Size: 1}
		copy(ref.Job[:], id[:])
		store.put(sig.AccountID{byte(n % 3)}, ref)
	}
	q := &queue{store: store}
	if err := q.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	last, seen := map[byte]Ref{}, map[RunID]bool{}
	for range 1000 {
		got, _, err := q.round(t.Context(), now, func(ref Ref) verdict {
			owner := byte((int(ref.Run[0])<<8 | int(ref.Run[1])) % 3)
			before := last[owner].Job
			if seen[ref.Run] || bytes.Compare(before[:], ref.Job[:]) > 0 {
				t.Fatalf("run %x comes twice or too late", ref.Run[:2])
			}
			seen[ref.Run], last[owner] = true, ref
			store.drop(sig.AccountID{owner}, ref.Run)
			return taken
		})
		if err != nil {
			t.Fatal(err)
		}
		if got == 0 {
			break
		}
	}
	if len(seen) != 300 || len(q.lines) != 0 {
		t.Errorf("%d of 300 runs came up, %d lines are left", len(seen), len(q.lines))
	}
}

// TestHeldBack: a run that is held back comes up when it is due, and its new place counts.
func TestHeldBack(t *testing.T) {
	store := &pendings{refs: map[sig.AccountID][]Ref{}}
	now := time.Unix(1_800_000_000, 0)
	q := &queue{store: store}
	early := Ref{Run: RunID{1}, Order: now, Due: now}
	late := Ref{Run: RunID{1}, Order: now.Add(time.Minute), Due: now.Add(time.Minute)}
	q.add(sig.AccountID{1}, early)
	q.add(sig.AccountID{1}, late)
	var tried []string
	try := func(ref Ref) verdict {
		tried = append(tried, fmt.Sprint(ref.Due.Sub(now)))
		return taken
	}
	for _, at := range []time.Duration{0, time.Minute} {
		_, due, err := q.round(t.Context(), now.Add(at), try)
		if err != nil {
			t.Fatal(err)
		}
		if at == 0 && !due.Equal(late.Due) {
			t.Errorf("due at %s, want %s", due, late.Due)
		}
	}
	if !slices.Equal(tried, []string{"1m0s"}) {
		t.Errorf("tried %v, want once, when it is due", tried)
	}
}

// oneJob is a store with one job.
type oneJob struct {
	Store
	job *Job
}

func (o oneJob) Job(context.Context, job.ID) (*Job, error) { return o.job.Clone(), nil }

// TestOldPlaceForgetsNoRun: the place that a run had before comes to the dispatcher after the one
// it has now, and takes that one's room in the line. The run stays in the queue.
func TestOldPlaceForgetsNoRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		j := &Job{ID: job.ID{1}, Owner: sig.AccountID{1}, Runs: []Run{{
			ID: RunID{1}, State: Pending, Created: now, NotBefore: now.Add(time.Second),
		}}}
		e := New(DefaultPolicy(), Deps{Store: oneJob{job: j}, Now: time.Now})
		defer e.end()
		is, _ := j.WaitingSince(&j.Runs[0])
		was := is
		was.Order, was.Due = is.Order.Add(-time.Second), is.Due.Add(-time.Second)
		q := &queue{store: &pendings{refs: map[sig.AccountID][]Ref{j.Owner: {is}}}}
		q.add(j.Owner, is)
		q.add(j.Owner, was)
		slots := make(chan struct{}, 1)
		try := func(ref Ref) verdict { return e.try(t.Context(), ref, slots) }
		if _, _, err := q.round(t.Context(), now, try); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case in := <-e.inbox:
			if in.owner != j.Owner || in.ref.Place() != is.Place() {
				t.Errorf("%+v comes back, want %+v", in.ref, is)
			}
		default:
			t.Error("the run is forgotten")
		}
	})
}
