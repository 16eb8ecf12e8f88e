package scheduler

import (
	"context"
	"slices"
	"sync"

	"github.com/united-containers/ucn/chain/sig"
)

// Bounds of what hosts are told of programs that they keep for nothing. Any host may speak of as
// many as it invents. Who is not told is told when it speaks of the program again, and ends it by
// itself when its time is over.
const (
	// maxDismissing is how many hosts are told at the same time, each of one program after the other.
	maxDismissing = 64
	// maxDismissals is how many programs of one host wait for that.
	maxDismissals = 64
)

// dismissals are what hosts are to be told to stop.
type dismissals struct {
	mu sync.Mutex
	// of a host: the first is being told.
	of map[sig.PublicKey][]Stop
}

// add notes a program that a host is to stop; true: the caller begins to tell that host.
func (d *dismissals) add(host sig.PublicKey, s Stop) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	wait := d.of[host]
	if len(wait) >= maxDismissals || len(wait) == 0 && len(d.of) >= maxDismissing ||
		slices.ContainsFunc(wait, func(of Stop) bool { return of.Attempt == s.Attempt }) {
		return false
	}
	if d.of == nil {
		d.of = map[sig.PublicKey][]Stop{}
	}
	d.of[host] = append(wait, s)
	return len(wait) == 0
}

// next takes away what the host was told, or all if it does not answer, and returns what it is to
// be told then, if anything.
func (d *dismissals) next(host sig.PublicKey, answers bool) (Stop, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	wait := d.of[host][1:]
	if len(wait) == 0 || !answers {
		delete(d.of, host)
		return Stop{}, false
	}
	d.of[host] = wait
	return wait[0], true
}

// sendAwayWho tells a host that keeps a program for nothing to stop it.
func (e *Engine) sendAwayWho(j *Job, rep Report) {
	o, ok := e.book.Get(rep.Executor)
	if !ok {
		return
	}
	s := Stop{Job: j.ID, Attempt: rep.Attempt, Reason: "it is not waited for", Grace: stopGrace}
	if !e.dismissals.add(rep.Executor, s) {
		return
	}
	e.tasks.Go(func() {
		for more := true; more; {
			answers := e.life.Err() == nil && e.tellToStop(e.life, o.Host, s)
			s, more = e.dismissals.next(rep.Executor, answers)
		}
	})
}

// tellToStop tells the host of a program that nothing waits for to stop it, and whether it was
// reached.
func (e *Engine) tellToStop(ctx context.Context, host Host, s Stop) bool {
	ctx, cancel := context.WithTimeout(ctx, e.policy.AskTimeout)
	defer cancel()
	err := e.deps.Hosts.Stop(ctx, host, s)
	if err != nil {
		e.deps.Log.InfoContext(ctx, "a host that was replaced is not reached",
			"job", s.Job, "host", host.Name, "error", err)
	}
	return err == nil
}
