package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/event/refetch"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// Bounds of event ls.
const (
	defaultEvents = 50
	maxEvents     = 10_000
	beyondAll     = 1 << 62 // a seq that no line reaches: asks for the places alone
)

// saidLine is one line of event ls.
type saidLine struct {
	Time    uint64          `json:"time_ms"`
	Topic   event.Topic     `json:"topic"`
	Epoch   uint64          `json:"epoch"`
	Seq     uint64          `json:"seq"`
	Type    string          `json:"type"`
	Chain   string          `json:"chain,omitempty"`
	Payload json.RawMessage `json:"payload,omitempty"` // of types that are known
	Hash    string          `json:"hash"`
	Signed  bool            `json:"signed"`           // and follows the one before
	Unproof string          `json:"reason,omitempty"` // why not

	what string
}

// eventQuery is what event ls is asked for.
type eventQuery struct {
	topic, kind string
	epoch       uint64
	limit       int
}

func (a *app) eventList() *cobra.Command {
	q := eventQuery{limit: defaultEvents}
	cmd := &cobra.Command{
		Use: "ls HOST|scheduler|storage", Aliases: []string{"list"},
		Short: "Show what an instance of the wallet's told the world, with signatures",
		Long: `Show what one of the operator's instances said, oldest first: a host by its name or key,
the scheduler, or the storage. Each line is an event that the instance signed; signature and place
in the line are verified here. policy.changed tells that a host's policy was set by command.

An instance keeps its newest 65,536 events of each topic.`,
		Example: "  ucn event ls alpha-1 --wallet alpha --topic operator\n" +
			"  ucn event ls scheduler --wallet alpha --type job.ended --json",
		Args: args(cobra.ExactArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			if err := q.check(); err != nil {
				return err
			}
			r, err := l.eventReader(ctx, list[0])
			if err != nil {
				return err
			}
			lines, err := r.read(ctx, q)
			if err != nil {
				return err
			}
			return a.emit(lines, func(w io.Writer) { printSaid(w, lines) })
		}),
	}
	f := cmd.Flags()
	f.StringVar(&q.topic, "topic", "", "only market, money, job or operator")
	f.StringVar(&q.kind, "type", "", "only this type, such as policy.changed")
	f.Uint64Var(&q.epoch, "epoch", 0, "of this epoch (default: the newest)")
	f.IntVar(&q.limit, "limit", q.limit, "the newest of each topic, at most 10000")
	return cmd
}

func (q eventQuery) check() error {
	if q.limit < 1 || q.limit > maxEvents {
		return usagef("--limit is %d, allowed 1 to %d", q.limit, maxEvents)
	}
	if q.topic != "" && !event.Topic(q.topic).Valid() {
		return usagef("--topic is %.40q, allowed market, money, job, operator", q.topic)
	}
	return nil
}

func printSaid(w io.Writer, lines []saidLine) {
	printf(w, "TIME\tTOPIC\tPLACE\tTYPE\tSIGNED\tWHAT\n")
	for _, e := range lines {
		signed := "yes"
		if !e.Signed {
			signed = "no: " + screen.Clean(e.Unproof)
		}
		printf(w, "%s\t%s\t%d/%d\t%s\t%s\t%s\n", stamp(e.Time), e.Topic, e.Epoch, e.Seq, e.Type,
			signed, screen.Fit(screen.Clean(e.what), 80))
	}
}

// eventReader reads and verifies what one instance said.
type eventReader struct {
	client   *bus.Client
	from     bus.Target
	known    *event.Directory
	verifier *event.Verifier
}

// eventReader finds an instance of the wallet's.
func (l *link) eventReader(ctx context.Context, name string) (*eventReader, error) {
	certificate, service, err := l.papers(ctx, name)
	if err != nil {
		return nil, err
	}
	r := &eventReader{known: event.NewDirectory(event.JudgeBy(l.Judge()), l.Now)}
	if r.from, err = l.Instance(ctx, certificate, service); err != nil {
		return nil, err
	}
	if r.client, err = l.Operate(r.from); err != nil {
		return nil, err
	}
	r.learn(ctx, certificate)
	r.verifier = event.NewVerifier(event.VerifierConfig{Certificates: r.known, Clock: l.Now})
	return r, nil
}

// papers returns the certificate of an instance, and what service it is.
func (l *link) papers(ctx context.Context, name string) (*identityv1.Certificate, string, error) {
	switch name {
	case "scheduler":
		answer, err := l.Scheduler.GetScheduler(ctx, &schedulerv1.GetSchedulerRequest{})
		return answer.GetCertificate(), name, err
	case storageService:
		answer, err := l.Storage.ListEvents(ctx, &storagev1.ListEventsRequest{})
		if err != nil {
			return nil, name, err
		}
		m := &identityv1.Certificate{}
		return m, name, canon.Unmarshal(answer.GetCertificate(), m)
	}
	offer, err := l.ownHost(ctx, name)
	return offer.GetCertificate(), "executor", err
}

func (r *eventReader) learn(ctx context.Context, m *identityv1.Certificate) {
	if m == nil {
		return
	}
	if raw, err := canon.Marshal(proto.CloneOf(m)); err == nil {
		r.known.Learn(ctx, raw)
	}
}

// read returns what was said, by time. The topic operator, in which the instance tells its earlier
// certificates, is read first.
func (r *eventReader) read(ctx context.Context, q eventQuery) ([]saidLine, error) {
	topics := event.Topics()
	slices.Reverse(topics)
	lines := []saidLine{}
	for _, topic := range topics {
		if q.topic != "" && event.Topic(q.topic) != topic {
			continue
		}
		of, err := r.topic(ctx, topic, q)
		if err != nil {
			return nil, err
		}
		lines = append(lines, of...)
	}
	slices.SortStableFunc(lines, func(a, b saidLine) int { return cmp.Compare(a.Time, b.Time) })
	return lines, nil
}

func (r *eventReader) fetch(
	ctx context.Context, topic event.Topic, epoch, from uint64,
) (*eventv1.FetchResponse, error) {
	out := &eventv1.FetchResponse{}
	return out, r.client.Call(ctx, r.from, refetch.Method, &eventv1.FetchRequest{
		Topic: string(topic), Epoch: epoch, From: from,
	}, out)
}

// topic returns the newest events of a topic that are asked for, oldest first.
func (r *eventReader) topic(
	ctx context.Context, topic event.Topic, q eventQuery,
) ([]saidLine, error) {
	at, err := r.fetch(ctx, topic, q.epoch, beyondAll)
	if err != nil || at.GetOldest() == 0 {
		return nil, err
	}
	epoch, next := cmp.Or(q.epoch, at.GetEpoch()), at.GetOldest()
	if n := uint64(q.limit); q.kind == "" && epoch == at.GetEpoch() && at.GetNewest() >= n {
		next = max(next, at.GetNewest()-n+1)
	}
	var lines []saidLine
	var last *event.Envelope
	for range maxPages {
		page, err := r.fetch(ctx, topic, epoch, next)
		if err != nil {
			return nil, err
		}
		if len(page.GetEnvelopes()) == 0 {
			break
		}
		of, err := r.verify(ctx, page.GetEnvelopes(), &last)
		if err != nil {
			return nil, err
		}
		next = last.Body.Seq + 1
		for _, e := range of {
			if q.kind == "" || e.Type == q.kind {
				lines = append(lines, e)
			}
		}
		lines = lines[max(len(lines)-q.limit, 0):]
	}
	return lines, nil
}

// verify judges envelopes that should follow last, which becomes the last of them.
func (r *eventReader) verify(
	ctx context.Context, envelopes [][]byte, last **event.Envelope,
) ([]saidLine, error) {
	received := make([]event.Received, len(envelopes))
	for i, raw := range envelopes {
		e, err := event.Decode(raw)
		if err != nil {
			return nil, fmt.Errorf("what the instance sent: %w", err)
		}
		received[i] = event.Received{Subject: r.from.Event(e.Body.Topic, e.Body.Type), Data: raw}
		if m := (&eventv1.CertificateNotice{}); e.Body.Type == event.TypeCertificateIssued &&
			e.Payload(m) == nil {
			r.learn(ctx, m.GetCertificate())
		}
	}
	lines := make([]saidLine, len(envelopes))
	for i, v := range r.verifier.Verify(ctx, received) {
		if v.Envelope == nil {
			return nil, fmt.Errorf("what the instance sent: %w", v.Err)
		}
		lines[i] = saidLineOf(v.Envelope)
		before := *last
		switch {
		case v.Err != nil:
			lines[i].Unproof = v.Err.Error()
		case before != nil && (string(v.Envelope.Body.Prev) != string(before.Hash[:]) ||
			v.Envelope.Body.Seq != before.Body.Seq+1):
			lines[i].Unproof = "it does not follow the one before"
		default:
			lines[i].Signed = true
		}
		*last = v.Envelope
	}
	return lines, nil
}

func saidLineOf(e *event.Envelope) saidLine {
	b := e.Body
	line := saidLine{
		Time: b.Time, Topic: event.Topic(b.Topic), Epoch: b.Epoch, Seq: b.Seq, Type: b.Type,
		Chain: b.Chain, Hash: hex.EncodeToString(e.Hash[:]),
	}
	m := payloadOf(line.Topic, b.Type)
	if m == nil || e.Payload(m) != nil {
		return line
	}
	if raw, err := rawJSON(m); err == nil {
		line.Payload, line.what = raw, whatOf(m, raw)
	}
	return line
}

// payloadOf returns the message that a type of event carries, nil for one that is not known here.
func payloadOf(topic event.Topic, kind string) proto.Message {
	switch kind {
	case "offer.posted":
		return &marketv1.Offer{}
	case "attempt.changed":
		return &jobv1.AttemptStatus{}
	case "policy.changed":
		return &executorv1.PolicyChanged{}
	case "file.changed":
		return &storagev1.FileChange{}
	case event.TypeCertificateIssued:
		return &eventv1.CertificateNotice{}
	case event.TypeEpochOpened:
		return &eventv1.EpochNotice{}
	case event.TypeForkFound:
		return &eventv1.ForkNotice{}
	}
	if topic == event.TopicJob { // of a scheduler
		return &jobv1.JobChange{}
	}
	return nil
}

// whatOf words a payload for a person.
func whatOf(m proto.Message, raw json.RawMessage) string {
	p, isPolicy := m.(*executorv1.PolicyChanged)
	if !isPolicy {
		var one bytes.Buffer
		_ = json.Compact(&one, raw) // protojson wrote it; it spaces at random
		return one.String()
	}
	longest := "any run time"
	if p.GetMaxRunTimeMs() > 0 {
		longest = "runs up to " + (time.Duration(p.GetMaxRunTimeMs()) * time.Millisecond).String()
	}
	return fmt.Sprintf("version %d, %d entries, %s, hash %x", p.GetVersion(), p.GetEntries(), longest,
		p.GetHash())
}
