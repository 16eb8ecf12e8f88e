package server

import (
	"bytes"
	"container/list"
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/gateway"
)

// Bounds of the memory of answers.
const (
	maxKey       = 255       // bytes of an Idempotency-Key
	maxAnswers   = 16_384    // of all clients together
	maxOfClient  = 1_024     // of one
	maxAnswer    = 64 << 10  // bytes of one that is kept; a larger one is not repeated
	maxRemember  = 128 << 20 // bytes of all together
	rememberTime = 24 * time.Hour
)

// statusClientClosed is what a cancelled call is answered with; net/http has no name for it.
const statusClientClosed = 499

const keyHeader = "Idempotency-Key"

// answers remembers what requests with an Idempotency-Key were answered
// (draft-ietf-httpapi-idempotency-key-header). It is in memory: after a restart a repeated request
// runs again, which is safe, because transactions and jobs have ids of their own and are accepted
// once.
type answers struct {
	mu    sync.Mutex // guards all; order has every answer, oldest first
	by    map[[32]byte]*answer
	order *list.List
	of    map[string]int // by client
	bytes int
}

// answer is one that was given, or is on its way while done is false.
type answer struct {
	key     [32]byte
	who     string
	request [32]byte
	until   time.Time
	done    bool
	code    int
	kind    string // Content-Type
	link    string
	body    []byte
	place   *list.Element
}

func newAnswers() *answers {
	return &answers{by: map[[32]byte]*answer{}, order: list.New(), of: map[string]int{}}
}

// begin returns the answer that is known for a request, or a new one that end must be called for.
func (a *answers) begin(who, key string, request [32]byte, now time.Time) (*answer, error) {
	name := sha256.Sum256([]byte(who + "\x00" + key))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expire(now)
	if known := a.by[name]; known != nil {
		switch {
		case known.request != request:
			return nil, fault.New(fault.InvalidArgument, gateway.ReasonKeyReused,
				"this Idempotency-Key was used for another request: take a new one")
		case !known.done:
			return nil, fault.New(fault.Aborted, gateway.ReasonKeyBusy,
				"the request with this Idempotency-Key is still under way").WithRetry(defaultRetry)
		}
		return known, nil
	}
	if a.of[who] >= maxOfClient || a.order.Len() >= maxAnswers {
		return nil, fault.New(fault.ResourceExhausted, gateway.ReasonKeysFull,
			"too many Idempotency-Keys are remembered for %s: send the request without one",
			rememberTime).WithRetry(time.Minute)
	}
	one := &answer{key: name, who: who, request: request, until: now.Add(rememberTime)}
	one.place = a.order.PushBack(one)
	a.by[name] = one
	a.of[who]++
	return one, nil
}

// end keeps an answer. One that may be different next time, or is too large, is forgotten.
func (a *answers) end(one *answer, got *recorded) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !got.lasting() || got.large || a.bytes+got.body.Len() > maxRemember {
		a.drop(one)
		return
	}
	one.done, one.code, one.body = true, got.code, got.body.Bytes()
	one.kind, one.link = got.Header().Get("Content-Type"), got.Header().Get("Link")
	a.bytes += len(one.body)
}

func (a *answers) drop(one *answer) {
	a.order.Remove(one.place)
	delete(a.by, one.key)
	a.bytes -= len(one.body)
	if a.of[one.who]--; a.of[one.who] == 0 {
		delete(a.of, one.who)
	}
}

func (a *answers) expire(now time.Time) {
	for e := a.order.Front(); e != nil; e = a.order.Front() {
		one := e.Value.(*answer)
		if !one.done || now.Before(one.until) {
			return
		}
		a.drop(one)
	}
}

// recorded notes an answer while it is written.
type recorded struct {
	http.ResponseWriter
	code  int
	body  bytes.Buffer
	large bool
	whole bool // the call came to its own end
}

// lasting reports whether the same request will be answered the same: it succeeded, or was refused
// for what it is. What asks to try again, says so, or was cut off is no answer to repeat.
func (r *recorded) lasting() bool {
	switch {
	case !r.whole || r.code < 200 || r.code >= 500 || r.Header().Get("Retry-After") != "":
		return false
	case r.code == http.StatusUnauthorized || r.code == http.StatusRequestTimeout ||
		r.code == http.StatusTooManyRequests || r.code == http.StatusConflict ||
		r.code == statusClientClosed:
		return false
	}
	return true
}

// WriteHeader implements http.ResponseWriter.
func (r *recorded) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
	}
	r.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (r *recorded) Write(b []byte) (int, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	if r.large = r.large || r.body.Len()+len(b) > maxAnswer; !r.large {
		_, _ = r.body.Write(b) // memory does not fail
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController find the connection.
func (r *recorded) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// once serves a request that may have been answered before. The body was read into memory. A call
// with a key goes on when its client leaves, within the time of a call: the client comes back with
// the key to hear what became of it.
func (s *Server) once(w http.ResponseWriter, r *http.Request, who string, serve func(
	http.ResponseWriter, *http.Request)) error {
	key := r.Header.Get(keyHeader)
	if key == "" || r.Method == http.MethodGet || r.Method == http.MethodHead {
		serve(w, r)
		return nil
	}
	if len(r.Header.Values(keyHeader)) > 1 || len(key) > maxKey {
		return fault.New(fault.InvalidArgument, gateway.ReasonRequest,
			"%s is one value of at most %d bytes", keyHeader, maxKey)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return bodyCut(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	print := sha256.Sum256(append([]byte(r.Method+" "+r.URL.RequestURI()+"\x00"), body...))
	one, err := s.answers.begin(who, key, print, s.deps.Now())
	if err != nil {
		return err
	}
	if one.done { // never changed any more
		header := w.Header()
		header.Set("Idempotency-Replayed", "true")
		header.Set("Content-Type", one.kind)
		if one.link != "" {
			header.Set("Link", one.link)
		}
		w.WriteHeader(one.code)
		_, err := w.Write(one.body)
		s.wrote(r, err)
		return nil
	}
	got := &recorded{ResponseWriter: w}
	defer func() { s.answers.end(one, got) }() // also when the stubs panic: it is forgotten then
	ctx, cancel := s.detached(r.Context())
	defer cancel()
	serve(got, r.WithContext(ctx))
	got.whole = ctx.Err() == nil
	return nil
}

// detached returns a context that outlives the client, but neither the time of a call nor the
// gateway.
func (s *Server) detached(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(parent), s.cfg.MaxTime)
	stop := context.AfterFunc(s.alive, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}
