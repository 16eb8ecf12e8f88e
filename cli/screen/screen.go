// Package screen shows a job's events: live on a terminal, as plain lines elsewhere, as JSON lines
// for programs, or not at all.
//
// What strangers' programs print is cleaned before it reaches a terminal, so that a job cannot move
// the cursor or change the title of its owner's window.
package screen

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/jobrun"
)

// Tail is how many lines of output a live screen shows.
const Tail = 8

// frameTime is how often a live screen is drawn while nothing happens.
const frameTime = 100 * time.Millisecond

// Screen is a view that must be closed, after which others may write.
type Screen interface {
	jobrun.View
	Close()
}

// Quiet shows nothing.
type Quiet struct{}

// Event implements jobrun.View.
func (Quiet) Event(jobrun.Event) {}

// Close implements Screen.
func (Quiet) Close() {}

// JSON writes one line of JSON per event, and the report as the last one.
type JSON struct{ Out io.Writer }

// Event implements jobrun.View.
func (j JSON) Event(e jobrun.Event) {
	raw, err := json.Marshal(e)
	if err != nil {
		return // no event has what JSON cannot say
	}
	_, _ = j.Out.Write(append(raw, '\n')) // a closed pipe must not stop the job
}

// Close implements Screen.
func (JSON) Close() {}

// Plain writes a line per event: states and money to Out, and the program's own output as it is
// when Raw is set, cleaned otherwise.
type Plain struct {
	Out io.Writer
	Raw bool

	amount string
}

// Event implements jobrun.View.
func (p *Plain) Event(e jobrun.Event) {
	at := e.Time.Format("15:04:05")
	switch e.Kind {
	case jobrun.KindSubmitted:
		p.line("%s submitted %s, escrow %s, trace %s%s", at, e.Job, e.Escrow, orDash(e.TraceID),
			platforms(&e, ", for "))
	case jobrun.KindState:
		p.line("%s %s", at, describe(&e))
	case jobrun.KindLog:
		text := Clean(e.Text)
		if p.Raw {
			text = strings.TrimRight(e.Text, "\r\n")
		}
		p.line("%s", text)
	case jobrun.KindNote:
		if e.Amount != nil && e.Amount.String() != p.amount {
			p.amount = e.Amount.String()
			p.line("%s cost so far %s", at, amount.Text(*e.Amount))
		}
	case jobrun.KindRefused, jobrun.KindWarning:
		p.line("%s warning: %s", at, Clean(e.Text))
	case jobrun.KindOutput:
		p.line("%s saved %s (%s)", at, Clean(e.File), Bytes(e.Size))
	}
}

func (p *Plain) line(format string, args ...any) {
	_, _ = fmt.Fprintf(p.Out, format+"\n", args...) // a closed pipe must not stop the job
}

// Close implements Screen.
func (p *Plain) Close() {}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// platforms names the platforms of a job behind a word; a job for any has none.
func platforms(e *jobrun.Event, word string) string {
	if len(e.Platforms) == 0 {
		return ""
	}
	return word + Clean(strings.Join(e.Platforms, ", "))
}

// describe words a state.
func describe(e *jobrun.Event) string {
	text := e.State
	if e.Host != "" {
		text += " on " + Clean(e.Host)
	}
	if e.Attempt > 1 {
		text += fmt.Sprintf(", attempt %d", e.Attempt)
	}
	// A scheduler's reason says again that it waits.
	reason := Clean(e.Reason)
	if e.State == "pending" {
		reason = strings.TrimPrefix(reason, "waiting: ")
	}
	if reason != "" && reason != e.State {
		text += ": " + reason
	}
	return text
}

// Live redraws one state line and the tail of the output below it in place.
type Live struct {
	out   io.Writer
	width func() int
	now   func() time.Time
	stop  chan struct{}
	done  sync.WaitGroup

	bold, dim, usual string // may be empty

	mu      sync.Mutex // guards what follows and the order of frames
	name    string
	began   time.Time
	state   jobrun.Event
	amount  amount.Amount
	tail    []string
	partial bool // the last line of the tail goes on
	drawn   int  // lines of the frame on the terminal
	notes   []string
	told    bool // something happened
	closed  bool
}

// NewLive starts a live screen; width tells the terminal's columns. plain leaves out bold and dim.
// Close it.
func NewLive(out io.Writer, width func() int, now func() time.Time, plain bool) *Live {
	l := &Live{out: out, width: width, now: now, stop: make(chan struct{}), began: now()}
	if l.bold, l.dim, l.usual = "\x1b[1m", "\x1b[2m", "\x1b[0m"; plain {
		l.bold, l.dim, l.usual = "", "", ""
	}
	l.state = jobrun.Event{State: "submitting"}
	l.done.Go(l.tick)
	return l
}

func (l *Live) tick() {
	ticker := time.NewTicker(frameTime)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			l.mu.Lock()
			l.draw()
			l.mu.Unlock()
		case <-l.stop:
			return
		}
	}
}

// Event implements jobrun.View.
func (l *Live) Event(e jobrun.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = true
	switch e.Kind {
	case jobrun.KindSubmitted:
		l.name = e.Name
		l.notes = append(l.notes, "job    "+e.Job, "escrow "+e.Escrow,
			"trace  "+orDash(e.TraceID))
		if text := platforms(&e, "for    "); text != "" {
			l.notes = append(l.notes, text)
		}
	case jobrun.KindState:
		l.state = e
	case jobrun.KindLog:
		l.log(&e)
	case jobrun.KindNote:
		if e.Amount != nil {
			l.amount = *e.Amount
		}
	case jobrun.KindRefused, jobrun.KindWarning:
		l.notes = append(l.notes, "warning: "+Clean(e.Text))
	case jobrun.KindOutput:
		l.notes = append(l.notes, fmt.Sprintf("saved %s (%s)", Clean(e.File), Bytes(e.Size)))
	}
	l.draw()
}

// maxLine bounds a line of the tail, in bytes: no terminal is wider.
const maxLine = 4096

func (l *Live) log(e *jobrun.Event) {
	text := Clean(e.Text)
	if l.partial && len(l.tail) > 0 {
		if last := &l.tail[len(l.tail)-1]; len(*last) < maxLine {
			*last += text
		}
	} else if l.tail = append(l.tail, text); len(l.tail) > Tail {
		l.tail = append(l.tail[:0], l.tail[1:]...)
	}
	l.partial = e.Partial
}

// draw writes one frame with a single write: up to the frame's beginning, what stays for good, the
// frame, each line cleared to its end. So nothing flickers.
func (l *Live) draw() {
	if l.closed {
		return
	}
	columns := max(l.width(), 20)
	var frame strings.Builder
	if l.drawn > 0 {
		fmt.Fprintf(&frame, "\x1b[%dA\r", l.drawn)
	}
	for _, note := range l.notes {
		frame.WriteString(note + "\x1b[K\n") // may be longer than a line: it is not drawn over
	}
	l.notes = nil
	lines := []string{l.bold + Fit(l.headline(), columns-1) + l.usual}
	for _, line := range l.tail {
		lines = append(lines, l.dim+"  "+Fit(line, columns-3)+l.usual)
	}
	for _, line := range lines {
		frame.WriteString(line + "\x1b[K\n")
	}
	frame.WriteString("\x1b[J")
	l.drawn = len(lines)
	_, _ = io.WriteString(l.out, frame.String()) // a closed terminal must not stop the job
}

func (l *Live) headline() string {
	parts := []string{describe(&l.state)}
	if l.name != "" {
		parts = append([]string{l.name}, parts...)
	}
	// What a person watches comes first, so that a long reason is what gets cut.
	clock := Elapsed(l.now().Sub(l.began))
	return fmt.Sprintf("%s · %s · %s", clock, amount.Text(l.amount), strings.Join(parts, " · "))
}

// Close draws the last frame and leaves it on the terminal; if nothing happened at all, nothing is
// left.
func (l *Live) Close() {
	l.mu.Lock()
	if l.told {
		l.draw()
	} else if l.drawn > 0 {
		_, _ = fmt.Fprintf(l.out, "\x1b[%dA\r\x1b[J", l.drawn)
	}
	l.closed = true
	l.mu.Unlock()
	close(l.stop)
	l.done.Wait()
}
