package broker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/id"
)

// Bounds of what the warden carries.
const (
	maxCarried      = 1 << 14  // messages of one pattern that wait; beyond, they are dropped
	maxCarriedBytes = 32 << 20 // and their bytes
	maxOrder        = 32 << 10 // bytes of a request to JetStream
	maxEventID      = 128      // bytes of the id by which an event is known again
	maxInbox        = 256      // bytes of a reply subject

	minAckWait     = time.Second // before an event is sent to a consumer again
	mostAckPending = 1 << 16     // events that a consumer may have in hand

	refusedCode = 403
	tooMuchCode = 429
)

// The API of JetStream that the warden carries; nothing else of it can be reached.
const (
	apiStreamInfo    = "$JS.API.STREAM.INFO.*"
	apiStreamNames   = "$JS.API.STREAM.NAMES"
	apiGet           = "$JS.API.STREAM.MSG.GET.*"
	apiDirect        = "$JS.API.DIRECT.GET.>"
	apiCreate        = "$JS.API.CONSUMER.CREATE."
	apiDurableCreate = "$JS.API.CONSUMER.DURABLE.CREATE."
	apiConsumerInfo  = "$JS.API.CONSUMER.INFO."
	apiNext          = "$JS.API.CONSUMER.MSG.NEXT."
	apiAck           = "$JS.ACK."

	backward = "_WARDEN." // in the streams' account: before what follows InboxPrefix
)

// warden is the only way from the account where everybody talks to the account where the streams
// are. A NATS server does not ask whether who sends a message may publish on the subject that it
// names for the answer; the warden does: an answer goes to an inbox of the instance that the
// subject names and nowhere else. Headers stay behind, since some of them are orders, and of a
// consumer's configuration only what event.Consumer needs passes.
//
// Messages and receipts that streams send to inboxes reach their owners through a stream import.
// Answers of JetStream's API do not pass imports, so the warden carries those back.
type warden struct {
	in, out *nats.Conn
	own     string // inbox prefix of own services; nobody else knows it
	shares  *shares
	// inactive is after which time a consumer that nobody reads from is removed: nobody takes back
	// those of instances that are gone.
	inactive  time.Duration
	roster    *roster
	consumers *consumers
	log       *slog.Logger
}

// carry makes one message fit to pass, or nil if it may not. part is what follows the API's name.
type carry func(m *nats.Msg, part string) *nats.Msg

// guard subscribes to all that passes.
func (w *warden) guard(services []string) error {
	sub, err := w.out.Subscribe(backward+">", w.back)
	if err != nil {
		return fmt.Errorf("carry answers back: %w", err)
	}
	if err := sub.SetPendingLimits(maxCarried, maxCarriedBytes); err != nil {
		return fmt.Errorf("carry answers back: %w", err)
	}
	if err := w.out.FlushTimeout(startTimeout); err != nil {
		return fmt.Errorf("carry answers back: %w", err)
	}
	for on, how := range map[string]carry{
		apiStreamInfo: w.look, apiStreamNames: w.look, apiGet: w.look, apiDirect: w.read,
	} {
		if err := w.take(on, "", how); err != nil {
			return err
		}
	}
	for begin, how := range map[string]carry{
		apiCreate: w.create, apiDurableCreate: w.create, apiConsumerInfo: w.inspect,
		apiNext: w.use, apiAck: w.acknowledge,
	} {
		if err := w.take(begin+"*.>", begin, how); err != nil {
			return err
		}
	}
	for _, service := range services {
		for _, topic := range event.Topics() {
			if err := w.take(subject.Events(service, string(topic)), "", w.event); err != nil {
				return err
			}
		}
	}
	if err := w.in.FlushTimeout(startTimeout); err != nil {
		return fmt.Errorf("guard the streams: %w", err)
	}
	return nil
}

// back carries an answer of the API to the inbox that asked.
func (w *warden) back(m *nats.Msg) {
	to := bus.InboxPrefix + strings.TrimPrefix(m.Subject, backward)
	if err := w.in.Publish(to, m.Data); err != nil {
		w.log.Warn("an answer of the streams is lost", "error", err)
	}
}

// ask makes a request to the API whose answer comes back.
func ask(m *nats.Msg, raw []byte) *nats.Msg {
	reply := backward + strings.TrimPrefix(m.Reply, bus.InboxPrefix)
	return &nats.Msg{Subject: m.Subject, Reply: reply, Data: raw}
}

func (w *warden) take(on, begin string, how carry) error {
	sub, err := w.in.Subscribe(on, func(m *nats.Msg) {
		passes := how(m, strings.TrimPrefix(m.Subject, begin))
		if passes == nil {
			w.log.Debug("a message does not pass to the streams", "subject", m.Subject)
			return
		}
		if err := w.out.PublishMsg(passes); err != nil {
			w.log.Warn("a message does not reach the streams", "error", err)
		}
	})
	if err != nil {
		return fmt.Errorf("guard %s: %w", on, err)
	}
	if err := sub.SetPendingLimits(maxCarried, maxCarriedBytes); err != nil {
		return fmt.Errorf("guard %s: %w", on, err)
	}
	return nil
}

// read lets anyone look, who has an inbox to look from.
func (w *warden) read(m *nats.Msg, _ string) *nats.Msg {
	if len(m.Data) > maxOrder || !isInbox(m.Reply) {
		return nil
	}
	return &nats.Msg{Subject: m.Subject, Reply: m.Reply, Data: m.Data}
}

// look lets anyone ask the API about streams.
func (w *warden) look(m *nats.Msg, part string) *nats.Msg {
	if w.read(m, part) == nil {
		return nil
	}
	return ask(m, m.Data)
}

// inspect lets the owner of a consumer ask the API about it.
func (w *warden) inspect(m *nats.Msg, part string) *nats.Msg {
	if w.use(m, part) == nil {
		return nil
	}
	return ask(m, m.Data)
}

// use lets the owner of a consumer ask for its messages.
func (w *warden) use(m *nats.Msg, part string) *nats.Msg {
	if !w.answers(m.Reply, owner(part)) {
		return nil
	}
	return w.read(m, part)
}

// acknowledge lets the owner of a consumer say what became of a message; it may want no answer.
func (w *warden) acknowledge(m *nats.Msg, part string) *nats.Msg {
	if m.Reply == "" && len(m.Data) <= maxOrder {
		return &nats.Msg{Subject: m.Subject, Data: m.Data}
	}
	return w.use(m, part)
}

// event lets an instance say something, within its operator's share. Its id counts among its own
// events only: nobody can use up the id of another's.
func (w *warden) event(m *nats.Msg, _ string) *nats.Msg {
	e, err := subject.ParseEvent(m.Subject)
	from, named := subject.Instance(e.Instance), m.Header.Get(jetstream.MsgIDHeader)
	if err != nil || !w.answers(m.Reply, from) || len(named) > maxEventID {
		return nil
	}
	if !w.isOwn(m.Reply) && !w.shares.take(e.Operator, len(m.Data)+len(m.Subject)) {
		w.refuse(m, pubAck, tooMuchCode, "events of this operator come too fast")
		return nil
	}
	passes := nats.NewMsg(m.Subject)
	passes.Reply, passes.Data = m.Reply, m.Data
	if named != "" {
		passes.Header.Set(jetstream.MsgIDHeader, from+":"+named)
	}
	return passes
}

// order is what may be asked of a consumer: it is pulled from, so that it publishes nowhere by
// itself.
type order struct {
	Stream string `json:"stream_name"`
	Config struct {
		Durable        string                  `json:"durable_name"`
		Name           string                  `json:"name,omitempty"`
		Description    string                  `json:"description,omitempty"`
		DeliverPolicy  jetstream.DeliverPolicy `json:"deliver_policy"`
		AckPolicy      jetstream.AckPolicy     `json:"ack_policy"`
		AckWait        int64                   `json:"ack_wait,omitempty"` // nanoseconds
		MaxDeliver     int                     `json:"max_deliver,omitempty"`
		MaxAckPending  int                     `json:"max_ack_pending,omitempty"`
		ReplayPolicy   jetstream.ReplayPolicy  `json:"replay_policy"`
		FilterSubject  string                  `json:"filter_subject,omitempty"`
		FilterSubjects []string                `json:"filter_subjects,omitempty"`
		Replicas       int                     `json:"num_replicas"`
		Inactive       time.Duration           `json:"inactive_threshold,omitempty"` // ours to say
	} `json:"config"`
	Action string `json:"action,omitempty"`
}

// create lets an instance open the consumer that bears its name.
func (w *warden) create(m *nats.Msg, part string) *nats.Msg {
	if w.use(m, part) == nil {
		return nil
	}
	var o order
	decoder := json.NewDecoder(bytes.NewReader(m.Data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&o); err != nil {
		w.refuse(m, created, refusedCode, "this broker makes no such consumer")
		return nil
	}
	c := &o.Config
	if c.AckWait != 0 && c.AckWait < int64(minAckWait) || c.MaxAckPending < 0 ||
		c.MaxAckPending > mostAckPending {
		w.refuse(m, created, refusedCode, "this broker makes no consumer that is so hasty or greedy")
		return nil
	}
	c.Inactive, c.Description = w.inactive, ""
	if !w.isOwn(m.Reply) {
		if c.Description = w.counts(m, part); c.Description == "" {
			return nil
		}
	}
	raw, err := json.Marshal(o)
	if err != nil {
		w.refuse(m, created, refusedCode, "this broker makes no such consumer")
		return nil
	}
	return ask(m, raw)
}

// counts counts a consumer among its operator's and returns the operator's name for its
// description; "" for one that was refused.
func (w *warden) counts(m *nats.Msg, part string) string {
	operator, known := w.roster.operator(owner(part))
	if !known {
		w.refuse(m, created, tooMuchCode, "this operator has too many instances: connect again")
		return ""
	}
	admitted, err := w.consumers.admit(operator, consumer(part))
	if err != nil {
		w.log.Error("consumers are not counted", "error", err)
		w.refuse(m, created, tooMuchCode, "consumers cannot be counted now")
		return ""
	}
	if !admitted {
		w.refuse(m, created, tooMuchCode, "instances of this operator have too many consumers")
		return ""
	}
	return id.Bech32(id.Account, operator)
}

// What a refusal answers, in JetStream's words.
const (
	created = "io.nats.jetstream.api.v1.consumer_create_response"
	pubAck  = "io.nats.jetstream.api.v1.pub_ack_response"
)

// refuse answers in JetStream's words. The reply subject has been looked at.
func (w *warden) refuse(m *nats.Msg, kind string, code int, why string) {
	raw := fmt.Appendf(nil, `{"type":%q,"error":{"code":%d,"description":%q}}`, kind, code, why)
	if err := w.in.Publish(m.Reply, raw); err != nil {
		w.log.Warn("a refusal is not sent", "error", err)
	}
}

// owner returns the instance in "<stream>.<service>-<instance>[.more]", "" without one.
func owner(part string) string {
	_, rest, _ := strings.Cut(part, ".")
	name, _, _ := strings.Cut(rest, ".")
	_, instance, _ := strings.Cut(name, "-")
	return instance
}

// consumer returns "<stream>.<name>" of "<stream>.<name>[.more]".
func consumer(part string) string {
	stream, rest, _ := strings.Cut(part, ".")
	name, _, _ := strings.Cut(rest, ".")
	return stream + "." + name
}

// answers reports whether an answer on the subject reaches the instance or an own service, and
// nobody else.
func (w *warden) answers(reply, instance string) bool {
	return w.isOwn(reply) || isInbox(reply) &&
		instance != "" && strings.HasPrefix(reply, bus.InboxPrefix+instance+".")
}

func (w *warden) isOwn(reply string) bool {
	return isInbox(reply) && strings.HasPrefix(reply, w.own+".")
}

// isInbox reports whether text is an inbox: below the prefix, in plain tokens, without wildcards.
func isInbox(text string) bool {
	rest, ok := strings.CutPrefix(text, bus.InboxPrefix)
	if !ok || len(text) > maxInbox {
		return false
	}
	for token := range strings.SplitSeq(rest, ".") {
		if token == "" || strings.IndexFunc(token, notInboxRune) >= 0 {
			return false
		}
	}
	return true
}

func notInboxRune(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') &&
		c != '-' && c != '_'
}
