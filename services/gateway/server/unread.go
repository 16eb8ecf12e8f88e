package server

import (
	"net/http"
	"sync"
	"time"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/share"
	"github.com/united-containers/ucn/services/gateway"
)

const (
	// leastUnread is from how many bytes on a piece of an answer is counted: net/http itself keeps
	// as many.
	leastUnread = 4 << 10
	// unreadTime is how long a client may take for a piece, and unreadTime more for each MiB of it,
	// when others find no room.
	unreadTime = 20 * time.Second
)

// unread are the pieces of answers that lie in memory until their clients have taken them. A client
// may ask and take nothing for as long as a call or stream may stall, over any number of
// connections. One address has half of what others leave.
type unread struct {
	now func() time.Time

	mu    sync.Mutex // guards the rest
	bytes *share.Budget
	held  map[*piece]struct{}
}

// piece is one that is being written.
type piece struct {
	n     int
	began time.Time
	cut   func() // has its write fail
}

func newUnread(most int, now func() time.Time) *unread {
	return &unread{now: now, bytes: share.NewBudget(most), held: map[*piece]struct{}{}}
}

// take counts a piece of n bytes, which lie in memory already, until give is called. Without room
// it fails, and those who hold theirs too long are cut off, so that there is room soon.
func (u *unread) take(w http.ResponseWriter, r *http.Request, n int) (give func(), err error) {
	if n < leastUnread {
		return func() {}, nil
	}
	who, control := addressOf(r), http.NewResponseController(w)
	p := &piece{n: n, began: u.now(), cut: func() { _ = control.SetWriteDeadline(time.Now()) }}
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.bytes.Take(who, n) {
		u.cutStalled(p.began)
		return nil, notRead()
	}
	u.held[p] = struct{}{}
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.held, p)
		u.bytes.Give(who, n)
	}, nil
}

// cutStalled ends the answers that should have been taken by now. mu is held, so that none of them
// has been given back, and its connection is not about another answer.
func (u *unread) cutStalled(now time.Time) {
	for p := range u.held {
		if now.Sub(p.began) > unreadTime*time.Duration(1+p.n>>20) {
			p.cut()
		}
	}
}

func notRead() error {
	return fault.New(fault.ResourceExhausted, gateway.ReasonNotRead,
		"too many bytes of answers wait to be read, by this address or by all: read those that were "+
			"asked for, then ask again").WithRetry(defaultRetry)
}

// callWriter writes the answer of a call. One for which there is no room is refused in its place.
type callWriter struct {
	http.ResponseWriter
	server  *Server
	request *http.Request
	begun   bool
	refused bool
}

// WriteHeader implements http.ResponseWriter.
func (w *callWriter) WriteHeader(code int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter. The stubs write an answer at once.
func (w *callWriter) Write(b []byte) (int, error) {
	if w.refused {
		return len(b), nil
	}
	give, err := w.server.unread.take(w.ResponseWriter, w.request, len(b))
	switch {
	case err != nil && w.begun:
		return 0, err
	case err != nil:
		w.refused = true
		w.server.fail(w.ResponseWriter, w.request, err)
		return len(b), nil
	}
	defer give()
	w.begun = true
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController find the connection.
func (w *callWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
