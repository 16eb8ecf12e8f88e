package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	busv1 "github.com/united-containers/ucn/proto/ucn/bus/v1"
	spb "google.golang.org/genproto/googleapis/rpc/status"
)

// StreamOption changes how one stream is asked for.
type StreamOption func(*streamOptions)

type streamOptions struct{ replyTo string }

// ForJob makes the replies come on the job's ephemeral subject, where operators' tools can see
// that the job speaks, though not what.
func ForJob(job [32]byte) StreamOption {
	return func(o *streamOptions) { o.replyTo = subject.JobReply(job) }
}

// Stream asks for a stream of replies. It returns once the request is sent; whether anybody hears
// it is what the first Next tells. The stream ends with ctx, with Close, or with its last reply;
// Close must be called in any case.
func (c *Client) Stream(
	ctx context.Context, t Target, method string, req proto.Message, options ...StreamOption,
) (*Receiver, error) {
	o := streamOptions{replyTo: subject.Reply()}
	for _, option := range options {
		option(&o)
	}
	ctx, span := c.span(ctx, t, method)
	start, cancel := context.WithTimeout(ctx, c.opt.Timeout)
	defer cancel()
	a, err := c.ask(start, t, method, req, o.replyTo)
	if err != nil {
		span.SetStatus(codes.Error, string(fault.ReasonOf(err)))
		span.End()
		return nil, err
	}
	r := &Receiver{asked: a, span: span, told: make(chan struct{}, 1)}
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.telling.Add(1)
	go func() { defer r.telling.Done(); r.keepTelling() }()
	return r, nil
}

// Receiver reads the replies of one stream, in order, without gaps. Next is called from one
// goroutine; Close may be called from any.
type Receiver struct {
	asked   *asked
	span    trace.Span
	ctx     context.Context // of the stream
	cancel  context.CancelFunc
	telling sync.WaitGroup
	told    chan struct{} // asks for a word to the server now

	read  atomic.Uint64 // seq of the last reply that Next gave out or passed over
	done  atomic.Bool   // the server said that nothing comes any more
	once  sync.Once
	err   error // what Next returns from now on
	news  int   // replies since the server was told
	bytes int   // and their bytes
}

// Next waits for the next message and decodes it into resp. It returns io.EOF after the last one,
// the handler's fault if the call failed, a fault REPLY_LOST that wraps *GapError when replies are
// missing, INSTANCE_SILENT when the server is gone, INSTANCE_NOT_CONNECTED when there never was
// one. After an error it returns the same error.
func (r *Receiver) Next(resp proto.Message) error {
	for r.err == nil {
		var b *busv1.ReplyBody
		if b, r.err = r.wait(); r.err != nil {
			break
		}
		r.account(b)
		if b.Last {
			r.done.Store(true)
			if r.err = r.asked.failure(b); r.err == nil {
				r.err = io.EOF
			}
		}
		if len(b.Payload) == 0 {
			continue
		}
		if err := r.asked.decode(b, resp); err != nil {
			r.err = err
			break
		}
		return nil
	}
	if !errors.Is(r.err, io.EOF) {
		r.span.SetStatus(codes.Error, string(fault.ReasonOf(r.err)))
	}
	return r.err
}

// Seq returns the seq of the last reply received, keep-alives included.
func (r *Receiver) Seq() uint64 { return r.read.Load() }

// Close ends the stream; if the server has not ended it, it is told. It may be called repeatedly.
func (r *Receiver) Close() {
	r.once.Do(func() {
		r.cancel()
		r.telling.Wait()
		if !r.done.Load() {
			r.asked.tell(context.WithoutCancel(r.ctx), methodCancel)
		}
		r.asked.close()
		r.span.End()
	})
}

// wait returns the next reply, or says that the server is silent for too long.
func (r *Receiver) wait() (*busv1.ReplyBody, error) {
	limit, cancel := context.WithTimeout(r.ctx, r.asked.client.opt.Silence)
	defer cancel()
	b, err := r.asked.next(limit)
	if err != nil && limit.Err() != nil && r.ctx.Err() == nil {
		cause := fmt.Errorf("nothing came for %s", r.asked.client.opt.Silence)
		if r.asked.forged > 0 {
			cause = errors.Join(cause, ErrForged)
		}
		return nil, r.asked.silent(cause)
	}
	return b, err
}

// account notes what was read and has the server told in time for it to go on sending.
func (r *Receiver) account(b *busv1.ReplyBody) {
	r.read.Store(b.Seq)
	r.news++
	r.bytes += len(b.Payload)
	if r.news >= tellEveryN || r.bytes >= tellEveryBytes {
		r.news, r.bytes = 0, 0
		select {
		case r.told <- struct{}{}:
		default:
		}
	}
}

// keepTelling says to the server what was read, in time, until the stream ends.
func (r *Receiver) keepTelling() {
	ticker := time.NewTicker(r.asked.client.opt.Tell)
	defer ticker.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-ticker.C:
		case <-r.told:
		}
		if r.done.Load() {
			return
		}
		r.asked.tellRead(r.ctx, methodKeep, r.read.Load())
	}
}

// decodeStatus turns the serialised status of a failed call back into its fault.
func decodeStatus(a *asked, raw []byte) error {
	m := new(spb.Status)
	if err := proto.Unmarshal(raw, m); err != nil || m.Code == 0 {
		return a.nonsense("the error cannot be read", err)
	}
	return rpc.Error(a.target.Service, status.FromProto(m).Err())
}
