package rpc

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/share"
)

// answers are the messages that lie in memory until clients take them. HTTP/2 lets a client ask
// without end and take nothing, so a count of calls bounds no bytes. They are counted from before a
// message is marshaled, or what it is made of is read (Reserve), until the transport has written or
// dropped it. Those too small for a pooled buffer that are not reserved, and those of this
// process's own calls, are not.
type answers struct {
	stall time.Duration

	mu      sync.Mutex // guards the rest, and the fields of held, tracked and reserve
	under   *share.Budget
	waiting *share.Budget             // of streams that wait for room with a message
	open    map[*net.TCPAddr]*tracked // by the very address that gRPC shows
	swept   time.Time
	looked  time.Time
	most    int        // that an address of largest had when it was looked for
	largest []*tracked // of connections that may end for others
}

// Bounds of who holds answers while others need the room.
const (
	// giveWayTime is how long answers are left alone of who has most of them.
	giveWayTime = 2 * time.Second
	// smallAnswer may take what is kept (1 in keptAnswers of all) for those who hold nothing yet.
	smallAnswer = 64 << 10
	keptAnswers = 16
	// maxEnded is how often connections end for one answer.
	maxEnded = 4
	// lookAgain is how often it is looked for who has most, and for room for who waits.
	lookAgain = 100 * time.Millisecond
	// maxLargest bounds the connections that may end until it is looked for others.
	maxLargest = 64
)

// held is one answer that is counted. It is the pool of its buffer, which it returns once nobody
// needs it.
type held struct {
	all   *answers
	who   string
	n     int
	began time.Time
	conn  *tracked      // nil when unknown
	of    *reserve      // nil when it was not reserved
	own   bool          // the connection is the client's own, not that of a gateway
	at    *list.Element // of conn.own
	gone  bool
}

// answer is a message on its way to the codec.
type answer struct {
	proto.Message
	held    *held
	encoded bool
}

func newAnswers(cfg ServerConfig) *answers {
	return &answers{
		stall: cfg.AnswerTime, open: map[*net.TCPAddr]*tracked{},
		under:   share.NewBudget(int(cfg.MaxAnswers)),
		waiting: share.NewBudget(int(cfg.MaxAnswers)),
	}
}

func notTaken() error {
	return fault.New(fault.ResourceExhausted, ReasonAnswers,
		"too many bytes of answers wait to be read, by this address or by all: read those that were "+
			"asked for, then ask again").WithRetry(time.Second)
}

// count counts a message of a server. One of a stream waits for room, a unary one does not, since
// what waits takes memory too. Fault: ReasonAnswers.
func (a *answers) count(ctx context.Context, m any, stream bool) (any, error) {
	message, ok := m.(proto.Message)
	who := CallOrigin(ctx)
	if !ok || who == "" {
		return m, nil
	}
	n := proto.Size(message)
	if h := a.reserved(ctx, n); h != nil {
		return &answer{Message: message, held: h}, nil
	}
	if mem.IsBelowBufferPoolingThreshold(n) {
		return m, nil
	}
	h := a.newHeld(ctx, who, n)
	if !a.take(h) {
		if !stream {
			return nil, notTaken()
		}
		if err := a.await(ctx, h); err != nil {
			return nil, err
		}
	}
	return &answer{Message: message, held: h}, nil
}

func (a *answers) newHeld(ctx context.Context, who string, n int) *held {
	h := &held{all: a, who: who, n: n}
	_, vouched := ctx.Value(originKey{}).(string)
	h.own = !vouched
	p, ok := peer.FromContext(ctx)
	if !ok {
		return h
	}
	if tcp, ok := p.Addr.(*net.TCPAddr); ok {
		a.mu.Lock()
		defer a.mu.Unlock()
		h.conn = a.open[tcp]
	}
	return h
}

// take counts an answer if there is room. If not, it makes some: connections end that hold theirs
// too long, or that of who has most.
func (a *answers) take(h *held) bool {
	for range maxEnded {
		ok, ended := a.tryTake(h)
		if ok || len(ended) == 0 {
			return ok
		}
		for _, conn := range ended {
			_ = conn.Close() // its calls end; nobody else can be told
		}
	}
	ok, _ := a.tryTake(h)
	return ok
}

// tryTake returns the connections that must end if there is no room.
func (a *answers) tryTake(h *held) (ok bool, end []*tracked) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if h.conn != nil && h.conn.closed {
		return false, nil
	}
	if a.hasRoom(h) && a.under.Take(h.who, h.n) {
		h.began = now
		if h.conn != nil {
			h.conn.hold(h)
		}
		return true, nil
	}
	if now.Sub(a.swept) >= min(a.stall, time.Second) {
		a.swept = now
		if end = a.stalled(now); len(end) > 0 {
			return false, end
		}
	}
	if conn := a.largestFor(h, now); conn != nil {
		end = append(end, conn)
	}
	return false, end
}

// hasRoom keeps some room for small answers of those who hold none. mu is held.
func (a *answers) hasRoom(h *held) bool {
	kept := 0
	if h.n > smallAnswer || a.under.Has(h.who) > 0 {
		kept = a.under.Most() / keptAnswers
	}
	return h.n <= a.under.Free()-kept
}

// largestFor is the largest connection of the address with most, if that has at least twice what
// h's would have, and for some time. mu is held.
func (a *answers) largestFor(h *held, now time.Time) (found *tracked) {
	if now.Sub(a.looked) >= lookAgain {
		a.looked = now
		a.look(now)
	}
	enough := 2 * (a.under.Has(h.who) + h.n)
	if a.most < enough {
		return nil
	}
	has := 0
	for _, conn := range a.largest {
		its := a.under.Has(conn.who)
		if its >= enough && a.mayEnd(conn, now) && (found == nil ||
			cmp.Or(cmp.Compare(its, has), cmp.Compare(conn.bytes, found.bytes)) > 0) {
			found, has = conn, its
		}
	}
	return found
}

// look notes the largest connections that may end for others. It goes through all. mu is held.
func (a *answers) look(now time.Time) {
	type entry struct {
		*tracked
		has int
	}
	var all []entry
	for _, conn := range a.open {
		if a.mayEnd(conn, now) {
			all = append(all, entry{conn, a.under.Has(conn.who)})
		}
	}
	slices.SortFunc(all, func(x, y entry) int {
		return cmp.Or(cmp.Compare(y.has, x.has), cmp.Compare(y.bytes, x.bytes))
	})
	a.most, a.largest = 0, nil
	for _, e := range all[:min(len(all), maxLargest)] {
		a.most = max(a.most, e.has)
		a.largest = append(a.largest, e.tracked)
	}
}

// mayEnd reports whether a client has left its oldest answer for so long that others come first. mu
// is held.
func (a *answers) mayEnd(t *tracked, now time.Time) bool {
	oldest := t.own.Front()
	return oldest != nil && now.Sub(oldest.Value.(*held).began) > min(a.stall, giveWayTime)
}

// hold notes an answer that is held from now on. mu is held.
func (t *tracked) hold(h *held) {
	t.holds[h] = struct{}{}
	if h.own {
		h.at = t.own.PushBack(h)
	}
	h.changed(h.n)
}

// drop undoes hold. mu is held.
func (t *tracked) drop(h *held) {
	delete(t.holds, h)
	if h.at != nil {
		t.own.Remove(h.at)
	}
	h.changed(-h.n)
}

// changed notes that h, which its connection holds, has so many bytes more. mu is held.
func (h *held) changed(n int) {
	if h.own && h.conn != nil {
		h.conn.bytes += n
	}
}

// stalled are the connections with an answer that should have been taken by now. mu is held.
func (a *answers) stalled(now time.Time) (all []*tracked) {
	for _, conn := range a.open {
		for e := conn.own.Front(); e != nil; e = e.Next() {
			h := e.Value.(*held)
			if now.Sub(h.began) > a.stall*time.Duration(1+h.n>>20) {
				all = append(all, conn)
				break
			}
		}
	}
	return all
}

// await waits for room with a message, as long as a client may take for an answer.
func (a *answers) await(ctx context.Context, h *held) error {
	a.mu.Lock()
	ok := a.waiting.Take(h.who, h.n)
	a.mu.Unlock()
	if !ok {
		return notTaken()
	}
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.waiting.Give(h.who, h.n)
	}()
	return a.awaitRoom(ctx, h)
}

func (a *answers) awaitRoom(ctx context.Context, h *held) error {
	late := time.NewTimer(a.stall * time.Duration(1+h.n>>20))
	defer late.Stop()
	again := time.NewTicker(lookAgain) // answers that leave wake nobody: many might wait
	defer again.Stop()
	for {
		if a.take(h) {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return notTaken()
			}
			return context.Cause(ctx)
		case <-late.C:
			return notTaken()
		}
	}
}

func (h *held) give() {
	h.all.mu.Lock()
	defer h.all.mu.Unlock()
	h.giveHeld()
}

// giveHeld is give; mu is held.
func (h *held) giveHeld() {
	if h.gone {
		return
	}
	h.gone = true
	h.all.under.Give(h.who, h.n)
	if h.conn != nil {
		h.conn.drop(h)
	}
	if h.of != nil {
		h.of.left(h.n)
	}
}

var _ mem.BufferPool = (*held)(nil)

// Get implements mem.BufferPool.
func (h *held) Get(n int) *[]byte { return mem.DefaultBufferPool().Get(n) }

// Put implements mem.BufferPool.
func (h *held) Put(b *[]byte) {
	mem.DefaultBufferPool().Put(b)
	h.give()
}

// leastPooled is how large a buffer must be so that it is given back to its pool.
const leastPooled = 1<<10 + 1

// answerCodec marshals answers into buffers that tell when they are no longer needed.
type answerCodec struct{ encoding.CodecV2 }

// Marshal implements encoding.CodecV2.
func (c answerCodec) Marshal(v any) (mem.BufferSlice, error) {
	a, ok := v.(*answer)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	a.encoded = true
	buf := a.held.Get(max(a.held.n, leastPooled))
	raw, err := proto.MarshalOptions{}.MarshalAppend((*buf)[:0], a.Message)
	if err != nil {
		a.held.Put(buf)
		return nil, err
	}
	*buf = raw
	return mem.BufferSlice{mem.NewBuffer(buf, a.held)}, nil
}

// track is a listener whose connections are known by their address while they are open.
type track struct {
	net.Listener
	answers *answers
}

// tracked is a connection and what is held for it. With its end, that is over.
type tracked struct {
	net.Conn
	answers *answers
	addr    *net.TCPAddr
	who     string // the Origin of addr
	holds   map[*held]struct{}
	own     list.List // of those that are its own, oldest first
	bytes   int       // of own
	closed  bool
}

// Accept implements net.Listener.
func (t track) Accept() (net.Conn, error) {
	conn, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	addr, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return conn, nil
	}
	out := &tracked{Conn: conn, answers: t.answers, addr: addr,
		who: Origin(addr.IP.String()), holds: map[*held]struct{}{}}
	t.answers.mu.Lock()
	defer t.answers.mu.Unlock()
	t.answers.open[addr] = out
	return out, nil
}

// Close implements net.Conn.
func (t *tracked) Close() error {
	t.answers.mu.Lock()
	t.closed = true
	delete(t.answers.open, t.addr)
	for h := range t.holds {
		h.giveHeld()
	}
	t.answers.mu.Unlock()
	return t.Conn.Close()
}
