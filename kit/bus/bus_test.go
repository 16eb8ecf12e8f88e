package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/token"
)

type text = wrapperspb.StringValue

func background(t testing.TB, f func(ctx context.Context, ready func()) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- f(ctx, sync.OnceFunc(func() { close(ready) })) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return stop
}

// house is a broker with one executor, and who may ask it.
type house struct {
	broker   *broker.Broker
	conn     *nats.Conn
	executor eventtest.Instance
	user     keys.Signer
	server   *bus.Server
	stop     func()
	left     chan error // causes with which streaming handlers ended
}

func build(t testing.TB, opt bus.Options) *house {
	t.Helper()
	cfg := broker.Default()
	cfg.Dir, cfg.Services = t.TempDir(), nil
	b, err := broker.New(cfg, broker.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	background(t, b.Run)
	h := &house{
		broker: b, executor: eventtest.NewOperator(1).Instance(t, "executor"),
		user: keys.SingleSigner(sig.FromSeed([32]byte{99})), left: make(chan error, 16),
	}
	h.conn = h.connect(t)
	h.server, err = bus.NewServer(h.connect(t), h.executor.Identity, bus.Authenticator{
		Tokens: &token.Verifier{
			Audience: h.executor.Cert.Operator, Chains: []string{eventtest.Chain},
		},
		Instances: cert.Verifier{Chains: []string{eventtest.Chain}},
	}, opt)
	if err != nil {
		t.Fatal(err)
	}
	h.handlers()
	h.stop = background(t, h.server.Run)
	return h
}

func (h *house) connect(t testing.TB) *nats.Conn {
	t.Helper()
	conn, err := h.broker.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

func (h *house) handlers() {
	bus.Unary(h.server, "Echo", func(_ context.Context, req *text) (*text, error) {
		return req, nil
	})
	bus.Unary(h.server, "Who", func(ctx context.Context, _ *text) (*text, error) {
		if c, ok := bus.InstanceFrom(ctx); ok {
			return wrapperspb.String("instance of " + c.Services[0]), nil
		}
		return wrapperspb.String("account"), rpc.RequireScope(ctx, "job")
	})
	bus.Unary(h.server, "Fail", func(_ context.Context, req *text) (*text, error) {
		if req.Value == "fault" {
			return nil, fmt.Errorf("secret path: %w", fault.New(fault.NotFound, "NO_LEASE", "gone"))
		}
		if req.Value == "panic" {
			panic("secret")
		}
		return nil, errors.New("secret")
	})
	bus.Unary(h.server, "Large", func(context.Context, *text) (*text, error) {
		return wrapperspb.String(string(make([]byte, bus.MaxMessage+1))), nil
	})
	bus.Unary(h.server, "Hang", func(ctx context.Context, _ *text) (*text, error) {
		<-ctx.Done()
		h.left <- context.Cause(ctx)
		return nil, ctx.Err()
	})
	bus.ServerStream(h.server, "Count",
		func(_ context.Context, req *wrapperspb.UInt32Value, send func(*text) error) error {
			for n := range req.Value {
				if err := send(wrapperspb.String(fmt.Sprint(n))); err != nil {
					return err
				}
			}
			return nil
		})
	bus.ServerStream(h.server, "Forever",
		func(ctx context.Context, _ *text, send func(*text) error) error {
			if err := send(wrapperspb.String("begun")); err != nil {
				return err
			}
			<-ctx.Done()
			h.left <- context.Cause(ctx)
			return ctx.Err()
		})
}

// token returns a proof with a token of the user for an operator.
func (h *house) token(t testing.TB, audience sig.AccountID) bus.Proof {
	t.Helper()
	text, err := token.Issue(h.user, token.Claims{
		Chain: eventtest.Chain, Audience: audience, Scopes: []string{"job"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return bus.TokenProof(func(context.Context, sig.AccountID) (string, error) {
		return text, nil
	})
}

func (h *house) client(t testing.TB, opt bus.ClientOptions) *bus.Client {
	t.Helper()
	return bus.NewClient(h.connect(t), h.token(t, h.executor.Cert.Operator), opt)
}

func TestCall(t *testing.T) {
	h := build(t, bus.Options{})
	var got text
	c := h.client(t, bus.ClientOptions{})
	for _, want := range []string{"hello", "", string(make([]byte, bus.MaxMessage-16))} {
		err := c.Call(t.Context(), h.server.Target(), "Echo", wrapperspb.String(want), &got)
		if err != nil || got.Value != want {
			t.Errorf("got %d bytes, %v, want %d", len(got.Value), err, len(want))
		}
	}
}

func TestCallerIsKnown(t *testing.T) {
	h := build(t, bus.Options{})
	scheduler := eventtest.NewOperator(2).Instance(t, "scheduler")
	proof, err := bus.InstanceProof(scheduler.Key, scheduler.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]*bus.Client{
		"account":               h.client(t, bus.ClientOptions{}),
		"instance of scheduler": bus.NewClient(h.conn, proof, bus.ClientOptions{}),
	} {
		var got text
		err := c.Call(t.Context(), h.server.Target(), "Who", &text{}, &got)
		if err != nil || got.Value != want {
			t.Errorf("got %q, %v, want %q", got.Value, err, want)
		}
	}
}

func TestOnlyFaultsCross(t *testing.T) {
	h := build(t, bus.Options{})
	c := h.client(t, bus.ClientOptions{})
	cases := []struct {
		method, req string
		kind        fault.Kind
		reason      fault.Reason
	}{
		{"Fail", "fault", fault.NotFound, "NO_LEASE"},
		{"Fail", "other", fault.Internal, rpc.ReasonInternal},
		{"Fail", "panic", fault.Internal, rpc.ReasonInternal},
		{"Large", "", fault.ResourceExhausted, rpc.ReasonTooLarge},
		{"Missing", "", fault.Unimplemented, rpc.ReasonUnimplemented},
	}
	for _, w := range cases {
		err := c.Call(t.Context(), h.server.Target(), w.method, wrapperspb.String(w.req), &text{})
		if !errors.Is(err, w.kind) || !errors.Is(err, w.reason) {
			t.Errorf("%s %s: error %v, want %s %s", w.method, w.req, err, w.kind, w.reason)
		}
		if err != nil && contains(err.Error(), "secret") {
			t.Errorf("%s %s: a secret crossed: %v", w.method, w.req, err)
		}
	}
	big := wrapperspb.String(string(make([]byte, bus.MaxMessage+1)))
	err := c.Call(t.Context(), h.server.Target(), "Echo", big, &text{})
	if !errors.Is(err, rpc.ReasonTooLarge) {
		t.Errorf("a large request: %v", err)
	}
}

func contains(s, sub string) bool {
	for i := range s {
		if len(s)-i >= len(sub) && s[i:i+len(sub)] == sub {
			return true
		}
	}
	return false
}

func TestNobodyThere(t *testing.T) {
	h := build(t, bus.Options{})
	target := h.server.Target()
	target.Instance = sig.FromSeed([32]byte{7}).Public()
	c := h.client(t, bus.ClientOptions{})
	began := time.Now()
	err := c.Call(t.Context(), target, "Echo", &text{}, &text{})
	if !errors.Is(err, fault.Unavailable) || !errors.Is(err, bus.ReasonNotConnected) {
		t.Errorf("error %v, want %s", err, bus.ReasonNotConnected)
	}
	r, err := c.Stream(t.Context(), target, "Count", &text{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Next(&text{}); !errors.Is(err, bus.ReasonNotConnected) {
		t.Errorf("error %v, want %s", err, bus.ReasonNotConnected)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("that took %s, not at once", took)
	}
}

func TestDeadlineAndCancel(t *testing.T) {
	h := build(t, bus.Options{Skew: time.Millisecond})
	c := h.client(t, bus.ClientOptions{Timeout: 100 * time.Millisecond})
	err := c.Call(t.Context(), h.server.Target(), "Hang", &text{}, &text{})
	if !errors.Is(err, fault.DeadlineExceeded) {
		t.Errorf("error %v, want a deadline", err)
	}
	if cause := <-h.left; !errors.Is(cause, context.DeadlineExceeded) {
		t.Errorf("the handler ended with %v, want its deadline", cause)
	}
	ctx, cancel := context.WithCancel(t.Context())
	timer := time.AfterFunc(50*time.Millisecond, cancel)
	defer timer.Stop()
	c = h.client(t, bus.ClientOptions{})
	err = c.Call(ctx, h.server.Target(), "Hang", &text{}, &text{})
	if !errors.Is(err, fault.Cancelled) {
		t.Errorf("error %v, want cancelled", err)
	}
	if cause := <-h.left; cause == nil || errors.Is(cause, context.DeadlineExceeded) {
		t.Errorf("the handler ended with %v, want the client's leaving", cause)
	}
}

func TestLimits(t *testing.T) {
	h := build(t, bus.Options{Concurrent: 1, Limiter: rpc.NewRateLimiter(0.001, 3)})
	c := h.client(t, bus.ClientOptions{})
	r, err := c.Stream(t.Context(), h.server.Target(), "Forever", &text{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Next(&text{}); err != nil {
		t.Fatal(err)
	}
	err = c.Call(t.Context(), h.server.Target(), "Echo", &text{}, &text{})
	if !errors.Is(err, bus.ReasonBusy) {
		t.Errorf("beyond the calls at once: %v", err)
	}
	r.Close()
	<-h.left
	for range 2 {
		err = c.Call(t.Context(), h.server.Target(), "Who", &text{}, &text{})
	}
	if !errors.Is(err, rpc.ReasonRateLimited) {
		t.Errorf("beyond the rate: %v", err)
	}
}

// TestOneCallerLeavesRoom: a caller that takes all it can keeps nobody else out.
func TestOneCallerLeavesRoom(t *testing.T) {
	h := build(t, bus.Options{Concurrent: 4, Requests: 64})
	greedy := h.client(t, bus.ClientOptions{})
	h.user = keys.SingleSigner(sig.FromSeed([32]byte{98}))
	other := h.client(t, bus.ClientOptions{})
	for n := range 3 {
		r, err := greedy.Stream(t.Context(), h.server.Target(), "Forever", &text{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := r.Next(&text{}); (n == 2) != errors.Is(err, bus.ReasonBusy) {
			t.Errorf("stream %d: %v", n, err)
		}
	}
	if err := other.Call(t.Context(), h.server.Target(), "Echo", &text{}, &text{}); err != nil {
		t.Errorf("another caller beside many streams: %v", err)
	}
	var err error
	for n := 0; n < 64 && err == nil; n++ { // an unknown method takes no slot
		err = greedy.Call(t.Context(), h.server.Target(), "None", &text{}, &text{})
		if errors.Is(err, rpc.ReasonUnimplemented) {
			err = nil
		}
	}
	if !errors.Is(err, bus.ReasonBusy) {
		t.Errorf("many requests of one caller: %v", err)
	}
	if err := other.Call(t.Context(), h.server.Target(), "Echo", &text{}, &text{}); err != nil {
		t.Errorf("another caller beside many requests: %v", err)
	}
}

func TestOneTrace(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)).Tracer("test")
	h := build(t, bus.Options{Tracer: tracer})
	c := h.client(t, bus.ClientOptions{Tracer: tracer})
	if err := c.Call(t.Context(), h.server.Target(), "Echo", &text{}, &text{}); err != nil {
		t.Fatal(err)
	}
	h.stop()
	kinds := map[string]int{}
	for _, span := range recorder.Ended() {
		kinds[span.SpanKind().String()]++
		if span.SpanContext().TraceID() != recorder.Ended()[0].SpanContext().TraceID() {
			t.Error("two traces")
		}
	}
	if d := cmp.Diff(map[string]int{"client": 1, "server": 1}, kinds); d != "" {
		t.Errorf("spans (-want +got)\n%s", d)
	}
}

func BenchmarkCall(b *testing.B) {
	h := build(b, bus.Options{})
	c := h.client(b, bus.ClientOptions{})
	b.ReportAllocs()
	for b.Loop() {
		err := c.Call(b.Context(), h.server.Target(), "Echo", wrapperspb.String("hello"), &text{})
		if err != nil {
			b.Fatal(err)
		}
	}
}
