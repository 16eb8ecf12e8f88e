package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/united-containers/ucn/services/gateway"
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

// produce makes the events of a stream, in order, until it returns. tell returns once the client
// has taken an event, so that no other is made in the meantime, and fails when nobody hears.
type produce func(ctx context.Context, tell func(event) error) error

// events writes server-sent events (WHATWG HTML, section 9.2).
type events struct {
	w       *patientWriter
	unread  *unread
	request *http.Request
	begun   bool
}

// told is an event on its way.
type told struct {
	event
	written chan struct{}
}

// serveEvents runs a stream of events. Its error is one that came before the first event, so that
// it can be told in the usual form; a later one is an event named "error".
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request, source produce) error {
	out := &events{w: newPatientWriter(w, s.cfg.StallTime), unread: s.unread, request: r}
	ctx, cancel := context.WithCancel(r.Context())
	queue, done := newQueue(ctx, source)
	err, finished := out.pump(queue, done, s.cfg.KeepAlive)
	cancel()
	if !finished {
		ended := <-done
		if !errors.Is(err, gateway.ReasonNotRead) { // the client is gone
			s.wrote(r, errors.Join(err, ended))
			return nil
		}
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
func newQueue(ctx context.Context, source produce) (<-chan told, <-chan error) {
	queue, done := make(chan told), make(chan error, 1)
	go func() {
		done <- source(ctx, func(e event) error {
			next := told{e, make(chan struct{})}
			select {
			case queue <- next:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			select {
			case <-next.written:
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
	queue <-chan told, done <-chan error, keepAlive time.Duration,
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
			if err = e.write(next.event); err == nil {
				close(next.written)
			}
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

// write writes an event in pieces, so that its data lies in memory once. Without room for it,
// nothing is written.
func (e *events) write(one event) error {
	data, raw := one.data.(json.RawMessage) // on one line already
	if !raw {
		var err error
		if data, err = json.Marshal(one.data); err != nil {
			return err
		}
	}
	give, err := e.unread.take(e.w.ResponseWriter, e.request, len(data))
	if err != nil {
		return err
	}
	defer give()
	head := "event: " + one.name + "\n"
	if one.id != "" {
		head += "id: " + one.id + "\n"
	}
	return e.send([]byte(head+"data: "), data, []byte("\n\n"))
}

func (e *events) send(text ...[]byte) error {
	e.begin()
	for _, piece := range text {
		if _, err := e.w.Write(piece); err != nil {
			return err
		}
	}
	return e.w.FlushError()
}
