package event_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/event/memory"
)

// background runs f until the test ends or stop is called.
func background(t *testing.T, f func(ctx context.Context, ready func()) error) (stop func()) {
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

// open starts a broker and returns JetStream at it.
func open(t *testing.T) jetstream.JetStream {
	t.Helper()
	cfg := broker.Default()
	cfg.Dir, cfg.Services = t.TempDir(), []string{"executor"}
	b, err := broker.New(cfg, broker.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	background(t, b.Run)
	conn, err := b.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// plain starts a nats-server without streams and returns JetStream at it.
func plain(t *testing.T) jetstream.JetStream {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		DontListen: true, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	conn, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// reader is a consumer that writes down what took effect.
type reader struct {
	store  *memory.Store
	took   chan string // what the handler of a committed transaction saw
	refuse string
	event.ConsumerConfig[*memory.Tx]
}

func newReader(t *testing.T, js jetstream.JetStream, known ...eventtest.Instance) *reader {
	t.Helper()
	r := &reader{store: memory.New(), took: make(chan string, 4096)}
	r.ConsumerConfig = event.ConsumerConfig[*memory.Tx]{
		JetStream: js, Service: "executor", Topics: []event.Topic{event.TopicJob},
		Durable: "test", Cursors: r.store, Handle: r.handle,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Verifier: event.NewVerifier(event.VerifierConfig{
			Certificates: directory(t, nil, known...),
		}),
	}
	return r
}

func (r *reader) handle(_ context.Context, tx *memory.Tx, e event.Incoming) error {
	text := string(e.Body.Payload)
	tx.Do(func() { r.took <- text })
	if text == r.refuse {
		return fmt.Errorf("payload %s: %w", text, event.ErrRefused)
	}
	return nil
}

func (r *reader) run(t *testing.T) (stop func()) {
	t.Helper()
	c, err := event.NewConsumer(r.ConsumerConfig)
	if err != nil {
		t.Fatal(err)
	}
	return background(t, c.Run)
}

// expect waits until exactly these payloads took effect, in this order.
func (r *reader) expect(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for range want {
		select {
		case text := <-r.took:
			got = append(got, text)
		case <-time.After(20 * time.Second):
			t.Fatalf("only %v took effect, want %v", got, want)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("took effect (-want +got)\n%s", d)
	}
	if n := len(r.took); n != 0 {
		t.Errorf("%d more took effect", n)
	}
}

func put(t *testing.T, js jetstream.JetStream, from eventtest.Instance, all ...*event.Envelope) {
	t.Helper()
	for _, e := range all {
		if _, err := js.Publish(t.Context(), from.Signer.Subject(e), e.Raw); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPublisherToConsumer(t *testing.T) {
	js := open(t)
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	store := memory.New()
	publisher, err := event.NewPublisher(event.PublisherConfig{
		Queue: store, Signer: alice.Signer, JetStream: js,
	})
	if err != nil {
		t.Fatal(err)
	}
	background(t, publisher.Run)
	r := newReader(t, js)
	// This reader learns the certificate from the stream, and follows the trace.
	recorder := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)).Tracer("test")
	d := event.NewDirectory(judge(), nil, event.Announced(js))
	r.Verifier = event.NewVerifier(event.VerifierConfig{Certificates: d})
	r.Tracer = tracer
	r.run(t)
	ctx, span := tracer.Start(t.Context(), "cause")
	e, err := event.New(ctx, time.Now(), event.TopicJob, "attempt.changed", wrapperspb.String("x"))
	if err != nil {
		t.Fatal(err)
	}
	span.End()
	err = store.Transact(t.Context(), func(tx *memory.Tx) error { return store.Append(tx, e) })
	if err != nil {
		t.Fatal(err)
	}
	r.expect(t, string(e.Payload))
	for _, ended := range recorder.Ended() {
		if ended.SpanContext().TraceID() != span.SpanContext().TraceID() {
			t.Errorf("span %q is of another trace", ended.Name())
		}
	}
}

// TestNothingIsLostOrDoubled kills publisher and consumer at random steps, each of which may have
// happened or not, and in the end everything took effect once and in order.
func TestNothingIsLostOrDoubled(t *testing.T) {
	const events, kills = 200, 12
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	var mu sync.Mutex
	hook := func(memory.Step) memory.Outcome {
		mu.Lock()
		defer mu.Unlock()
		if random.IntN(8) == 0 {
			return memory.FailBefore + memory.Outcome(random.IntN(2))
		}
		return memory.Succeed
	}
	js := open(t)
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	out := memory.New()
	r := newReader(t, js, alice)
	r.OnFork = func(_ context.Context, fork *event.ForkError) { t.Error(fork) }
	r.store.SetHook(hook)
	out.SetHook(hook)
	var want []string
	for n := range events {
		want = append(want, fmt.Sprint(n))
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		for n := range events {
			appendUntilCommitted(t, out, n)
		}
	}()
	for range kills {
		p, err := event.NewPublisher(event.PublisherConfig{
			Queue: out, Signer: alice.Signer, JetStream: js,
		})
		if err != nil {
			t.Fatal(err)
		}
		stopPublisher := background(t, p.Run)
		stopReader := r.run(t)
		pause, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		<-pause.Done()
		cancel()
		stopPublisher()
		stopReader()
	}
	<-written
	out.SetHook(nil)
	r.store.SetHook(nil)
	p, err := event.NewPublisher(event.PublisherConfig{
		Queue: out, Signer: alice.Signer, JetStream: js,
	})
	if err != nil {
		t.Fatal(err)
	}
	background(t, p.Run)
	r.run(t)
	r.expect(t, want...)
}

// appendUntilCommitted appends event n in a transaction of its own that may fail on the way; it
// looks whether it was committed, as a service would.
func appendUntilCommitted(t *testing.T, s *memory.Store, n int) {
	for done := false; !done; {
		err := s.Transact(t.Context(), func(tx *memory.Tx) error {
			tx.Do(func() { done = true })
			e := eventtest.Event(event.TopicJob, n)
			e.Time = time.Now()
			return s.Append(tx, e)
		})
		if err != nil && !errors.Is(err, memory.ErrInjected) {
			t.Error(err)
			return
		}
	}
}

func TestReorderedAndRepeated(t *testing.T) {
	js := open(t)
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	line := alice.Line(t, event.TopicJob, 5)
	r := newReader(t, js, alice)
	r.run(t)
	put(t, js, alice, line[0], line[0], line[3], line[2], line[1], line[3], line[4], line[0])
	r.expect(t, "0", "1", "2", "3", "4")
}

// TestShuffledLine: what waits for an earlier one is taken as soon as that one comes, not when the
// broker hands it out again in some order.
func TestShuffledLine(t *testing.T) {
	const events = 300
	js := open(t)
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	line := alice.Line(t, event.TopicJob, events)
	r := newReader(t, js, alice)
	r.run(t)
	put(t, js, alice, line[0])
	var want []string
	for n := range line {
		want = append(want, fmt.Sprint(n))
	}
	for n := len(line) - 1; n > 0; n-- {
		put(t, js, alice, line[n])
	}
	began := time.Now()
	r.expect(t, want...)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("that took %s", took)
	}
}

func TestForgedEventsChangeNothing(t *testing.T) {
	js := open(t)
	op := eventtest.NewOperator(1)
	alice, eve := op.Instance(t, "executor"), eventtest.NewOperator(2).Instance(t, "executor")
	line := alice.Line(t, event.TopicJob, 2)
	fake := eve.Line(t, event.TopicJob, 1)[0]
	r := newReader(t, js, alice)
	r.run(t)
	if _, err := js.Publish(t.Context(), alice.Signer.Subject(fake), fake.Raw); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), alice.Signer.Subject(fake), []byte("x")); err != nil {
		t.Fatal(err)
	}
	put(t, js, alice, line...)
	r.expect(t, "0", "1")
}

func TestGapHookFills(t *testing.T) {
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	line := alice.Line(t, event.TopicJob, 6)
	eve := eventtest.NewOperator(2).Instance(t, "executor")
	cases := []struct {
		name string
		fill func(*event.GapError) ([]event.Received, error)
		want []string
	}{
		{"fill", func(gap *event.GapError) (out []event.Received, _ error) {
			for _, e := range line[gap.Want-1 : gap.Got-1] {
				out = append(out, alice.Received(e))
			}
			return out, nil
		}, []string{"0", "1", "2", "3", "4", "5"}},
		{"lost", func(gap *event.GapError) ([]event.Received, error) {
			if gap.Want < 3 {
				return nil, &event.LostError{Gap: gap, Oldest: 3}
			}
			return []event.Received{alice.Received(line[2])}, nil
		}, []string{"0", "2", "3", "4", "5"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			js := open(t)
			r := newReader(t, js, alice, eve)
			lies := [][]event.Received{
				nil,
				{eve.Received(eve.Line(t, event.TopicJob, 1)[0])},
				{{Subject: alice.Signer.Subject(line[1]), Data: []byte("junk")}},
			}
			r.OnGap = func(_ context.Context, gap *event.GapError) ([]event.Received, error) {
				if len(lies) > 0 { // first the owner is away or lies
					lie := lies[0]
					lies = lies[1:]
					return lie, nil
				}
				return c.fill(gap)
			}
			r.run(t)
			put(t, js, alice, line[0], line[3], line[4], line[5])
			r.expect(t, c.want...)
		})
	}
}

func TestForkIsProven(t *testing.T) {
	js := open(t)
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	line := alice.Line(t, event.TopicJob, 3)
	e := eventtest.Event(event.TopicJob, 99)
	e.Time = time.Now()
	other := alice.Sign(t, e, headOf(line[0]))
	r := newReader(t, js, alice)
	forks := make(chan *event.ForkError, 1)
	r.OnFork = func(_ context.Context, fork *event.ForkError) { forks <- fork }
	r.run(t)
	put(t, js, alice, line[0], line[1], other, line[2])
	fork := <-forks
	v := r.Verifier.Verify(t.Context(), []event.Received{
		{Subject: alice.Signer.Subject(line[1]), Data: fork.Have},
		{Subject: alice.Signer.Subject(other), Data: fork.Got},
	})
	if v[0].Err != nil || v[1].Err != nil || v[0].Envelope.Body.Seq != v[1].Envelope.Body.Seq {
		t.Errorf("the evidence does not stand: %v, %v", v[0].Err, v[1].Err)
	}
	r.expect(t, "0", "1")
}

func TestRefusedEventsArePassed(t *testing.T) {
	js := open(t)
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	r := newReader(t, js, alice)
	r.refuse = "1"
	r.run(t)
	put(t, js, alice, alice.Line(t, event.TopicJob, 3)...)
	r.expect(t, "0", "2")
}

// A broker of ours makes its streams itself. At a nats-server of the operator's publishers do.
func TestConsumerWaitsForItsStream(t *testing.T) {
	js := plain(t)
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	r := newReader(t, js, alice)
	r.run(t)
	store := memory.New()
	p, err := event.NewPublisher(event.PublisherConfig{
		Queue: store, Signer: alice.Signer, JetStream: js,
	})
	if err != nil {
		t.Fatal(err)
	}
	appendUntilCommitted(t, store, 7)
	background(t, p.Run) // makes the stream
	r.expect(t, "7")
}

func TestEnsureStreamKeepsWhatIs(t *testing.T) {
	js := plain(t)
	for _, limits := range []event.Limits{{}, {Age: time.Minute}} {
		if err := event.EnsureStream(t.Context(), js, "executor", limits); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := js.Stream(t.Context(), event.StreamName("executor"))
	if err != nil {
		t.Fatal(err)
	}
	if age := stream.CachedInfo().Config.MaxAge; age != event.DefaultAge {
		t.Errorf("age %s, want %s", age, event.DefaultAge)
	}
	if err := stream.Purge(t.Context()); err == nil {
		t.Error("the stream can be purged")
	}
	if err := event.EnsureStream(t.Context(), js, "a.b", event.Limits{}); err == nil {
		t.Error("a stream of a service that cannot be")
	}
}
