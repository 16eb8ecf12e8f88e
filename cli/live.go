package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/fault"
)

// Bounds of what is read again and again.
const (
	watchEvery    = 2 * time.Second
	minWatchEvery = 500 * time.Millisecond
	maxWatchEvery = time.Hour
	watchWait     = 30 * time.Second // for one reading
)

// reading is what a command shows again and again.
type reading struct {
	value any // for programs
	print func(w io.Writer)
	ended bool // there will be nothing new
}

// watching shows readings: in place on a terminal, one after the other elsewhere, a line of JSON
// each for programs. A service that does not answer for a while is asked again; the last reading
// stays.
type watching struct {
	a     *app
	every time.Duration
	read  func(ctx context.Context) (reading, error)

	table string // the last one
	lines int    // of it on the terminal
	away  bool   // told that nobody answers
}

// checkEvery refuses an interval.
func checkEvery(every time.Duration) error {
	if every < minWatchEvery || every > maxWatchEvery {
		return usagef("--interval is %v, allowed %v to %v", every, minWatchEvery, maxWatchEvery)
	}
	return nil
}

// run ends when there is nothing new, or with ctx, which is no failure: Ctrl-C is how one leaves.
func (w *watching) run(ctx context.Context) error {
	for first := true; ; first = false {
		one, err := w.once(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && (first || !retryable(err)):
			return err
		case err != nil:
			err = w.missed(err)
		default:
			err = w.show(one)
		}
		if err != nil || one.ended {
			return err
		}
		timer := time.NewTimer(w.every)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

func (w *watching) once(ctx context.Context) (reading, error) {
	ctx, cancel := context.WithTimeout(ctx, watchWait)
	defer cancel()
	return w.read(ctx)
}

// retryable tells whether an error says something of this moment alone.
func retryable(err error) bool {
	return fault.From(err) != nil && fault.KindOf(err).Retryable()
}

func (w *watching) show(one reading) error {
	w.away = false
	if w.a.flags.json {
		return json.NewEncoder(w.a.Out).Encode(one.value)
	}
	var text bytes.Buffer
	table := screen.NewTable(&text, max(w.a.Columns(w.a.Out)-1, 0))
	one.print(table)
	if err := table.Flush(); err != nil {
		return err
	}
	w.table = text.String()
	if w.a.Columns(w.a.Out) == 0 {
		_, err := fmt.Fprintln(w.a.Out, w.table)
		return err
	}
	return w.draw("")
}

// missed tells once that there is no reading.
func (w *watching) missed(err error) error {
	told := fmt.Sprintf("%s: %s; trying again", w.a.Now().Local().Format(time.TimeOnly),
		strings.ReplaceAll(message(err), "\n", "; "))
	if w.a.Columns(w.a.Out) > 0 && !w.a.flags.json {
		return w.draw(told)
	}
	if !w.away {
		w.away = true
		_, err := fmt.Fprintln(w.a.Err, "ucn: "+told)
		return err
	}
	return nil
}

// draw writes the table over the one before, with a single write so that nothing flickers. What
// does not fit the terminal is left out.
func (w *watching) draw(note string) error {
	columns := w.a.Columns(w.a.Out)
	lines := strings.Split(strings.TrimSuffix(w.table, "\n"), "\n")
	if most := w.a.Rows(w.a.Out) - 3; len(lines) > most && most > 0 { // note, remark, cursor
		left := len(lines) - most
		lines = append(lines[:most], fmt.Sprintf("... and %d lines more", left))
	}
	if note != "" {
		lines = append(lines, note)
	}
	var frame strings.Builder
	if w.lines > 0 {
		fmt.Fprintf(&frame, "\x1b[%dA\r", w.lines)
	}
	for _, line := range lines {
		frame.WriteString(screen.Fit(line, columns-1) + "\x1b[K\n")
	}
	frame.WriteString("\x1b[J")
	w.lines = len(lines)
	_, err := io.WriteString(w.a.Out, frame.String())
	return err
}
