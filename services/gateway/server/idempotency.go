package server

import (
	"bytes"
	"container/list"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/services/gateway"
)

// Bounds of the memory of answers.
const (
	maxKey       = 255       // bytes of an Idempotency-Key
	maxAnswers   = 16_384    // of all clients together
	maxOfClient  = 1_024     // of one account, or of all without account at one address
	maxAnswer    = 64 << 10  // bytes of one that is kept; a larger one is not repeated
	maxRemember  = 128 << 20 // bytes of all together
	rememberTime = 24 * time.Hour
)

const keyHeader = "Idempotency-Key"

// client is whose a key is. One that proves no account shares what its address may have remembered
// with all others there, told apart by their tokens: anybody can make up a token.
type client struct {
	who     string
	address string   // from which it asks
	token   [32]byte // of one that is not proven
	proven  bool
	caller  rpc.Caller // of one that is
}

// mayHear tells whether c may do all that first was allowed: who has a lesser token is not told
// what a call was answered that it could not have made.
func (c client) mayHear(first client) bool {
	return !slices.ContainsFunc(first.caller.Scopes, func(s string) bool {
		return !c.caller.HasScope(s)
	})
}

// answers remembers what requests with an Idempotency-Key were answered
// (draft-ietf-httpapi-idempotency-key-header). It is in memory: after a restart a repeated request
// runs again, which is safe, because transactions and jobs have ids of their own and are accepted
// once. When it is full, the address with most answers gives way, and there the oldest of the
// client that has most: accounts cost nothing, and who makes many pushes out its own answers.
type answers struct {
	mu      sync.Mutex // guards all; order has every answer, oldest first
	by      map[[32]byte]*answer
	order   *list.List
	keepers map[string]*keeper
	origins map[string]*origin
	ranked  *ranking // origins by answers that can give way
	bytes   int
}

// keeper is a client with answers, wherever it asked.
type keeper struct {
	held  int        // answers, given or on their way
	given *list.List // those that were given, oldest first
}

// origin is an address from which clients with answers asked.
type origin struct {
	address string
	holders map[string]*holder
	ranked  *ranking // holders by answers that can give way
	given   int      // the same of all
	rank    rank
}

// holder is a client with answers at one place.
type holder struct {
	who   string
	at    *origin
	held  int        // answers, given or on their way
	given *list.List // the answers that were given, oldest first
	rank  rank
}

// answer is one that was given, or is on its way while done is false.
type answer struct {
	key     [32]byte
	client  client
	of      *holder
	request [32]byte
	until   time.Time
	done    bool
	code    int
	kind    string // Content-Type
	link    string
	body    []byte
	place   *list.Element
	given   *list.Element // in holder.given once done
	kept    *list.Element // in keeper.given once done
}

func newAnswers() *answers {
	return &answers{by: map[[32]byte]*answer{}, order: list.New(), keepers: map[string]*keeper{},
		origins: map[string]*origin{}, ranked: newRanking()}
}

// begin returns the answer that is known for a request, or a new one that end must be called for.
func (a *answers) begin(
	c client, key string, request [32]byte, now time.Time,
) (*answer, error) {
	name := sha256.Sum256([]byte(c.who + "\x00" + string(c.token[:]) + key))
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
		case !c.mayHear(known.client):
			return nil, fault.New(fault.PermissionDenied, gateway.ReasonKeyReused,
				"this Idempotency-Key was used with a token that allows more: use that one")
		}
		return known, nil
	}
	if !a.admit(c.who) {
		return nil, fault.New(fault.ResourceExhausted, gateway.ReasonKeysFull,
			"too many requests with an Idempotency-Key are under way: try again in a moment").
			WithRetry(defaultRetry)
	}
	one := &answer{key: name, client: c, of: a.holder(c), request: request,
		until: now.Add(rememberTime)}
	one.place = a.order.PushBack(one)
	a.by[name] = one
	one.of.held++
	if a.keepers[c.who] == nil {
		a.keepers[c.who] = &keeper{given: list.New()}
	}
	a.keepers[c.who].held++
	return one, nil
}

// admit makes room for one more answer of a client: beyond its own bound its oldest one gives way,
// beyond that of all whoever has most. What is under way never does.
func (a *answers) admit(who string) bool {
	if k := a.keepers[who]; k != nil && k.held >= maxOfClient {
		oldest := k.given.Front()
		if oldest == nil {
			return false
		}
		a.drop(oldest.Value.(*answer))
	}
	return a.order.Len() < maxAnswers || a.makeRoom()
}

// holder returns what keeps a client's answers from its address.
func (a *answers) holder(c client) *holder {
	at := a.origins[c.address]
	if at == nil {
		at = &origin{address: c.address, holders: map[string]*holder{}, ranked: newRanking()}
		a.origins[c.address] = at
	}
	h := at.holders[c.who]
	if h == nil {
		h = &holder{who: c.who, at: at, given: list.New()}
		at.holders[c.who] = h
	}
	return h
}

// end keeps an answer. A refusal is forgotten: nothing was done, and whoever may do it later, or
// has the money by then, asks again under the same key. So is what is too large, and what tells of
// something that is not over.
func (a *answers) end(one *answer, got *recorded) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !got.whole || got.large || got.passing || got.code < 200 || got.code >= 300 {
		a.drop(one)
		return
	}
	for a.bytes+got.body.Len() > maxRemember {
		if !a.makeRoom() {
			a.drop(one)
			return
		}
	}
	one.done, one.code, one.body = true, got.code, got.body.Bytes()
	one.kind, one.link = got.Header().Get("Content-Type"), got.Header().Get("Link")
	one.given = one.of.given.PushBack(one)
	one.kept = a.keepers[one.of.who].given.PushBack(one)
	a.rerank(one.of, 1)
	a.bytes += len(one.body)
}

// makeRoom forgets the oldest answer of the client that has most where most are. It tells whether
// there was one.
func (a *answers) makeRoom() bool {
	at, ok := a.ranked.top().(*origin)
	if !ok {
		return false
	}
	a.drop(at.ranked.top().(*holder).given.Front().Value.(*answer))
	return true
}

// rerank notes that a holder has one answer more or less that can give way.
func (a *answers) rerank(h *holder, by int) {
	h.at.given += by
	h.at.ranked.set(h, &h.rank, h.given.Len())
	a.ranked.set(h.at, &h.at.rank, h.at.given)
}

func (a *answers) drop(one *answer) {
	a.order.Remove(one.place)
	delete(a.by, one.key)
	a.bytes -= len(one.body)
	h := one.of
	k := a.keepers[h.who]
	if h.held--; one.done {
		h.given.Remove(one.given)
		k.given.Remove(one.kept)
		a.rerank(h, -1)
	}
	if k.held--; k.held == 0 {
		delete(a.keepers, h.who)
	}
	if h.held == 0 {
		delete(h.at.holders, h.who)
	}
	if len(h.at.holders) == 0 {
		delete(a.origins, h.at.address)
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
	// passing is that a repetition may be answered better.
	passing bool
	whole   bool // the call came to its own end
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
func (s *Server) once(w http.ResponseWriter, r *http.Request, who client, serve func(
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
	print := sha256.New()
	fmt.Fprintf(print, "%s %s\x00", r.Method, r.URL.RequestURI())
	if body, read := r.Body.(*wholeBody); read {
		print.Write(body.all)
	}
	one, err := s.answers.begin(who, key, [32]byte(print.Sum(nil)), s.deps.Now())
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
