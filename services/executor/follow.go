package executor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/united-containers/ucn/kit/fault"
)

const (
	maxChunkLines = 256      // of one LogChunk
	maxChunkBytes = 96 << 10 // of text in one LogChunk
	logAhead      = 256      // lines read ahead of a slow client
)

// logOffset makes the one number that clients go on from of a driver's position, and back. Its
// order is that of the log.
const offsetBits = 40

func logOffset(p LogPos) uint64 { return p.File<<offsetBits | uint64(p.Offset)&(1<<offsetBits-1) }

func logPos(offset uint64) LogPos {
	return LogPos{File: offset >> offsetBits, Offset: int64(offset & (1<<offsetBits - 1))}
}

// follower tells one client about one attempt.
type follower struct {
	t     *attempt
	send  func(Update) error
	told  int  // statuses
	note  Note // newest that was sent
	lines chan LogEntry
	over  bool      // lines was closed
	quit  func()    // ends the reading of the log
	read  sync.Once // the log is no longer read
}

// follow tells send everything until the end. Log lines come before the status that ends it, and to
// the owner only. The caller was counted as a reader by deliver.
func (t *attempt) follow(ctx context.Context, task *Task, send func(Update) error) error {
	ctx, cancel := context.WithCancel(ctx)
	f := &follower{t: t, send: send}
	defer f.doneReading()
	log := !task.From.Account.IsZero()
	if !log {
		f.doneReading()
	}
	pumped := make(chan struct{})
	close(pumped)
	defer func() {
		cancel()
		<-pumped
	}()
	if v := t.view(); len(v.statuses) == 0 { // whoever delivered learns at once that it is here
		s := v.rec.Status("the task is here")
		if err := send(Update{Status: &s}); err != nil {
			return err
		}
	}
	for {
		v := t.view()
		if log && f.lines == nil && v.container != nil && v.rec.Phase >= PhaseRunning {
			pumped = make(chan struct{})
			f.lines = make(chan LogEntry, logAhead)
			var reading context.Context
			reading, f.quit = context.WithCancel(ctx)
			go pump(reading, v.container, task.LogOffset, pumped, f.lines)
		}
		ended, err := f.tell(&v)
		if err != nil || ended {
			return err
		}
		if err := f.wait(ctx, &v); err != nil {
			return err
		}
	}
}

// tell sends what is new but the log, and the end only when the log is told.
func (f *follower) tell(v *view) (ended bool, err error) {
	for ; f.told < len(v.statuses); f.told++ {
		s := v.statuses[f.told]
		if s.State == AttemptEnded {
			if f.lines != nil && !f.over {
				if v.rec.HandedTo != "" { // what comes now is the other attempt's
					f.quit()
				}
				return false, nil
			}
			if err := f.tellNote(v); err != nil {
				return false, err
			}
		}
		if err := f.send(Update{Status: &s}); err != nil {
			return false, err
		}
		if s.State == AttemptEnded {
			return true, nil
		}
	}
	if v.rec.Phase == PhaseClosed { // it ended without anyone being told, as no lease came to be
		s := v.rec.Status(v.rec.Outcome.Message)
		return true, f.send(Update{Status: &s})
	}
	return false, f.tellNote(v)
}

func (f *follower) tellNote(v *view) error {
	newest := v.rec.Note
	if newest.Note == f.note || newest.Note.Lease != f.t.lease.ID || !v.rec.retold() {
		return nil
	}
	f.note = newest.Note
	f.t.toldNote(f.note)
	return f.send(Update{Note: &NoteAsk{Note: newest, Prices: v.rec.Prices}})
}

// wait returns when something changed, or after a piece of the log was sent.
func (f *follower) wait(ctx context.Context, v *view) error {
	lines := f.lines
	if f.over {
		lines = nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-v.changed:
		return nil
	case entry, ok := <-lines:
		if !ok {
			f.over = true
			f.doneReading()
			return nil
		}
		return f.send(Update{Log: f.chunk(entry)})
	}
}

// doneReading lets go of the container.
func (f *follower) doneReading() {
	f.read.Do(func() { f.t.set(func() { f.t.readers-- }) })
}

// chunk gathers the lines that are there already.
func (f *follower) chunk(first LogEntry) *LogChunk {
	chunk, closed := gather(first, f.lines)
	f.over = closed
	if closed {
		f.doneReading()
	}
	return chunk
}

func gather(first LogEntry, more <-chan LogEntry) (chunk *LogChunk, closed bool) {
	chunk = &LogChunk{}
	size := 0
	for entry := first; ; {
		chunk.Next = logOffset(entry.Next)
		chunk.Lines = append(chunk.Lines, LogLine{
			Time: entry.Time, Stream: entry.Stream, Text: entry.Data, Partial: entry.Partial,
		})
		size += len(entry.Data)
		if len(chunk.Lines) >= maxChunkLines || size+MaxLogLine > maxChunkBytes {
			return chunk, false
		}
		select {
		case next, ok := <-more:
			if !ok {
				return chunk, true
			}
			entry = next
		default:
			return chunk, false
		}
	}
}

// pump reads the log until the program has ended, and closes both channels.
func pump(
	ctx context.Context, c Container, offset uint64, done chan<- struct{}, lines chan<- LogEntry,
) {
	defer close(done)
	defer close(lines)
	for entry, err := range c.Logs(ctx, logPos(offset), true) {
		if err != nil {
			return // the container is gone or ctx ended; the stored log has it all
		}
		entry.Data = append([]byte(nil), entry.Data...)
		select {
		case lines <- entry:
		case <-ctx.Done():
			return
		}
	}
}

// LogsAsk asks for an attempt's log.
type LogsAsk struct {
	From    Peer
	Job     JobID
	Attempt AttemptID // empty: the newest attempt of the job here
	Offset  uint64
	Follow  bool
}

// Logs sends the log of a living attempt from the offset on, to its owner only. The log of one that
// is closed is a file in storage, which its outcome names.
func (a *Agent) Logs(ctx context.Context, ask LogsAsk, send func(LogChunk) error) error {
	ctx, cancel, err := a.whileRunning(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	t, closed, err := a.lookUp(ctx, ask.Job, ask.Attempt)
	if err != nil {
		return err
	}
	r := closed
	if t != nil {
		v := t.view()
		r = &v.rec
	}
	if !r.ownedBy(ask.From) {
		return ErrNotYours
	}
	if t == nil {
		return logGone(r)
	}
	leave, err := t.join()
	if err != nil {
		return err
	}
	defer leave()
	return t.logs(ctx, &ask, send)
}

func logGone(r *Record) error {
	if r.HandedTo != "" {
		return fault.New(fault.FailedPrecondition, ReasonLogGone,
			"the program goes on as attempt %s, which has all of its log", r.HandedTo)
	}
	if r.Outcome != nil && r.Outcome.LogCID != "" {
		return fault.New(fault.FailedPrecondition, ReasonLogGone,
			"the attempt is over; its log is file %s", r.Outcome.LogCID)
	}
	return ErrLogGone
}

func (t *attempt) logs(ctx context.Context, ask *LogsAsk, send func(LogChunk) error) error {
	v := t.view()
	for v.rec.Phase < PhaseRunning || v.container == nil {
		if v.rec.HandedTo != "" {
			return logGone(&v.rec)
		}
		if !ask.Follow || v.rec.Phase >= PhaseEnded {
			return nil
		}
		if err := t.waitChange(ctx, &v, t.agent.deps.Now().Add(time.Minute)); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		v = t.view()
	}
	for entry, err := range v.container.Logs(ctx, logPos(ask.Offset), ask.Follow) {
		switch {
		case errors.Is(err, ErrNotFound):
			r := t.view().rec
			return logGone(&r)
		case err != nil:
			return fmt.Errorf("read the log: %w", err)
		}
		chunk, _ := gather(entry, nil)
		if err := send(*chunk); err != nil {
			return err
		}
	}
	return nil
}

func lastRune(s string) (rune, int) { return utf8.DecodeLastRuneInString(s) }
