package broker_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/rpc"
)

// tokens lets in texts that it knows.
type tokens map[string]rpc.Caller

func (t tokens) Authenticate(_ context.Context, text string) (rpc.Caller, error) {
	c, ok := t[text]
	if !ok {
		return rpc.Caller{}, fault.New(fault.Unauthenticated, rpc.ReasonBadSignature, "no")
	}
	return c, nil
}

func start(t *testing.T, cfg broker.Config, deps broker.Deps) *broker.Broker {
	t.Helper()
	b, stop := startIn(t, cfg, deps)
	t.Cleanup(stop)
	return b
}

func startIn(t *testing.T, cfg broker.Config, deps broker.Deps) (*broker.Broker, func()) {
	t.Helper()
	b, err := broker.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- b.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		cancel()
		t.Fatal(err)
	}
	return b, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func config(t *testing.T) broker.Config {
	t.Helper()
	cfg := broker.Default()
	cfg.Dir, cfg.Listen = t.TempDir(), "127.0.0.1:0"
	return cfg
}

func connect(t *testing.T, b *broker.Broker, login bus.Login) *nats.Conn {
	t.Helper()
	conn, err := bus.Connect(b.URL(), "test", login, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

func TestStreamsSurviveARestart(t *testing.T) {
	cfg := config(t)
	cfg.SyncAlways = true
	for round := range 2 {
		b, stop := startIn(t, cfg, broker.Deps{})
		conn, err := b.Connect("test")
		if err != nil {
			t.Fatal(err)
		}
		js, err := jetstream.New(conn)
		if err != nil {
			t.Fatal(err)
		}
		on := subject.Address{Service: "executor"}
		if _, err := js.Publish(t.Context(), on.Event("job", "attempt.changed"), nil); err != nil {
			t.Fatal(err)
		}
		for _, service := range cfg.Services {
			stream, err := js.Stream(t.Context(), event.StreamName(service))
			if err != nil {
				t.Fatal(err)
			}
			want := uint64(0)
			if service == "executor" {
				want = uint64(round) + 1
			}
			if got := stream.CachedInfo().State.Msgs; got != want {
				t.Errorf("round %d: stream of %s holds %d messages, want %d",
					round, service, got, want)
			}
		}
		conn.Close()
		stop()
	}
}

func TestRequestsAndRepliesAreNotKept(t *testing.T) {
	b := start(t, config(t), broker.Deps{})
	conn, err := b.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	to := subject.Address{Service: "executor"}
	for _, on := range []string{to.RPC(), subject.Reply(), subject.JobReply([32]byte{1})} {
		_, err := js.Publish(t.Context(), on, []byte("x"), jetstream.WithRetryAttempts(0))
		if !errors.Is(err, jetstream.ErrNoStreamResponse) {
			t.Errorf("%s: error %v, want no stream", on, err)
		}
	}
}

func TestConnectBeforeRun(t *testing.T) {
	b, err := broker.New(config(t), broker.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := b.Connect("early")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	connected := conn.StatusChanged(nats.CONNECTED)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, func() {}) }()
	<-connected
	if err := conn.Flush(); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestClientsMayAskAndHearOnly(t *testing.T) {
	known := tokens{
		"good":  {Scopes: []string{"bus"}, NotAfter: time.Now().Add(time.Hour)},
		"other": {Scopes: []string{"job"}, NotAfter: time.Now().Add(time.Hour)},
	}
	b := start(t, config(t), broker.Deps{Tokens: known})
	conn := connect(t, b, bus.TokenLogin(func() string { return "good" }))
	to := subject.Address{Operator: [32]byte{1}, Service: "executor"}
	cases := []struct {
		name    string
		act     func() error
		allowed bool
	}{
		{"ask", func() error { return conn.Publish(to.RPC(), nil) }, true},
		{"hear a reply", func() error { return listen(conn, subject.Reply()) }, true},
		{"hear a job", func() error { return listen(conn, subject.JobReply([32]byte{})) }, true},
		{"forge an event", func() error {
			return conn.Publish(to.Event("job", "attempt.changed"), nil)
		}, false},
		{"forge a reply", func() error { return conn.Publish(subject.Reply(), nil) }, false},
		{"hear requests", func() error { return listen(conn, to.RPC()) }, false},
		{"hear all", func() error { return listen(conn, ">") }, false},
		{"delete a stream", func() error {
			return conn.Publish("$JS.API.STREAM.DELETE.UCN_executor", nil)
		}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if err := attempt(conn, c.act); (err == nil) != c.allowed {
				t.Errorf("error %v, allowed is %v", err, c.allowed)
			}
		})
	}
	for _, text := range []string{"", "bad", "other"} {
		refused(t, b, bus.TokenLogin(func() string { return text }))
	}
	refused(t, b, nil)
}

// attempt acts and returns what the broker says about it.
func attempt(conn *nats.Conn, act func() error) error {
	failed := make(chan error, 1)
	conn.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		select {
		case failed <- err:
		default:
		}
	})
	if err := act(); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil { // the handler runs behind the first answer
		return err
	}
	select {
	case err := <-failed:
		return err
	case <-time.After(30 * time.Millisecond):
		return nil
	}
}

func listen(conn *nats.Conn, on string) error {
	_, err := conn.SubscribeSync(on)
	return err
}

// refused checks that a login is turned away.
func refused(t *testing.T, b *broker.Broker, login bus.Login) {
	t.Helper()
	options := []nats.Option{nats.MaxReconnects(0)}
	if login != nil {
		options = append(options, nats.Option(login))
	}
	conn, err := nats.Connect(b.URL(), options...)
	if !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("error %v, want an authorization violation", err)
	}
	if conn != nil {
		conn.Close()
	}
}

func TestAnExpiredTokenEndsTheConnection(t *testing.T) {
	known := tokens{"short": {
		Scopes: []string{"bus"}, NotAfter: time.Now().Add(300 * time.Millisecond),
	}}
	b := start(t, config(t), broker.Deps{Tokens: known})
	conn := connect(t, b, bus.TokenLogin(func() string { return "short" }))
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	<-conn.StatusChanged(nats.RECONNECTING)
}

// instance makes an instance of a new operator.
func instance(t *testing.T, seed byte) (sig.PrivateKey, []byte, subject.Address) {
	t.Helper()
	return instanceOf(t, seed, 1)
}

// instanceOf returns one of an operator's instances.
func instanceOf(t *testing.T, seed, number byte) (sig.PrivateKey, []byte, subject.Address) {
	t.Helper()
	operator := keys.SingleSigner(sig.FromSeed([32]byte{seed}))
	key := sig.FromSeed([32]byte{seed, number})
	seal, err := keys.NewSealKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := cert.Issue(operator, cert.Certificate{
		Chain: "main", InstanceKey: key.Public(), SealKey: seal.Public(),
		Services: []string{"executor"}, Serial: 1,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return key, raw, subject.Address{
		Operator: operator.Account, Service: "executor", Instance: key.Public(),
	}
}

func TestInstancesSpeakForThemselvesOnly(t *testing.T) {
	b := start(t, config(t), broker.Deps{Instances: cert.Verifier{Chains: []string{"main"}}})
	key, raw, own := instance(t, 1)
	otherKey, otherRaw, other := instance(t, 2)
	login, err := bus.InstanceLogin(key, raw)
	if err != nil {
		t.Fatal(err)
	}
	conn := connect(t, b, login)
	cases := []struct {
		name    string
		act     func() error
		allowed bool
	}{
		{"hear own requests", func() error { return listen(conn, own.RPC()) }, true},
		{"reply", func() error { return conn.Publish(subject.Reply(), nil) }, true},
		{"ask", func() error { return conn.Publish(other.RPC(), nil) }, true},
		{"hear another's requests", func() error { return listen(conn, other.RPC()) }, false},
		{"speak as another", func() error {
			return conn.Publish(other.Event("job", "attempt.changed"), nil)
		}, false},
		{"hear another's inbox", func() error { return listen(conn, "_INBOX.>") }, false},
		{"delete a stream", func() error {
			return conn.Publish("$JS.API.STREAM.DELETE.UCN_executor", nil)
		}, false},
		{"make a stream that takes all", func() error {
			return conn.Publish("$JS.API.STREAM.CREATE.UCN_executor", nil)
		}, false},
	}
	others := event.DurableName("executor", other.Instance)
	for _, on := range []string{
		"$JS.API.CONSUMER.CREATE.UCN_executor." + others,
		"$JS.API.CONSUMER.CREATE.UCN_executor." + others + ".ucn.>",
		"$JS.API.CONSUMER.CREATE.UCN_executor",
		"$JS.API.CONSUMER.DURABLE.CREATE.UCN_executor." + others,
		"$JS.API.CONSUMER.MSG.NEXT.UCN_executor." + others,
		"$JS.ACK.UCN_executor." + others + ".1.1.1.1.0", "$JS.API.CONSUMER.DELETE.UCN_executor." +
			event.DurableName("executor", own.Instance),
	} {
		cases = append(cases, struct {
			name    string
			act     func() error
			allowed bool
		}{on, func() error { return conn.Publish(on, nil) }, false})
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if err := attempt(conn, c.act); (err == nil) != c.allowed {
				t.Errorf("error %v, allowed is %v", err, c.allowed)
			}
		})
	}
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), own.Event("job", "attempt.changed"), nil); err != nil {
		t.Errorf("publish an own event: %v", err)
	}
	readsOwn(t, js, event.DurableName("executor", own.Instance))
	if _, err := bus.InstanceLogin(otherKey, raw); err == nil {
		t.Error("a login with another's certificate was made")
	}
	thief := func(o *nats.Options) error {
		good, err := bus.InstanceLogin(otherKey, otherRaw)
		if err != nil {
			return err
		}
		stolen, err := bus.InstanceLogin(key, raw)
		if err != nil {
			return err
		}
		signed := *o
		if err := errors.Join(stolen(o), good(&signed)); err != nil {
			return err
		}
		o.SignatureCB = signed.SignatureCB
		return nil
	}
	refused(t, b, thief)
}

// readsOwn reads one event through the instance's own consumer, as kit/event does.
func readsOwn(t *testing.T, js jetstream.JetStream, name string) {
	t.Helper()
	for _, filters := range [][]string{
		{"ucn.v1.*.executor.*.job.>"}, {"ucn.v1.*.executor.*.job.>", "ucn.v1.*.executor.*.money.>"},
	} {
		consumer, err := js.CreateOrUpdateConsumer(t.Context(), "UCN_executor",
			jetstream.ConsumerConfig{Durable: name, FilterSubjects: filters,
				AckPolicy: jetstream.AckExplicitPolicy})
		if err != nil {
			t.Fatalf("open the own consumer: %v", err)
		}
		if len(filters) == 1 {
			continue
		}
		m, err := consumer.Next()
		if err != nil {
			t.Fatalf("read through the own consumer: %v", err)
		}
		if err := m.DoubleAck(t.Context()); err != nil {
			t.Errorf("acknowledge: %v", err)
		}
	}
}

func TestOnlyKnownOperatorsAreLetIn(t *testing.T) {
	key, raw, own := instance(t, 1)
	strangerKey, strangerRaw, _ := instance(t, 2)
	b := start(t, config(t), broker.Deps{
		Instances: cert.Verifier{Chains: []string{"main"}},
		Operators: func(operator sig.AccountID) bool { return operator == own.Operator },
	})
	login, err := bus.InstanceLogin(key, raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := connect(t, b, login).Flush(); err != nil {
		t.Errorf("an instance of a known operator: %v", err)
	}
	if login, err = bus.InstanceLogin(strangerKey, strangerRaw); err != nil {
		t.Fatal(err)
	}
	refused(t, b, login)
}

func TestValidate(t *testing.T) {
	cases := []struct {
		name   string
		change func(*broker.Config)
		good   bool
	}{
		{"default", func(*broker.Config) {}, true},
		{"no folder", func(c *broker.Config) { c.Dir = "" }, false},
		{"tiny disk", func(c *broker.Config) { c.Disk = 1 }, false},
		{"no memory", func(c *broker.Config) { c.Memory = 0 }, false},
		{"no port", func(c *broker.Config) { c.Listen = "localhost" }, false},
		{"bad service", func(c *broker.Config) { c.Services = []string{"a.b"} }, false},
		{"no consumers", func(c *broker.Config) { c.Consumers = 0 }, false},
		{"no connections", func(c *broker.Config) { c.Connections = 0 }, false},
		{"none per address", func(c *broker.Config) { c.PerAddress = 0 }, false},
	}
	for _, c := range cases {
		cfg := broker.Default()
		cfg.Dir = "x"
		c.change(&cfg)
		if d := cmp.Diff(c.good, cfg.Validate() == nil); d != "" {
			t.Errorf("%s: (-want +got)\n%s%v", c.name, d, cfg.Validate())
		}
	}
	cfg := broker.Default()
	cfg.Dir, cfg.Listen = t.TempDir(), "0.0.0.0:0"
	if _, err := broker.New(cfg, broker.Deps{}); err == nil {
		t.Error("a broker without TLS may listen off loopback")
	}
	if _, err := bus.Connect("nats://192.0.2.1:4222", "x", nil, nil); !errors.Is(
		err, bus.ErrPlaintext) {
		t.Errorf("error %v, want ErrPlaintext", err)
	}
	file := cfg.Dir + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Dir, cfg.Listen = file, ""
	if _, err := broker.New(cfg, broker.Deps{}); err == nil {
		t.Error("a file was taken for a folder")
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		cfg := broker.Default()
		cfg.Dir = b.TempDir()
		made, err := broker.New(cfg, broker.Deps{})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		if err := made.Run(ctx, cancel); err != nil {
			b.Fatal(err)
		}
	}
}
