package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/telemetry"
	busv1 "github.com/united-containers/ucn/proto/ucn/bus/v1"
)

// Defaults of a client.
const (
	DefaultTimeout = 30 * time.Second // of a call whose context has no deadline
	DefaultTell    = 10 * time.Second // between words to the server of a stream
	DefaultSilence = 20 * time.Second // without a reply of a stream, not even a keep-alive
	maxForged      = 1024             // foreign messages looked at per call
	pendingReplies = 4 * Window       // replies that wait in memory for their reader
	pendingBytes   = 4 * WindowBytes  // and their bytes
	cancelFor      = 5 * time.Second  // validity of a cancel
	statusHeader   = "Status"         // of messages that the broker itself sends
	noResponders   = "503"
	tellEveryN     = Window / 4      // replies read before the server is told
	tellEveryBytes = WindowBytes / 4 // and their bytes
)

// ClientOptions tune a client. The zero value means the defaults.
type ClientOptions struct {
	// Timeout of a call whose context has no deadline, and for a stream to begin; at most MaxAhead.
	Timeout time.Duration
	// Tell is how often the server of a stream hears from us; well below its Patience.
	Tell time.Duration
	// Silence after which the server of a stream is taken for dead; well above its KeepEvery.
	Silence time.Duration
	// Tracer makes a span per call; nil makes none.
	Tracer trace.Tracer
	// Clock; nil means time.Now.
	Clock func() time.Time
}

// Client asks instances. It is safe for concurrent use and holds nothing to close but what its
// streams hold.
type Client struct {
	conn  *nats.Conn
	proof Proof
	opt   ClientOptions
}

// NewClient returns a client that shows proof with every request.
func NewClient(conn *nats.Conn, proof Proof, opt ClientOptions) *Client {
	opt.Timeout = min(or(opt.Timeout, DefaultTimeout), MaxAhead)
	opt.Tell = or(opt.Tell, DefaultTell)
	opt.Silence = or(opt.Silence, DefaultSilence)
	if opt.Tracer == nil {
		opt.Tracer = noop.NewTracerProvider().Tracer("")
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	return &Client{conn: conn, proof: proof, opt: opt}
}

// Call asks for one reply and decodes it into resp. Errors are the faults of the handler, and
// those of this package: INSTANCE_NOT_CONNECTED (Unavailable) at once when nobody listens,
// DEADLINE_EXCEEDED, REPLY_INVALID. When ctx ends first, the handler is told.
func (c *Client) Call(
	ctx context.Context, t Target, method string, req, resp proto.Message,
) error {
	ctx, span := c.span(ctx, t, method)
	defer span.End()
	err := c.call(ctx, t, method, req, resp)
	if err != nil {
		span.SetStatus(codes.Error, string(fault.ReasonOf(err)))
	}
	return err
}

func (c *Client) call(
	ctx context.Context, t Target, method string, req, resp proto.Message,
) error {
	limit, cancel := context.WithTimeout(ctx, c.opt.Timeout)
	defer cancel()
	if deadline, ok := ctx.Deadline(); ok {
		limit = ctx
		if time.Until(deadline) > MaxAhead {
			limit, cancel = context.WithTimeout(ctx, MaxAhead)
			defer cancel()
		}
	}
	a, err := c.ask(limit, t, method, req, subject.Reply())
	if err != nil {
		return err
	}
	defer a.close()
	b, err := a.next(limit)
	if err != nil {
		if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
			a.tell(context.WithoutCancel(ctx), methodCancel)
		}
		return err
	}
	if !b.Last {
		return a.nonsense("a call was answered with a stream", nil)
	}
	if err := a.failure(b); err != nil {
		return err
	}
	return a.decode(b, resp)
}

func (c *Client) span(
	ctx context.Context, t Target, method string,
) (context.Context, trace.Span) {
	return c.opt.Tracer.Start(ctx, "bus "+method, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("rpc.system", "ucn.bus"),
			attribute.String("rpc.method", method),
			attribute.String("ucn.service", t.Service)))
}

// asked is a request that was sent and its subscription to replies. It is not safe for concurrent
// use, except for tell.
type asked struct {
	client *Client
	target Target
	id     requestID
	key    keys.SealKey
	sub    *nats.Subscription
	forged int
	seq    uint64 // of the last reply received
}

// ask subscribes and sends. ctx's deadline becomes not_after.
func (c *Client) ask(
	ctx context.Context, t Target, method string, req proto.Message, replyTo string,
) (*asked, error) {
	payload, err := encodeMessage(req)
	if err != nil {
		return nil, err
	}
	key, err := keys.NewSealKey()
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", t.Service, err)
	}
	a := &asked{client: c, target: t, key: key}
	_, _ = rand.Read(a.id[:]) // never fails: crypto/rand ends the process instead
	public := key.Public()
	sealed, err := c.request(ctx, t, &busv1.RequestBody{
		Id: a.id[:], Method: method, ReplyTo: replyTo, ReplyKey: public[:],
		Traceparent: telemetry.Inject(ctx), Payload: payload,
	})
	if err != nil {
		return nil, err
	}
	if a.sub, err = c.conn.SubscribeSync(replyTo); err != nil {
		return nil, c.broker(err)
	}
	if err := a.sub.SetPendingLimits(pendingReplies, pendingBytes); err != nil {
		a.close()
		return nil, c.broker(err)
	}
	// With a reply subject the broker itself says at once when nobody listens.
	if err := c.conn.PublishRequest(t.RPC(), replyTo, sealed); err != nil {
		a.close()
		return nil, c.broker(err)
	}
	return a, nil
}

// request completes, proves and seals a request. ctx must have a deadline.
func (c *Client) request(
	ctx context.Context, t Target, b *busv1.RequestBody,
) ([]byte, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil, errors.New("ask: no deadline")
	}
	b.Receiver = t.Instance[:]
	b.NotAfter = uint64(max(c.opt.Clock().Add(time.Until(deadline)).UnixMilli(), 1))
	body, err := canon.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	r := &busv1.Request{Body: b}
	if c.proof != nil {
		if err := c.proof.attach(ctx, t, body, r); err != nil {
			return nil, fmt.Errorf("ask %s: %w", t.Service, err)
		}
	}
	raw, err := canon.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	return seal(t.Seal, sealRequest, raw)
}

func (c *Client) broker(err error) error {
	return fault.New(fault.Unavailable, rpc.ReasonUnavailable,
		"the broker cannot be reached: check the connection and try again").Because(err)
}

func (a *asked) close() {
	_ = a.sub.Unsubscribe() // fails only if the connection is closed, which ends it as well
}

// next waits for the next true reply: signed by the target, for this request, in order. What
// others send is passed over.
func (a *asked) next(ctx context.Context) (*busv1.ReplyBody, error) {
	for {
		m, err := a.sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, a.explain(err)
		}
		b, err := a.open(m.Data)
		if err != nil {
			if a.forged++; a.forged > maxForged {
				return nil, a.silent(err)
			}
			continue
		}
		if b.Seq <= a.seq {
			continue // the broker repeated it
		}
		if b.Seq > a.seq+1 {
			return nil, fault.New(fault.DataLoss, ReasonReplyLost,
				"replies were lost on the way: ask again from where they end").
				Because(&GapError{Last: a.seq, Got: b.Seq})
		}
		a.seq = b.Seq
		return b, nil
	}
}

func (a *asked) open(sealed []byte) (*busv1.ReplyBody, error) {
	raw, err := unseal(a.key, sealReply, sealed)
	if err != nil {
		return nil, err
	}
	return decodeReply(raw, a.target.Instance, a.id)
}

// explain words the errors of waiting.
func (a *asked) explain(err error) error {
	var cause error = err
	if a.forged > 0 {
		cause = errors.Join(err, ErrForged)
	}
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return notConnected(a.target)
	case errors.Is(err, context.DeadlineExceeded):
		return fault.New(fault.DeadlineExceeded, rpc.ReasonDeadline,
			"%s did not answer in time", a.target.Service).Because(cause)
	case errors.Is(err, context.Canceled):
		return fault.New(fault.Cancelled, rpc.ReasonCancelled,
			"the call was cancelled").Because(cause)
	case errors.Is(err, nats.ErrSlowConsumer):
		return fault.New(fault.DataLoss, ReasonReplyLost,
			"replies came faster than they were read: ask again from where they end").
			Because(errors.Join(cause, &GapError{Last: a.seq}))
	}
	return a.client.broker(cause)
}

func (a *asked) silent(cause error) error {
	return fault.New(fault.Unavailable, ReasonSilent,
		"%s stopped answering: ask again from where its replies end", a.target.Service).
		Because(cause)
}

func (a *asked) nonsense(text string, cause error) error {
	return fault.New(fault.Internal, ReasonReplyInvalid, "%s: %s", a.target.Service, text).
		Because(cause)
}

// failure returns the error that a last reply carries, nil if there is none.
func (a *asked) failure(b *busv1.ReplyBody) error {
	if len(b.Error) == 0 {
		return nil
	}
	return decodeStatus(a, b.Error)
}

func (a *asked) decode(b *busv1.ReplyBody, resp proto.Message) error {
	if err := canon.Unmarshal(b.Payload, resp); err != nil {
		return a.nonsense("the reply is not in canonical form", err)
	}
	return nil
}

// tell sends a control message about this request; it is not answered, and one that is lost is
// made up for by the next, or by silence.
func (a *asked) tell(ctx context.Context, method string) {
	a.tellRead(ctx, method, 0)
}

func (a *asked) tellRead(ctx context.Context, method string, read uint64) {
	ctx, cancel := context.WithTimeout(ctx, cancelFor)
	defer cancel()
	payload, err := control{stream: a.id, read: read}.encode()
	if err != nil {
		return
	}
	var fresh requestID
	_, _ = rand.Read(fresh[:])
	sealed, err := a.client.request(ctx, a.target, &busv1.RequestBody{
		Id: fresh[:], Method: method, Payload: payload,
	})
	if err != nil {
		return
	}
	_ = a.client.conn.Publish(a.target.RPC(), sealed)
}
