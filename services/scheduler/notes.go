package scheduler

import (
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/united-containers/ucn/chain/sig"
)

// Bounds of notes.
const (
	maxDeclines = 64          // hosts remembered per run
	noteLife    = time.Minute // of a note that nobody renews; runs that wait are looked at often
	maxReason   = 500         // bytes of a reason a person reads
	maxNotes    = 100_000
)

// notes are what the dispatcher found out about runs that wait: why they do, and who declined them.
// They are renewed whenever a run is looked at, and swept when it is not any more.
type notes struct {
	mu   sync.Mutex
	runs map[RunID]*note
}

type note struct {
	why      string
	renewed  time.Time
	declined map[sig.PublicKey]time.Time
}

// at returns the run's note; mu is held.
func (n *notes) at(run RunID, now time.Time) *note {
	if n.runs == nil {
		n.runs = map[RunID]*note{}
	}
	held := n.runs[run]
	if held == nil {
		held = &note{}
		n.runs[run] = held
	}
	held.renewed = now
	return held
}

// explain changes the reason and reports whether it was another.
func (n *notes) explain(run RunID, why string, now time.Time) (changed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.runs) >= maxNotes && n.runs[run] == nil {
		return true // its shape's reason is told
	}
	held := n.at(run, now)
	changed, held.why = held.why != why, why
	return changed
}

// why returns the reason; own tells that it is this run's and not one of all runs of its shape.
func (n *notes) why(run RunID) (why string, own bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if held := n.runs[run]; held != nil {
		return held.why, len(held.declined) > 0
	}
	return "", false
}

// decline remembers that a host did not take the run.
func (n *notes) decline(run RunID, host sig.PublicKey, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	held := n.at(run, now)
	if held.declined == nil {
		held.declined = map[sig.PublicKey]time.Time{}
	}
	for key, at := range held.declined {
		if now.Sub(at).Abs() >= avoidFor || len(held.declined) >= maxDeclines {
			delete(held.declined, key)
		}
	}
	held.declined[host] = now
}

// avoids returns the hosts that declined the run lately.
func (n *notes) avoids(run RunID, now time.Time) map[sig.PublicKey]bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	held := n.runs[run]
	if held == nil || len(held.declined) == 0 {
		return nil
	}
	out := map[sig.PublicKey]bool{}
	for key, at := range held.declined {
		out[key] = now.Sub(at).Abs() < avoidFor
	}
	return out
}

func (n *notes) forget(run RunID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.runs, run)
}

func (n *notes) sweep(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for run, held := range n.runs {
		if now.Sub(held.renewed).Abs() > noteLife {
			delete(n.runs, run)
		}
	}
}

// shorten cuts a text that may be a stranger's to what a person reads.
func shorten(text string) string {
	if len(text) <= maxReason {
		return text
	}
	cut := maxReason - len("...")
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return strings.ToValidUTF8(text[:cut], "") + "..."
}
