package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/rpc"
	busv1 "github.com/united-containers/ucn/proto/ucn/bus/v1"
)

// Call is one request being answered.
type Call struct {
	server      *Server
	id          requestID
	name        string
	method      method
	who         proven
	payload     []byte
	notAfter    time.Time
	traceparent string
	replyTo     string
	replyKey    keys.SealPublic

	ctx  context.Context // of the handler
	stop context.CancelCauseFunc
	room chan struct{} // receives when the client has read on

	mu       sync.Mutex // guards what follows; replies leave in the order of seq
	seq      uint64
	finished bool
	spoke    time.Time // when the last reply left
	listened time.Time // when the client was last heard
	onTheWay []sent    // replies not known to be read, oldest first
	bytes    int       // their sum
}

// sent is a reply on its way.
type sent struct {
	seq  uint64
	size int
}

func (s *Server) newCall(b *busv1.RequestBody) *Call {
	c := &Call{
		server: s, id: requestID(b.Id), name: b.Method, payload: b.Payload, notAfter: notAfter(b),
		traceparent: b.Traceparent, replyTo: b.ReplyTo, room: make(chan struct{}, 1),
		spoke: time.Now(), listened: time.Now(),
	}
	copy(c.replyKey[:], b.ReplyKey)
	return c
}

// Method returns the method that was asked for.
func (c *Call) Method() string { return c.name }

// Decode reads the request message, strictly. Its error is a fault.
func (c *Call) Decode(m proto.Message) error {
	if err := canon.Unmarshal(c.payload, m); err != nil {
		return fault.New(fault.InvalidArgument, ReasonRequestInvalid,
			"the request of %s is not in canonical form", c.name).Because(err)
	}
	return nil
}

// Send sends one message of a stream. It blocks while Window replies are on their way, until the
// client reads on. It fails when the handler's context ends, for a message without content (it
// would be a keep-alive), and for one larger than MaxMessage. Safe for concurrent use.
func (c *Call) Send(m proto.Message) error {
	raw, err := encodeMessage(m)
	if err != nil {
		return err
	}
	if len(raw) == 0 {
		return errors.New("send reply: a message of a stream needs content")
	}
	for {
		taken, err := c.trySend(raw)
		if taken || err != nil {
			c.signal() // there may be room for another sender
			return err
		}
		select {
		case <-c.ctx.Done():
			return fmt.Errorf("send reply: %w", c.ctx.Err())
		case <-c.room:
		}
	}
}

// signal wakes one sender that waits for room.
func (c *Call) signal() {
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// trySend sends unless the window is full.
func (c *Call) trySend(raw []byte) (taken bool, err error) {
	if err := c.ctx.Err(); err != nil {
		return false, fmt.Errorf("send reply: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	full := len(c.onTheWay) >= Window || c.bytes > 0 && c.bytes+len(raw) > WindowBytes
	if c.finished || full && !c.method.unary {
		return false, c.over()
	}
	return true, c.reply(&busv1.ReplyBody{Payload: raw}, len(raw))
}

func (c *Call) over() error {
	if c.finished {
		return errors.New("send reply: the last one was sent")
	}
	return nil
}

// Finish sends the last message; a handler calls it at most once, and nothing after it.
func (c *Call) Finish(m proto.Message) error {
	raw, err := encodeMessage(m)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finished {
		return c.over()
	}
	c.finished = true
	return c.reply(&busv1.ReplyBody{Last: true, Payload: raw}, len(raw))
}

func encodeMessage(m proto.Message) ([]byte, error) {
	raw, err := canon.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	if len(raw) > MaxMessage {
		return nil, fault.New(fault.ResourceExhausted, rpc.ReasonTooLarge,
			"the message has %d bytes, at most %d fit: ask for less at once", len(raw), MaxMessage)
	}
	return raw, nil
}

// finish sends the last reply after the handler has returned, unless Finish did or nobody listens.
func (c *Call) finish(ctx context.Context, err error) {
	cause := context.Cause(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finished || errors.Is(cause, errLeft) || errors.Is(cause, errSilent) {
		return
	}
	c.finished = true
	body := &busv1.ReplyBody{Last: true}
	if err != nil {
		body.Error = c.status(ctx, err)
	}
	if err := c.reply(body, len(body.Error)); err != nil {
		c.server.opt.Log.WarnContext(ctx, "a reply is lost", "method", c.name, "error", err)
	}
}

// status returns what crosses the wire for err. What only this side may know is logged with the
// id that the other side sees.
func (c *Call) status(ctx context.Context, err error) []byte {
	s := rpc.Status(err)
	if fault.From(err) == nil {
		c.server.opt.Log.ErrorContext(ctx, "a call failed", "method", c.name,
			"told", s.Message(), "error", err)
	}
	raw, failed := proto.Marshal(s.Proto())
	if failed != nil || len(raw) > maxStatus {
		c.server.opt.Log.ErrorContext(ctx, "a status cannot be sent", "method", c.name,
			"bytes", len(raw), "error", failed)
		raw = []byte{8, byte(fault.Internal)} // a google.rpc.Status of only this code
	}
	return raw
}

// reply numbers, signs, seals and publishes. c.mu is held, so that seqs leave in order.
func (c *Call) reply(body *busv1.ReplyBody, size int) error {
	body.Request, body.Seq = c.id[:], c.seq+1
	sealed, err := encodeReply(c.server.id.Key, c.replyKey, body)
	if err != nil {
		return fmt.Errorf("send reply: %w", err)
	}
	if err := c.server.conn.Publish(c.replyTo, sealed); err != nil {
		return fmt.Errorf("send reply: %w", err)
	}
	c.seq++
	c.spoke = time.Now()
	c.onTheWay = append(c.onTheWay, sent{c.seq, size})
	c.bytes += size
	return nil
}

// heard notes that the client lives and has read up to a seq.
func (c *Call) heard(read uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listened = time.Now()
	n := 0
	for n < len(c.onTheWay) && c.onTheWay[n].seq <= read {
		c.bytes -= c.onTheWay[n].size
		n++
	}
	if n == 0 {
		return
	}
	c.onTheWay = slices.Delete(c.onTheWay, 0, n)
	c.signal()
}

// watch keeps the client of a stream sure that we live, and ends the stream when the client does
// not. It returns when ctx ends.
func (c *Call) watch(ctx context.Context) {
	every := c.server.opt.KeepEvery
	ticker := time.NewTicker(max(every/2, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			if c.silent(now) {
				c.stop(errSilent)
				return
			}
			c.keep(ctx, now, every)
		}
	}
}

func (c *Call) silent(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Sub(c.listened) > c.server.opt.Patience
}

func (c *Call) keep(ctx context.Context, now time.Time, every time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finished || now.Sub(c.spoke) < every {
		return
	}
	if err := c.reply(&busv1.ReplyBody{}, 0); err != nil {
		c.server.opt.Log.WarnContext(ctx, "a keep-alive is lost", "method", c.name, "error", err)
	}
}
