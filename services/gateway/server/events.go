package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// headAfter is how long the headers of a stream of events wait for its first event, or for the
// failure that takes its place.
const headAfter = 500 * time.Millisecond

// event is one server-sent event.
type event struct {
	name string
	id   string // empty keeps the one before
	data any    // as JSON, on one line
}

// produce makes the events of a stream, in order, until it returns. tell fails when nobody hears.
type produce func(ctx context.Context, tell func(event) error) error

// events writes server-sent events (WHATWG HTML, section 9.2).
type events struct {
	w     *patientWriter
	begun bool
}

// serveEvents runs a stream of events. Its error is one that came before the first event, so that
// it can be told in the usual form; a later one is an event named "error".
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request, source produce) error {
	out := &events{w: newPatientWriter(w, s.cfg.StallTime)}
	ctx, cancel := context.WithCancel(r.Context())
	queue, done := newQueue(ctx, source)
	err, finished := out.pump(queue, done, s.cfg.KeepAlive)
	cancel()
	if !finished { // the client is gone
		s.wrote(r, errors.Join(err, <-done))
		return nil
	}
	if err == nil {
		out.begin() // a stream that had nothing to say is a stream all the same
		return nil
	}
	if !out.begun {
		return err
	}
	f := s.explain(r.Context(), err)
	s.wrote(r, out.write(event{name: "error", data: failureOf(f)}))
	return nil
}

// newQueue starts source. done has its error once it has returned.
func newQueue(ctx context.Context, source produce) (<-chan event, <-chan error) {
	queue, done := make(chan event), make(chan error, 1)
	go func() {
		done <- source(ctx, func(e event) error {
			select {
			case queue <- e:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	}()
	return queue, done
}

// pump writes what comes until the producer has returned with err, or the client takes no more.
func (e *events) pump(
	queue <-chan event, done <-chan error, keepAlive time.Duration,
) (err error, finished bool) {
	head := time.NewTimer(headAfter)
	defer head.Stop()
	keep := time.NewTicker(keepAlive)
	defer keep.Stop()
	for err == nil {
		select {
		case err := <-done:
			return err, true
		case next := <-queue:
			err = e.write(next)
		case <-head.C:
			err = e.comment()
		case <-keep.C:
			err = e.comment()
		}
	}
	return err, false
}

func (e *events) begin() {
	if e.begun {
		return
	}
	e.begun = true
	header := e.w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // nginx holds streams back otherwise
	e.w.WriteHeader(http.StatusOK)
}

// comment says that the stream lives.
func (e *events) comment() error { return e.send([]byte(":\n\n")) }

func (e *events) write(one event) error {
	data, err := json.Marshal(one.data)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	text.WriteString("event: " + one.name + "\n")
	if one.id != "" {
		text.WriteString("id: " + one.id + "\n")
	}
	text.WriteString("data: ")
	text.Write(data)
	text.WriteString("\n\n")
	return e.send(text.Bytes())
}

func (e *events) send(text []byte) error {
	e.begin()
	if _, err := e.w.Write(text); err != nil {
		return err
	}
	return e.w.FlushError()
}
