package executor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/fake"
)

// gate holds the bytes of an image back.
type gate struct {
	open chan struct{}

	mu     sync.Mutex // guards what follows
	opened []time.Time
	closed int
}

func (g *gate) counts() (opened, closed int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.opened), g.closed
}

// gated is a storage whose images come through gates.
type gated struct {
	executor.Files
	gates map[executor.ImageID]*gate
}

func (f gated) OpenImage(
	ctx context.Context, as executor.FileAccess, want executor.FetchImage,
) (io.ReadCloser, error) {
	r, err := f.Files.OpenImage(ctx, as, want)
	g := f.gates[want.ID]
	if other := f.gates[executor.ImageID(want.Reference)]; other != nil {
		g = other
	}
	if err != nil || g == nil {
		return r, err
	}
	g.mu.Lock()
	g.opened = append(g.opened, time.Now())
	g.mu.Unlock()
	return &gatedImage{ReadCloser: r, gate: g, over: make(chan struct{})}, nil
}

// CheckImage proves images of gated references by reading them.
func (f gated) CheckImage(
	ctx context.Context, as executor.FileAccess, want executor.FetchImage,
) error {
	if f.gates[executor.ImageID(want.Reference)] == nil {
		return f.Files.CheckImage(ctx, as, want)
	}
	r, err := want.Turn(ctx, func(ctx context.Context) (io.ReadCloser, error) {
		return f.OpenImage(ctx, as, want)
	})
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}

type gatedImage struct {
	io.ReadCloser
	gate *gate
	over chan struct{}
	once sync.Once
}

func (i *gatedImage) Read(p []byte) (int, error) {
	select {
	case <-i.gate.open:
		return i.ReadCloser.Read(p)
	case <-i.over:
		return 0, io.ErrClosedPipe
	}
}

func (i *gatedImage) Close() error {
	i.once.Do(func() {
		close(i.over)
		i.gate.mu.Lock()
		i.gate.closed++
		i.gate.mu.Unlock()
	})
	return nil
}

// pulling is an attempt whose image comes through a gate.
type pulling struct {
	ask    executor.Ask
	gate   *gate
	client *client
	done   chan struct{}
	end    *executor.Outcome
}

// reasons are what its owner was told while it started.
func (p *pulling) reasons() (list []string) {
	p.client.mu.Lock()
	defer p.client.mu.Unlock()
	for _, s := range p.client.statuses {
		if s.State == executor.AttemptStarting {
			list = append(list, s.Reason)
		}
	}
	return list
}

// pullWorld is a world where no image is held.
func pullWorld(w *world, most int) *executor.Agent {
	w.host = fake.NewHost(fake.Options{Hook: w.driverHook})
	w.cfg.MaxPulls, w.gates = most, map[executor.ImageID]*gate{}
	for n := byte(1); n < 20; n++ {
		w.gates[w.addImage(n, 1000)] = &gate{open: make(chan struct{})}
	}
	return w.start()
}

// pull asks for an attempt of an owner that wants an image of its own, and delivers its task.
func (w *world) pull(agent *executor.Agent, n byte, owner sig.AccountID,
	change ...func(*executor.Ask),
) *pulling {
	w.t.Helper()
	return w.pullWith(agent, n, owner, nil, change...)
}

// finish lets the image through and waits for the program's end.
func (p *pulling) finish(t *testing.T) {
	t.Helper()
	close(p.gate.open)
	<-p.done
	if p.end.Reason != executor.EndCompleted {
		t.Errorf("attempt %s ended %+v", p.ask.Attempt, p.end)
	}
}

func (p *pulling) underWay() bool {
	opened, closed := p.gate.counts()
	return opened > closed
}

// TestPullsTakeTurns: no more images come at once than the operator allows, one owner has no more
// than half of the turns however many of his jobs wait, and those who wait are told.
func TestPullsTakeTurns(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := pullWorld(w, 4)
		many, one := sig.AccountID{1}, sig.AccountID{2}
		var greedy []*pulling
		for n := byte(1); n <= 6; n++ {
			greedy = append(greedy, w.pull(agent, n, many))
		}
		pass(2 * time.Second)
		for i, p := range greedy {
			if p.underWay() != (i < 2) {
				t.Errorf("image %d of one owner is under way: %v", i, p.underWay())
			}
		}
		if got := greedy[2].reasons(); !strings.Contains(strings.Join(got, "|"),
			"waits for its turn") {
			t.Errorf("who waits is told %q", got)
		}
		stats, err := agent.Stats(t.Context(), executor.StatsAsk{
			From: executor.Peer{Account: many}, Job: greedy[2].ask.Job,
		})
		if err != nil || !strings.Contains(stats.Waiting, "waits for its turn") {
			t.Errorf("what waits uses %+v, %v", stats, err)
		}
		list, err := agent.Attempts(t.Context(), time.Time{}, 100)
		if err != nil || !slices.ContainsFunc(list, func(r executor.Record) bool {
			return strings.Contains(r.Waiting, "waits for its turn")
		}) {
			t.Errorf("the operator is shown %+v, %v", list, err)
		}
		other := w.pull(agent, 7, one)
		if !other.underWay() {
			t.Error("another owner's image waits for one owner's six")
		}
		other.finish(t)
		for _, p := range greedy {
			p.finish(t)
			pass(2 * time.Second)
		}
		if got := greedy[2].reasons(); got[len(got)-1] != "fetching image and inputs" {
			t.Errorf("who has its turn is told %q", got)
		}
	})
}

// TestTurnsGoOwnerByOwner: with one turn at a time, an owner who came last waits for no more than
// one image of another.
func TestTurnsGoOwnerByOwner(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := pullWorld(w, 1)
		var order []*pulling
		for n := byte(1); n <= 3; n++ {
			order = append(order, w.pull(agent, n, sig.AccountID{1}))
		}
		order = append(order, w.pull(agent, 4, sig.AccountID{2}))
		for _, i := range []int{0, 3, 1, 2} {
			for j, p := range order {
				if p.underWay() != (i == j) {
					t.Errorf("at the turn of %d, image %d is under way: %v", i, j, p.underWay())
				}
			}
			order[i].finish(t)
			pass(time.Second)
		}
	})
}

// TestJoinedImageHasTheBestTurn: an image that two owners want waits for neither's other images.
func TestJoinedImageHasTheBestTurn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := pullWorld(w, 2)
		first := w.pull(agent, 1, sig.AccountID{1})
		second := w.pull(agent, 2, sig.AccountID{1})
		if second.underWay() {
			t.Fatal("one owner has both turns")
		}
		joined := w.pull(agent, 3, sig.AccountID{2}, func(a *executor.Ask) {
			a.Spec.Image = second.ask.Spec.Image
		})
		if !second.underWay() {
			t.Error("an image that another owner wants, too, waits for the first one's turn")
		}
		second.finish(t)
		<-joined.done
		if joined.end.Reason != executor.EndCompleted {
			t.Errorf("who joined ended %+v", joined.end)
		}
		first.finish(t)
	})
}

// TestSlowPullGivesItsTurnUp when others wait, and only then.
func TestSlowPullGivesItsTurnUp(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := pullWorld(w, 1)
		slow := w.pull(agent, 1, sig.AccountID{1})
		pass(3 * time.Minute)
		if opened, _ := slow.gate.counts(); opened != 1 || !slow.underWay() {
			t.Fatalf("opened %d times while nobody waits", opened)
		}
		for n := byte(2); n <= 4; n++ {
			next := w.pull(agent, n, sig.AccountID{n})
			close(next.gate.open)
			pass(2 * time.Minute)
			select {
			case <-next.done:
			default:
				t.Fatalf("owner %d still waits for a registry that sends nothing", n)
			}
		}
		<-slow.done
		if e := slow.end; e.Reason != executor.EndRefused || e.Amount != 0 ||
			!strings.Contains(e.Message, "in time") {
			t.Errorf("the slow one ended %+v", e)
		}
	})
}

// TestHangingSourceHoldsNobodyElse: who names another source for the same image gets it from there,
// and one who stops holds no other's.
func TestHangingSourceHoldsNobodyElse(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := pullWorld(w, 2)
		const hangs = "hangs.example/a"
		dark := &gate{open: make(chan struct{})}
		w.gates[hangs] = dark
		pull := func(n byte, reference string) *pulling {
			return w.pull(agent, n, sig.AccountID{n}, func(a *executor.Ask) {
				a.Spec.Image, a.Spec.Reference = w.addImage(1, 1000), reference
			})
		}
		stranger := pull(1, hangs)
		for n := byte(2); n <= 3; n++ {
			p := pull(n, "")
			if n == 2 {
				if !p.underWay() {
					t.Error("its own source is not tried")
				}
				close(p.gate.open)
			}
			<-p.done
			if p.end.Reason != executor.EndCompleted {
				t.Errorf("who names another source ended %+v", p.end)
			}
		}
		if opened, closed := dark.counts(); opened != 1 || closed != 0 {
			t.Errorf("the source that hangs was opened %d times, closed %d", opened, closed)
		}
		<-stranger.done
		if stranger.end.Reason != executor.EndRefused || stranger.end.Amount != 0 {
			t.Errorf("the stranger ended %+v", stranger.end)
		}
		pass(time.Minute)
		if opened, closed := dark.counts(); opened != closed {
			t.Error("the source is read on for nobody")
		}
	})
}

// TestProofsTakeTurns: a held image that is read from another registry waits like any other.
func TestProofsTakeTurns(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := pullWorld(w, 1)
		w.pull(agent, 1, sig.AccountID{1}).finish(t)
		under := w.pull(agent, 2, sig.AccountID{2})
		const mirror = "mirror.example/a"
		proof := &gate{open: make(chan struct{})}
		w.gates[mirror] = proof
		held := w.pull(agent, 3, sig.AccountID{3}, func(a *executor.Ask) {
			a.Spec.Image, a.Spec.Reference = w.addImage(1, 1000), mirror
		})
		pass(2 * time.Second)
		if opened, _ := proof.counts(); opened != 0 {
			t.Error("it is proven without a turn")
		}
		if got := strings.Join(held.reasons(), "|"); !strings.Contains(got, "waits for its turn") {
			t.Errorf("who waits is told %q", got)
		}
		under.finish(t)
		close(proof.open)
		<-held.done
		if opened, _ := proof.counts(); opened != 1 || held.end.Reason != executor.EndCompleted {
			t.Errorf("opened %d times, ended %+v", opened, held.end)
		}
	})
}

// TestUnwantedPullIsGivenUp: what was stopped neither waits on nor comes on for nobody.
func TestUnwantedPullIsGivenUp(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := pullWorld(w, 1)
		under, queued := w.pull(agent, 1, sig.AccountID{1}), w.pull(agent, 2, sig.AccountID{2})
		for _, p := range []*pulling{under, queued} {
			err := agent.Stop(t.Context(), executor.StopAsk{
				From: executor.Peer{Account: p.ask.Spec.Owner}, Job: p.ask.Job, Attempt: p.ask.Attempt,
			})
			if err != nil {
				t.Fatal(err)
			}
			<-p.done
		}
		last := w.pull(agent, 3, sig.AccountID{3})
		pass(time.Minute)
		if under.underWay() || queued.underWay() || !last.underWay() {
			t.Errorf("under way: %v, %v, the last one: %v", under.underWay(), queued.underWay(),
				last.underWay())
		}
		last.finish(t)
	})
}

// TestEvictedWhileItsImageWaits: it goes as it was told, uncharged, also over a restart, and its
// turn is another's.
func TestEvictedWhileItsImageWaits(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := pullWorld(w, 1)
		under, queued := w.pull(agent, 1, sig.AccountID{1}), w.pull(agent, 2, sig.AccountID{2})
		pass(2 * time.Second)
		_, err := agent.Evict(t.Context(), queued.ask.Attempt, 20*time.Second, "moving")
		if err != nil {
			t.Fatal(err)
		}
		w.kill()
		agent = w.start()
		<-queued.done
		if e := queued.end; e.Reason != executor.EndEvicted || e.Amount != 0 {
			t.Errorf("ended %+v", e)
		}
		if r := w.closed(queued.ask.Attempt); r.Waiting != "" || r.Paid != 0 {
			t.Errorf("closed waiting for %q, paid %d", r.Waiting, r.Paid)
		}
		last := w.pull(agent, 3, sig.AccountID{3})
		under.finish(t)
		last.finish(t)
	})
}

// TestWaitingPullOutlastsItsLease: it ends with the lease, says why, and costs nothing.
func TestWaitingPullOutlastsItsLease(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := pullWorld(w, 1)
		under := w.pull(agent, 1, sig.AccountID{1})
		begun := time.Now()
		late := w.pull(agent, 2, sig.AccountID{1}, func(a *executor.Ask) {
			a.Terms.PlaceBy = uint64(begun.Add(20 * time.Second).UnixMilli())
			a.Terms.Until = uint64(begun.Add(45 * time.Second).UnixMilli())
		})
		<-late.done
		if e := late.end; e.Reason != executor.EndRefused || e.Amount != 0 ||
			!strings.Contains(e.Message, "lease ended") ||
			!strings.Contains(e.Message, "waits for its turn") {
			t.Errorf("ended %+v", e)
		}
		if took := time.Since(begun); took > time.Minute {
			t.Errorf("it waited %v for a lease of 45 s", took)
		}
		under.finish(t)
		slow := w.pull(agent, 3, sig.AccountID{1})
		<-slow.done
		if e := slow.end; e.Reason != executor.EndRefused || e.Amount != 0 ||
			!strings.Contains(e.Message, "its image was still on its way") {
			t.Errorf("whose image never came ended %+v", e)
		}
	})
}

// TestKilledWhileImagesWait: the next life fetches what was under way and what waited, and nothing
// is told or charged twice.
func TestKilledWhileImagesWait(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := pullWorld(w, 1)
		under, queued := w.pull(agent, 1, sig.AccountID{1}), w.pull(agent, 2, sig.AccountID{1})
		pass(5 * time.Second)
		for range 3 {
			w.kill()
			w.start()
			pass(5 * time.Second)
		}
		under.finish(t)
		queued.finish(t)
		for _, p := range []*pulling{under, queued} {
			r := w.closed(p.ask.Attempt)
			if r.Waiting != "" || w.ledger.Read(r.Lease.ID).Charges > 1 {
				t.Errorf("closed as %q, charged %d times", r.Waiting,
					w.ledger.Read(r.Lease.ID).Charges)
			}
			if n := strings.Count(strings.Join(p.reasons(), "|"), "waits for its turn"); n > 4 {
				t.Errorf("told %d times that it waits", n)
			}
		}
	})
}

// TestMaxPullsIsBounded names the field.
func TestMaxPullsIsBounded(t *testing.T) {
	for _, n := range []int{0, -1, 65} {
		cfg := executor.DefaultConfig()
		cfg.MaxPulls = n
		if err := cfg.Validate(); err == nil || !strings.Contains(fmt.Sprint(err), "max_pulls") {
			t.Errorf("max_pulls %d: %v", n, err)
		}
	}
}
