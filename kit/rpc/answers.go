package rpc

import (
	"context"
	"errors"
	"net"
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

	mu       sync.Mutex // guards the rest, and the fields of held, tracked and reserve
	under    *share.Budget
	waiting  *share.Budget // of streams that wait for room with a message
	sleepers int           // that wait for room
	freed    chan struct{}
	open     map[*net.TCPAddr]*tracked // by the very address that gRPC shows
	swept    time.Time
}

// held is one answer that is counted. It is the pool of its buffer, which it returns once nobody
// needs it.
type held struct {
	all   *answers
	who   string
	n     int
	began time.Time
	conn  *tracked // nil when unknown
	of    *reserve // nil when it was not reserved
	own   bool     // the connection is the client's own, not that of a gateway
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
		stall: cfg.AnswerTime, freed: make(chan struct{}), open: map[*net.TCPAddr]*tracked{},
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

// take counts an answer if there is room. If not, it ends connections that hold theirs too long.
func (a *answers) take(h *held) bool {
	now := time.Now()
	a.mu.Lock()
	ok := (h.conn == nil || !h.conn.closed) && a.under.Take(h.who, h.n)
	var stalled []*tracked
	if ok {
		h.began = now
		if h.conn != nil {
			h.conn.holds[h] = struct{}{}
		}
	} else if now.Sub(a.swept) >= min(a.stall, time.Second) {
		a.swept, stalled = now, a.stalled(now)
	}
	a.mu.Unlock()
	for _, conn := range stalled {
		_ = conn.Close() // its calls end; nobody else can be told
	}
	return ok
}

// stalled are the connections with an answer that should have been taken by now. mu is held.
func (a *answers) stalled(now time.Time) (all []*tracked) {
	for _, conn := range a.open {
		for h := range conn.holds {
			if h.own && now.Sub(h.began) > a.stall*time.Duration(1+h.n>>20) {
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
	a.mu.Lock()
	a.sleepers++
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.sleepers--
	}()
	late := time.NewTimer(a.stall * time.Duration(1+h.n>>20))
	defer late.Stop()
	again := time.NewTicker(min(a.stall, time.Second)) // for connections that stall meanwhile
	defer again.Stop()
	for {
		a.mu.Lock()
		freed := a.freed
		a.mu.Unlock()
		if a.take(h) {
			return nil
		}
		select {
		case <-freed:
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
		delete(h.conn.holds, h)
	}
	if h.of != nil {
		h.of.left(h.n)
	}
	if h.all.sleepers > 0 {
		close(h.all.freed)
		h.all.freed = make(chan struct{})
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
	holds   map[*held]struct{}
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
	out := &tracked{Conn: conn, answers: t.answers, addr: addr, holds: map[*held]struct{}{}}
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
