package event

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/united-containers/ucn/chain/canon"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
)

// How a Publisher works.
const (
	publishWindow = 256                    // envelopes on their way to the broker at once
	ackWait       = 5 * time.Second        // for the broker's word on one window
	firstRetry    = 50 * time.Millisecond  // after a failure; doubled each time
	lastRetry     = 15 * time.Second       // the longest wait between tries
	idlePoll      = 500 * time.Millisecond // between looks at an outbox that said nothing
	firstPoll     = time.Millisecond       // after Changed, until the transaction has committed
	announceEvery = 24 * time.Hour         // well within the age of a stream
)

// PublisherConfig names what a Publisher works with.
type PublisherConfig struct {
	Queue     Queue               // required
	Signer    *Signer             // required
	JetStream jetstream.JetStream // required
	Limits    Limits              // of the stream, if it must be created
	// Epoch is the operator's word that the instance was restored, canonical bytes of an
	// EpochNotice; its lines go on in the new epoch. nil after no restore. It may stay.
	Epoch []byte
	Clock func() time.Time // nil means time.Now
	Log   *slog.Logger     // nil logs nothing
}

// Publisher drains one outbox, in order, to the stream of its service. At each start and once a
// day it also announces the instance's certificate. Broker trouble only delays it: envelopes wait
// in the outbox. There must be one Publisher per outbox. One whose outbox is older than what it
// said before, by the stream, says nothing (ErrRestored) until it is given a new epoch.
type Publisher struct {
	cfg       PublisherConfig
	begun     bool // it was made sure that the outbox is no old backup
	announced time.Time
}

// NewPublisher returns a Publisher; nothing runs yet.
func NewPublisher(cfg PublisherConfig) (*Publisher, error) {
	if cfg.Queue == nil || cfg.Signer == nil || cfg.JetStream == nil {
		return nil, errors.New("new event publisher: queue, signer and JetStream are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Publisher{cfg: cfg}, nil
}

// Run publishes until ctx ends; it implements kit/run.Component. It calls ready at once, because
// nobody needs to wait for the broker. It returns an error only if the outbox holds what it never
// can have written.
func (p *Publisher) Run(ctx context.Context, ready func()) error {
	ready()
	retry, poll := firstRetry, idlePoll
	for ctx.Err() == nil {
		if !p.cfg.JetStream.Conn().IsConnected() { // whoever made the connection tells of it
			sleep(ctx, firstRetry)
			continue
		}
		worked, err := p.step(ctx)
		switch {
		case errors.Is(err, errCorrupt):
			return err
		case err != nil && ctx.Err() == nil:
			p.cfg.Log.WarnContext(ctx, "events wait", "error", err, "retry_in", retry)
			sleep(ctx, retry)
			retry = min(2*retry, lastRetry)
		case worked:
			retry, poll = firstRetry, firstPoll
		default:
			poll = p.wait(ctx, poll)
		}
	}
	return nil
}

// errCorrupt says that the outbox returned what was never put in.
var errCorrupt = errors.New("outbox is corrupt")

// wait blocks until the outbox may have changed, and returns how long to wait the next time: an
// outbox tells of an Append before its transaction commits, so the first looks come quickly.
func (p *Publisher) wait(ctx context.Context, poll time.Duration) time.Duration {
	timer := time.NewTimer(poll)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
		return min(2*poll, idlePoll)
	case <-p.cfg.Queue.Changed():
	}
	return firstPoll
}

// step signs what waits and sends what is signed, at most MaxPending of each.
func (p *Publisher) step(ctx context.Context) (worked bool, err error) {
	if !p.begun {
		if err := p.begin(ctx); err != nil {
			return false, err
		}
	}
	pending, err := p.cfg.Queue.Pending(ctx)
	if err != nil {
		return false, fmt.Errorf("read outbox: %w", err)
	}
	if len(pending.Unsent) > 0 {
		return true, p.send(ctx, pending.Unsent)
	}
	now := p.cfg.Clock()
	announce := now.Sub(p.announced) >= announceEvery
	sealed, err := p.sign(pending, now, announce)
	if err != nil || len(sealed) == 0 {
		return false, err
	}
	if err := p.cfg.Queue.Seal(ctx, sealed); err != nil {
		return false, fmt.Errorf("write signed events: %w", err)
	}
	if announce {
		p.announced = now
	}
	return true, nil
}

// sign gives every draft its place, the announcement first when it is due.
func (p *Publisher) sign(pending Pending, now time.Time, announce bool) ([]Sealed, error) {
	drafts := pending.Drafts
	if announce {
		notice, err := p.announcement(now)
		if err != nil {
			return nil, err
		}
		drafts = append([]Draft{{Event: notice}}, drafts...)
	}
	heads := map[Topic]Head{}
	sealed := make([]Sealed, 0, len(drafts))
	for _, d := range drafts {
		head, ok := heads[d.Event.Topic]
		if !ok {
			head = pending.Heads[d.Event.Topic]
		}
		e, err := p.cfg.Signer.Sign(d.Event, head)
		if err != nil {
			return nil, fmt.Errorf("%w: sign draft %d: %w", errCorrupt, d.Position, err)
		}
		heads[d.Event.Topic] = Head{Epoch: e.Body.Epoch, Seq: e.Body.Seq, Hash: e.Hash}
		sealed = append(sealed, Sealed{Draft: d.Position, Envelope: e})
	}
	return sealed, nil
}

func (p *Publisher) announcement(now time.Time) (Event, error) {
	notice := &eventv1.CertificateNotice{Certificate: new(identityv1.Certificate)}
	err := canon.Unmarshal(p.cfg.Signer.Certificate(), notice.Certificate)
	if err != nil {
		return Event{}, fmt.Errorf("%w: decode certificate: %w", errCorrupt, err)
	}
	payload, err := canon.Marshal(notice)
	if err != nil {
		return Event{}, fmt.Errorf("%w: encode certificate: %w", errCorrupt, err)
	}
	return Event{
		Topic: TopicOperator, Type: TypeCertificateIssued, Time: now, Payload: payload,
	}, nil
}

// send publishes window by window. What was acknowledged is marked even if a later one failed.
func (p *Publisher) send(ctx context.Context, unsent []Unsent) error {
	for len(unsent) > 0 {
		window := unsent[:min(len(unsent), publishWindow)]
		through, err := p.sendWindow(ctx, window)
		if through > 0 {
			if err := p.cfg.Queue.Sent(ctx, through); err != nil {
				return fmt.Errorf("mark events sent: %w", err)
			}
		}
		if err != nil {
			return err
		}
		unsent = unsent[len(window):]
	}
	return nil
}

// sendWindow publishes a window without waiting in between and returns the position of the last
// envelope before the first that failed. Sending some again is harmless: the bytes are the same,
// and the broker knows them by their id.
func (p *Publisher) sendWindow(ctx context.Context, window []Unsent) (through uint64, err error) {
	futures := make([]jetstream.PubAckFuture, 0, len(window))
	for _, u := range window {
		m, err := p.message(u)
		if err != nil {
			return 0, err
		}
		future, err := p.cfg.JetStream.PublishMsgAsync(m,
			jetstream.WithRetryAttempts(0), jetstream.WithExpectStream(p.stream()))
		if err != nil {
			return 0, fmt.Errorf("publish event: %w", err)
		}
		futures = append(futures, future)
	}
	ctx, cancel := context.WithTimeout(ctx, ackWait)
	defer cancel()
	for i, future := range futures {
		if err := p.await(ctx, future); err != nil {
			return through, err
		}
		through = window[i].Position
	}
	return through, nil
}

func (p *Publisher) await(ctx context.Context, future jetstream.PubAckFuture) error {
	select {
	case <-future.Ok():
		return nil
	case err := <-future.Err():
		if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) {
			return errors.Join(err, p.ensure(ctx))
		}
		return fmt.Errorf("publish event: %w", err)
	case <-ctx.Done():
		return fmt.Errorf("await the broker's word: %w", ctx.Err())
	}
}

// ensure creates the stream when nothing takes the events, such as after the broker lost its disk.
func (p *Publisher) ensure(ctx context.Context) error {
	return EnsureStream(ctx, p.cfg.JetStream, p.cfg.Signer.Address().Service, p.cfg.Limits)
}

func (p *Publisher) stream() string { return StreamName(p.cfg.Signer.Address().Service) }

func (p *Publisher) message(u Unsent) (*nats.Msg, error) {
	e, err := Decode(u.Raw)
	if err != nil {
		return nil, fmt.Errorf("%w: envelope %d: %w", errCorrupt, u.Position, err)
	}
	m := nats.NewMsg(p.cfg.Signer.Subject(e))
	m.Data = u.Raw
	m.Header.Set(jetstream.MsgIDHeader, hex.EncodeToString(e.Hash[:]))
	return m, nil
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
