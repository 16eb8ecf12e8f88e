package refetch_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	db "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/event/memory"
	"github.com/united-containers/ucn/kit/event/pebble"
	"github.com/united-containers/ucn/kit/event/refetch"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/token"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
)

func background(t *testing.T, f func(ctx context.Context, ready func()) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- f(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		t.Error(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func judge() cert.Verifier { return cert.Verifier{Chains: []string{eventtest.Chain}} }

// world is a broker, an owner that keeps what it said, and a peer that asks it.
type world struct {
	conn  *nats.Conn
	owner eventtest.Instance
	asker *bus.Client
}

func open(t *testing.T, history event.History) *world {
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
	w := &world{conn: conn, owner: eventtest.NewOperator(1).Instance(t, "executor")}
	s, err := bus.NewServer(conn, w.owner.Identity, bus.Authenticator{Instances: judge(),
		Tokens: &token.Verifier{Audience: w.owner.Cert.Operator,
			Chains: []string{eventtest.Chain}}}, bus.Options{})
	if err != nil {
		t.Fatal(err)
	}
	refetch.Serve(s, w.owner.Cert, history)
	background(t, s.Run)
	peer := eventtest.NewOperator(2).Instance(t, "scheduler")
	proof, err := bus.InstanceProof(peer.Key, peer.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	w.asker = bus.NewClient(conn, proof, bus.ClientOptions{})
	return w
}

// keep puts a line into a history, as its publisher did.
func keep(t *testing.T, q event.Queue, line []*event.Envelope) {
	t.Helper()
	for page := range slices.Chunk(line, 100) {
		var sealed []event.Sealed
		for _, e := range page {
			sealed = append(sealed, event.Sealed{Envelope: e})
		}
		if err := q.Seal(t.Context(), sealed); err != nil {
			t.Fatal(err)
		}
	}
}

func openPebble(t *testing.T) *db.DB {
	t.Helper()
	store, err := db.Open("", &db.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// TestHostileBroker: whatever the broker drops, repeats and reorders, each event takes effect once
// and in order, with either store at either end.
func TestHostileBroker(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		store := memory.New()
		survives(t, open(t, store), store, memory.New())
	})
	t.Run("pebble", func(t *testing.T) {
		outbox, err := pebble.NewOutbox(openPebble(t), "out/")
		if err != nil {
			t.Fatal(err)
		}
		cursors, err := pebble.NewCursors(openPebble(t), "in/", nil)
		if err != nil {
			t.Fatal(err)
		}
		survives(t, open(t, outbox), outbox, cursors)
	})
}

func survives[Tx any](t *testing.T, w *world, q event.Queue, cursors event.Cursors[Tx]) {
	const events = 600
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	line := w.owner.Line(t, event.TopicJob, events)
	keep(t, q, line)
	js, err := jetstream.New(w.conn)
	if err != nil {
		t.Fatal(err)
	}
	took := make(chan string, 2*events)
	c, err := event.NewConsumer(event.ConsumerConfig[Tx]{
		JetStream: js, Service: "executor", Topics: []event.Topic{event.TopicJob},
		Durable: "test", Cursors: cursors, OnGap: refetch.NewClient(w.asker).Fill,
		Verifier: event.NewVerifier(event.VerifierConfig{
			Certificates: known(t, w.owner),
		}),
		Handle: func(_ context.Context, _ Tx, e event.Incoming) error {
			took <- string(e.Body.Payload)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	background(t, c.Run)
	for _, e := range eventtest.Hostile(random, line, 40) {
		if _, err := js.Publish(t.Context(), w.owner.Signer.Subject(e), e.Raw); err != nil {
			t.Fatal(err)
		}
	}
	var got, want []string
	for n := range line {
		want = append(want, fmt.Sprint(n))
		got = append(got, <-took)
	}
	if d := cmp.Diff(want, got); d != "" || len(took) > 0 {
		t.Errorf("%d more; (-want +got)\n%s", len(took), d)
	}
}

func known(t *testing.T, i eventtest.Instance) *event.Directory {
	t.Helper()
	d := event.NewDirectory(event.JudgeBy(judge()), nil)
	d.Learn(t.Context(), i.Certificate)
	return d
}

func (w *world) gap(want, got uint64) *event.GapError {
	return &event.GapError{
		Line:  event.Line{Instance: w.owner.Key.Public(), Topic: event.TopicJob},
		Epoch: 1, Want: want, Got: got, Service: "executor", Certificate: w.owner.Cert,
	}
}

// TestLostIsNamed: an owner that keeps less than what is missed says so.
func TestLostIsNamed(t *testing.T) {
	store := memory.New()
	w := open(t, store)
	line := w.owner.Line(t, event.TopicJob, 20)
	keep(t, store, line[9:])
	client := refetch.NewClient(w.asker)
	_, err := client.Fill(t.Context(), w.gap(3, 20))
	var lost *event.LostError
	if !errors.As(err, &lost) || lost.Oldest != 10 {
		t.Errorf("error %v, want that 10 is the oldest", err)
	}
	all, err := client.Fill(t.Context(), w.gap(10, 20))
	if err != nil || len(all) < 10 {
		t.Errorf("fetched %d, %v", len(all), err)
	}
}

// TestPages: more than fits into one answer comes in several.
func TestPages(t *testing.T) {
	store := memory.New()
	w := open(t, store)
	var line []*event.Envelope
	var head event.Head
	for n := range 8 {
		e := eventtest.Event(event.TopicJob, n)
		e.Time, e.Payload = time.Now(), []byte(strings.Repeat("x", event.MaxPayload))
		line = append(line, w.owner.Sign(t, e, head))
		head = event.Head{Epoch: 1, Seq: uint64(n + 1), Hash: line[n].Hash}
	}
	keep(t, store, line)
	all, err := refetch.NewClient(w.asker).Fill(t.Context(), w.gap(1, 8))
	if err != nil || len(all) < 7 {
		t.Errorf("fetched %d, %v", len(all), err)
	}
}

func TestBadAsk(t *testing.T) {
	w := open(t, memory.New())
	target, err := bus.TargetOf(w.owner.Cert, "executor")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*eventv1.FetchRequest{
		{Topic: "weather", Epoch: 1, From: 1}, {Epoch: 1, From: 1},
	} {
		err := w.asker.Call(t.Context(), target, refetch.Method, r, new(eventv1.FetchResponse))
		if fault.ReasonOf(err) != refetch.ReasonPlace {
			t.Errorf("%v: error %v", r, err)
		}
	}
	if _, err := refetch.NewClient(w.asker).Fill(t.Context(), w.gap(1, 9)); err != nil {
		t.Errorf("an owner that said nothing yet: %v", err)
	}
}

// TestOperatorFetches: the instance's operator reads what it said, with a token for reading this
// instance; nobody else does. Without a place the newest epoch is told from its oldest on.
func TestOperatorFetches(t *testing.T) {
	store := memory.New()
	w := open(t, store)
	line := w.owner.Line(t, event.TopicJob, 20)
	keep(t, store, line[9:])
	target, err := bus.TargetOf(w.owner.Cert, "executor")
	if err != nil {
		t.Fatal(err)
	}
	key := w.owner.Cert.InstanceKey
	ask := func(by eventtest.Operator, scope string, r *eventv1.FetchRequest) (
		*eventv1.FetchResponse, error,
	) {
		text, err := token.Issue(by.Signer, token.Claims{Chain: eventtest.Chain,
			Audience: w.owner.Cert.Operator, Scopes: []string{scope}, NotBefore: time.Now(),
			NotAfter: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		client := bus.NewClient(w.conn, bus.TokenProof(
			func(context.Context, sig.AccountID) (string, error) { return text, nil },
		), bus.ClientOptions{})
		out := new(eventv1.FetchResponse)
		return out, client.Call(t.Context(), target, refetch.Method, r, out)
	}
	own, other := eventtest.NewOperator(1), eventtest.NewOperator(2)
	read := token.AdminScope(key, "read")
	for _, tt := range []struct {
		by    eventtest.Operator
		scope string
		r     *eventv1.FetchRequest
		want  int
		err   error
	}{
		{own, read, &eventv1.FetchRequest{Topic: "job"}, 11, nil},
		{own, "admin", &eventv1.FetchRequest{Topic: "job", Epoch: 1, From: 15, Instance: key[:]}, 6,
			nil},
		{own, read, &eventv1.FetchRequest{Topic: "job", From: 3}, 0, nil},
		{own, read, &eventv1.FetchRequest{Topic: "money"}, 0, nil},
		{own, "job", &eventv1.FetchRequest{Topic: "job"}, 0, rpc.ReasonScopeMissing},
		{own, token.AdminScope(key, "drain"), &eventv1.FetchRequest{Topic: "job"}, 0,
			rpc.ReasonScopeMissing},
		{own, token.AdminScope(sig.PublicKey{5}, "read"), &eventv1.FetchRequest{Topic: "job"}, 0,
			rpc.ReasonScopeMissing},
		{own, read, &eventv1.FetchRequest{Topic: "job", Instance: make([]byte, 32)}, 0,
			refetch.ReasonWrongInstance},
		{other, read, &eventv1.FetchRequest{Topic: "job"}, 0, refetch.ReasonNotInstance},
		{other, "admin", &eventv1.FetchRequest{Topic: "job"}, 0, refetch.ReasonNotInstance},
	} {
		got, err := ask(tt.by, tt.scope, tt.r)
		if !errors.Is(err, tt.err) || len(got.GetEnvelopes()) != tt.want {
			t.Errorf("%s, %v: %d envelopes, %v", tt.scope, tt.r, len(got.GetEnvelopes()), err)
		}
		if err == nil && tt.r.Topic == "job" && (got.Oldest != 10 || got.Newest != 20) {
			t.Errorf("%v: kept from %d to %d", tt.r, got.Oldest, got.Newest)
		}
	}
}
