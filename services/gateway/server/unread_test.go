package server

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/services/gateway"
)

// stuck is a client that takes nothing: a write to it ends with its deadline.
type stuck struct {
	*httptest.ResponseRecorder
	writes atomic.Int32
	due    chan time.Time
}

func newStuck() *stuck {
	return &stuck{ResponseRecorder: httptest.NewRecorder(), due: make(chan time.Time, 100)}
}

// SetWriteDeadline implements what http.ResponseController looks for.
func (s *stuck) SetWriteDeadline(t time.Time) error {
	s.due <- t
	return nil
}

// Write implements http.ResponseWriter.
func (s *stuck) Write([]byte) (int, error) {
	s.writes.Add(1)
	for due := range s.due {
		if wait := time.Until(due); !due.IsZero() {
			select {
			case <-time.After(wait):
				return 0, os.ErrDeadlineExceeded
			case due = <-s.due:
				s.due <- due
			}
		}
	}
	return 0, nil
}

// FlushError implements what http.ResponseController looks for.
func (s *stuck) FlushError() error { return nil }

// TestWhoHoldsTooLongIsCutOff when another finds no room, and not before.
func TestWhoHoldsTooLongIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUnread(1<<20, time.Now)
		first := &http.Request{RemoteAddr: "192.0.2.1:1"}
		second := &http.Request{RemoteAddr: "192.0.2.2:1"}
		w := newStuck()
		give, err := u.take(w, first, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			defer give()
			_, err := newPatientWriter(w, time.Hour).Write(nil)
			ended <- err
		}()
		for range 2 { // it has 40 s
			time.Sleep(unreadTime)
			if _, err := u.take(w, second, leastUnread); !errors.Is(err, gateway.ReasonNotRead) {
				t.Errorf("without room: %v", err)
			}
			synctest.Wait()
			if len(ended) > 0 {
				t.Fatal("cut off too early")
			}
		}
		if _, err := u.take(w, second, leastUnread-1); err != nil {
			t.Errorf("a small piece: %v", err)
		}
		time.Sleep(time.Second)
		if _, err := u.take(newStuck(), second, leastUnread); !errors.Is(err, gateway.ReasonNotRead) {
			t.Errorf("without room: %v", err)
		}
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the write ended with %v", err)
		}
		synctest.Wait()
		give, err = u.take(newStuck(), second, 1<<20)
		if err != nil {
			t.Fatalf("once it was given back: %v", err)
		}
		give()
	})
}

// TestNoEventIsMadeAhead: while a client takes nothing, one event waits, and the next is not made.
func TestNoEventIsMadeAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStuck()
		var made atomic.Int32
		ended := make(chan error, 1)
		ctx, leave := context.WithCancel(t.Context())
		r := httptest.NewRequestWithContext(ctx, "GET", "/v1/blocks:watch", nil)
		out := &events{w: newPatientWriter(w, time.Hour), request: r,
			unread: newUnread(1<<20, time.Now)}
		queue, done := newQueue(ctx, func(_ context.Context, tell func(event) error) error {
			for {
				made.Add(1)
				if err := tell(event{name: "block", data: "x"}); err != nil {
					return err
				}
			}
		})
		go func() {
			err, _ := out.pump(queue, done, time.Hour)
			ended <- err
		}()
		synctest.Wait()
		if made.Load() != 1 || w.writes.Load() != 1 {
			t.Errorf("%d events are made, %d written", made.Load(), w.writes.Load())
		}
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the stream ended with %v", err)
		}
		leave()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the source ended with %v", err)
		}
	})
}
