package broker_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event"
)

const stream = "UCN_executor"

// member is an instance that is let in.
type member struct {
	conn *nats.Conn
	js   jetstream.JetStream
	at   subject.Address
	name string // of its consumer
}

func admitted(t *testing.T, b *broker.Broker, seed byte) member {
	t.Helper()
	return admittedOf(t, b, seed, 1)
}

func admittedOf(t *testing.T, b *broker.Broker, seed, number byte) member {
	t.Helper()
	key, raw, at := instanceOf(t, seed, number)
	login, err := bus.InstanceLogin(key, raw)
	if err != nil {
		t.Fatal(err)
	}
	m := member{conn: connect(t, b, login), at: at, name: event.DurableName("executor", at.Instance)}
	if m.js, err = jetstream.New(m.conn); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m member) say(t *testing.T, payload string) {
	t.Helper()
	on := m.at.Event("job", "attempt.changed")
	if _, err := m.js.Publish(t.Context(), on, []byte(payload)); err != nil {
		t.Fatal(err)
	}
}

// follow opens the member's consumer.
func (m member) follow(t *testing.T) jetstream.Consumer {
	t.Helper()
	c, err := m.js.CreateOrUpdateConsumer(t.Context(), stream, jetstream.ConsumerConfig{
		Durable: m.name, AckPolicy: jetstream.AckExplicitPolicy,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// inbox returns where the member alone hears.
func (m member) inbox() string { return m.conn.NewInbox() }

// orders are what nobody but the broker may give, and what is the victim's alone.
func orders(victim member) []string {
	return []string{
		"$JS.API.STREAM.PURGE." + stream, "$JS.API.STREAM.DELETE." + stream,
		"$JS.API.STREAM.MSG.DELETE." + stream, "$JS.API.STREAM.UPDATE." + stream,
		"$JS.API.STREAM.CREATE.UCN_new", "$JS.API.STREAM.SNAPSHOT." + stream,
		"$JS.API.CONSUMER.DELETE." + stream + "." + victim.name,
		"$JS.API.CONSUMER.PAUSE." + stream + "." + victim.name,
		"$JS.API.CONSUMER.MSG.NEXT." + stream + "." + victim.name,
		"$JS.API.CONSUMER.CREATE." + stream + "." + victim.name,
		"$JS.ACK." + stream + "." + victim.name + ".1.1.1.1.0",
		"$JS.ACK." + stream + "." + victim.name + ".1.2.2.1.0",
		"_WARDEN.x", "$SYS.REQ.SERVER.PING",
	}
}

// ways are all that a member may publish on, with what it may say there.
func (m member) ways(other subject.Address) map[string][]byte {
	of := stream + "." + m.name
	return map[string][]byte{
		other.RPC(): nil, subject.Reply(): nil, subject.JobReply([32]byte{1}): nil,
		"$JS.API.STREAM.INFO." + stream: nil, "$JS.API.STREAM.NAMES": nil,
		"$JS.API.STREAM.MSG.GET." + stream:                     []byte(`{"seq":1}`),
		"$JS.API.DIRECT.GET." + stream:                         []byte(`{"seq":1}`),
		"$JS.API.CONSUMER.INFO." + of:                          nil,
		"$JS.API.CONSUMER.MSG.NEXT." + of:                      []byte(`{"batch":8}`),
		"$JS.ACK." + of + ".1.9.9.1.0":                         nil,
		m.at.Event("job", "attempt.changed"):                   []byte(`{"filter":">"}`),
		"$JS.API.CONSUMER.DURABLE.CREATE." + of:                m.consumer(""),
		"$JS.API.CONSUMER.CREATE." + of:                        m.consumer(""),
		"$JS.API.CONSUMER.CREATE." + of + ".ucn.v1.*.executor": m.consumer(""),
	}
}

// consumer asks for a consumer that delivers to a subject, if to is one.
func (m member) consumer(to string) []byte {
	if to != "" {
		to = fmt.Sprintf(`,"deliver_subject":%q`, to)
	}
	return fmt.Appendf(nil, `{"stream_name":%q,"config":{"durable_name":%q,"ack_policy":"explicit",`+
		`"deliver_policy":"all","replay_policy":"instant"%s}}`, stream, m.name, to)
}

// world is what an attack must not change.
type world struct {
	Streams []string
	Config  jetstream.StreamConfig
	First   uint64
	Deleted int
	Acked   jetstream.SequenceInfo
	Waiting int
	Paused  bool
}

func look(t *testing.T, victim member) world {
	t.Helper()
	var w world
	names := victim.js.StreamNames(t.Context())
	for name := range names.Name() {
		w.Streams = append(w.Streams, name)
	}
	s, err := victim.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	c, err := victim.js.Consumer(t.Context(), stream, victim.name)
	if err != nil {
		t.Fatal(err)
	}
	info := s.CachedInfo()
	w.Config, w.First, w.Deleted = info.Config, info.State.FirstSeq, info.State.NumDeleted
	w.Acked, w.Waiting = c.CachedInfo().AckFloor, c.CachedInfo().NumWaiting
	w.Acked.Last = nil
	w.Paused = c.CachedInfo().Paused
	return w
}

// TestNobodyOrdersTheStreams: an admitted instance gives every order that is not its to give,
// directly, as where it wants an answer, where it wants a trace and where a consumer shall deliver.
// Nothing comes of it.
func TestNobodyOrdersTheStreams(t *testing.T) {
	b := start(t, config(t), broker.Deps{Instances: cert.Verifier{Chains: []string{"main"}}})
	victim, thief := admitted(t, b, 1), admitted(t, b, 2)
	victim.say(t, "{}") // which, as an order to purge, means all
	victim.say(t, "two")
	consumer := victim.follow(t)
	first, err := consumer.Next()
	if err != nil {
		t.Fatal(err)
	}
	thief.follow(t)
	was := look(t, victim)
	nobody := subject.Address{Operator: [32]byte{9}, Service: "executor"}
	for _, order := range orders(victim) {
		if err := attempt(thief.conn, func() error {
			return thief.conn.Publish(order, nil)
		}); err == nil {
			t.Errorf("%s may be given directly", order)
		}
		thief.tries(t, order, nobody)
		own, err := b.Connect("own")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(order, "_WARDEN") { // own services may not touch the streams either
			if err := own.PublishRequest(order, subject.Reply(), nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := own.Flush(); err != nil {
			t.Fatal(err)
		}
		own.Close()
	}
	victim.say(t, "three") // behind the attacks: they have had their effect
	if d := cmp.Diff(was, look(t, victim)); d != "" {
		t.Errorf("attacks changed (-was +is):\n%s", d)
	}
	if err := first.DoubleAck(t.Context()); err != nil {
		t.Errorf("the first event: %v", err)
	}
	second, err := consumer.Next()
	if err != nil || string(second.Data()) != "two" {
		t.Errorf("the second event is gone: %v", err)
	}
}

// tries gives one order by all that a thief may say.
func (m member) tries(t *testing.T, order string, nobody subject.Address) {
	t.Helper()
	for on, payload := range m.ways(nobody) {
		plain := nats.NewMsg(on)
		plain.Reply, plain.Data = order, payload
		traced := nats.NewMsg(on)
		traced.Reply, traced.Data = m.inbox(), payload
		traced.Header.Set("Nats-Trace-Dest", order)
		for _, msg := range []*nats.Msg{plain, traced} {
			if err := m.conn.PublishMsg(msg); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Contains(payload, []byte("durable_name")) {
			continue
		}
		answer, err := m.conn.Request(on, m.consumer(order), 5*time.Second)
		if err != nil {
			t.Fatalf("%s: %v", on, err)
		}
		if code := refusal(t, answer.Data); code == 0 {
			t.Errorf("%s: a consumer delivers to %s", on, order)
		}
	}
	if err := m.conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

// refusal returns the code of an answer that says no, 0 of another.
func refusal(t *testing.T, raw []byte) int {
	t.Helper()
	var answer struct{ Error struct{ Code int } }
	if err := json.Unmarshal(raw, &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Error.Code
}

// TestConsumersAreBounded: one that nobody reads from does not stay for ever, and none is so hasty
// that the broker sends it one event again and again.
func TestConsumersAreBounded(t *testing.T) {
	cfg := config(t)
	cfg.Age = time.Hour
	b := start(t, cfg, broker.Deps{Instances: cert.Verifier{Chains: []string{"main"}}})
	m := admitted(t, b, 1)
	c := m.follow(t)
	if got := c.CachedInfo().Config.InactiveThreshold; got != 2*time.Hour {
		t.Errorf("it is removed after %v, want 2h", got)
	}
	for name, change := range map[string]func(*jetstream.ConsumerConfig){
		"hasty":  func(c *jetstream.ConsumerConfig) { c.AckWait = time.Millisecond },
		"greedy": func(c *jetstream.ConsumerConfig) { c.MaxAckPending = 1 << 20 },
		"all":    func(c *jetstream.ConsumerConfig) { c.MaxAckPending = -1 },
	} {
		wanted := jetstream.ConsumerConfig{Durable: m.name, AckPolicy: jetstream.AckExplicitPolicy}
		change(&wanted)
		if _, err := m.js.CreateOrUpdateConsumer(t.Context(), stream, wanted); err == nil {
			t.Errorf("a consumer that is %s is made", name)
		}
	}
}

// TestAnswersGoToWhoAsked: what the streams answer goes to no inbox but the asker's.
func TestAnswersGoToWhoAsked(t *testing.T) {
	b := start(t, config(t), broker.Deps{Instances: cert.Verifier{Chains: []string{"main"}}})
	victim, thief := admitted(t, b, 1), admitted(t, b, 2)
	inbox := victim.inbox()
	heard, err := victim.conn.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	thief.follow(t)
	of := stream + "." + thief.name
	for _, on := range []string{
		"$JS.API.CONSUMER.MSG.NEXT." + of, "$JS.API.CONSUMER.INFO." + of,
		"$JS.API.CONSUMER.CREATE." + of, thief.at.Event("job", "attempt.changed"),
		"$JS.ACK." + of + ".1.1.1.1.0",
	} {
		if err := thief.conn.PublishRequest(on, inbox, nil); err != nil {
			t.Fatal(err)
		}
	}
	thief.say(t, "behind them")
	victim.say(t, "behind them")
	if n, _, err := heard.Pending(); err != nil || n != 0 {
		t.Errorf("the victim heard %d answers, %v", n, err)
	}
}

// TestAFloodIsBounded: one operator cannot fill the streams; the others go on.
func TestAFloodIsBounded(t *testing.T) {
	cfg := config(t)
	cfg.EventRate = event.MaxEnvelope
	b := start(t, cfg, broker.Deps{Instances: cert.Verifier{Chains: []string{"main"}}})
	flooder, other := admitted(t, b, 1), admitted(t, b, 2)
	on, payload := flooder.at.Event("job", "attempt.changed"), make([]byte, event.MaxPayload)
	code, sent := 0, 0
	for ; code == 0 && sent < 1000; sent++ {
		answer, err := flooder.conn.Request(on, payload, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		code = refusal(t, answer.Data)
	}
	if code != 429 || sent < 30 {
		t.Errorf("after %d events the answer is %d, want 429 after some 32", sent, code)
	}
	other.say(t, "not bound by it")
	own, err := b.Connect("own")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	js, err := jetstream.New(own)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), on, payload); err != nil {
		t.Errorf("an own service: %v", err)
	}
}
