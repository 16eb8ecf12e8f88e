package event

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/united-containers/ucn/kit/bus/subject"
)

// How a Consumer works.
const (
	consumeBatch  = 256              // messages verified and handled together
	maxAckPending = 4096             // messages the broker hands out without a word from us
	ackPatience   = 5 * time.Second  // after which the broker hands a message out again
	gapPatience   = 30 * time.Second // how long a line may wait for what its sender owes
	firstHold     = 20 * time.Millisecond
	maxHold       = 5 * time.Second
	maxHeld       = 1024     // messages of one line that wait behind a gap
	maxParked     = 64 << 20 // bytes of all messages that do
	MaxRefetched  = 4096     // envelopes a gap hook may return at once
)

// Handler takes one event. Whatever it changes goes into tx; it may be called again for the same
// event with another tx if this one does not commit. An error that wraps ErrRefused moves on
// without effect; any other stops this consumer until a later try works. ctx holds the span of the
// handling, whose parent is the span that said the event.
type Handler[Tx any] func(ctx context.Context, tx Tx, e Incoming) error

// Incoming is a verified envelope in its right order.
type Incoming struct {
	*Envelope
	Operator [32]byte // whose certificate the instance has
	Service  string
}

// ConsumerConfig says what a Consumer reads and what it does with it.
type ConsumerConfig[Tx any] struct {
	JetStream jetstream.JetStream // required
	// Service whose instances are followed. Required.
	Service string
	// Topics to follow; empty means all. Whole topics only: the line of a topic has no gaps, a
	// selection of its types has.
	Topics []Topic
	// Durable names this consumer at the broker: what DurableName returns, or an instance that logs
	// in with its certificate is not let through. Required.
	Durable  string
	Verifier *Verifier   // required
	Cursors  Cursors[Tx] // required
	Handle   Handler[Tx] // required
	// OnGap is asked for the envelopes that are missing, oldest first, or a first part of them; they
	// are verified like any other. An empty answer or an error lets the event wait a while, in case
	// the broker only reordered; *LostError goes on at the oldest that the owner keeps. It is called
	// beside the handler, by several goroutines. nil waits.
	OnGap func(ctx context.Context, gap *GapError) ([]Received, error)
	// OnLost is told what the owner does not keep any more, so that the state it told of is asked
	// for by name. nil logs it.
	OnLost func(ctx context.Context, lost *LostError)
	// OnFork is told of a proven fork, with its Evidence, once that is in the store. The
	// contradicting envelope has no effect and its line is followed no more until a new epoch.
	OnFork func(ctx context.Context, fork *ForkError)
	// Outbox, of the store of Cursors, says "fork.found" to the world. nil says nothing.
	Outbox Outbox[Tx]
	// Tracer makes a span per event handled; nil makes none.
	Tracer trace.Tracer
	Log    *slog.Logger // nil logs nothing
}

// Consumer follows the events of one service kind. Make it with NewConsumer.
type Consumer[Tx any] struct {
	cfg     ConsumerConfig[Tx]
	cursors map[Line]Cursor // committed cursors, as far as read; used by Run's goroutine only
	parked  *park           // what came before those it follows
	passed  *passed         // what took effect, behind the cursors
	fetcher *fetcher
	stuck   map[Line]time.Time // since when a line waits for its sender
	doubted map[Line]time.Time // when its owner was last asked about a passed place
}

// maxLines bounds the cursors kept in memory; they are read again when they are needed.
const maxLines = 1 << 14

// NewConsumer returns a Consumer; nothing runs yet.
func NewConsumer[Tx any](cfg ConsumerConfig[Tx]) (*Consumer[Tx], error) {
	if cfg.JetStream == nil || cfg.Verifier == nil || cfg.Cursors == nil || cfg.Handle == nil {
		return nil, errors.New(
			"new event consumer: JetStream, verifier, cursors and handler are required")
	}
	if !subject.ValidService(cfg.Service) || cfg.Durable == "" {
		return nil, errors.New("new event consumer: service and durable name are required")
	}
	if len(cfg.Topics) == 0 {
		cfg.Topics = Topics()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Tracer == nil {
		cfg.Tracer = noop.NewTracerProvider().Tracer("")
	}
	return &Consumer[Tx]{
		cfg: cfg, cursors: map[Line]Cursor{}, parked: newPark(), stuck: map[Line]time.Time{},
		fetcher: newFetcher(cfg.OnGap), passed: newPassed(), doubted: map[Line]time.Time{},
	}, nil
}

// Run consumes until ctx ends; it implements kit/run.Component. It calls ready at once and waits
// for the stream if it does not exist yet.
func (c *Consumer[Tx]) Run(ctx context.Context, ready func()) error {
	ready()
	for wait := firstRetry; ctx.Err() == nil; wait = min(2*wait, lastRetry) {
		started := time.Now()
		err := c.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(started) > lastRetry {
			wait = firstRetry
		}
		c.cfg.Log.WarnContext(ctx, "events are not read", "service", c.cfg.Service,
			"error", err, "retry_in", wait)
		sleep(ctx, wait)
	}
	return nil
}

// follow reads until something fails.
func (c *Consumer[Tx]) follow(ctx context.Context) error {
	durable, err := c.durable(ctx)
	if err != nil {
		return err
	}
	messages := make(chan jetstream.Msg, consumeBatch)
	failed := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	reading, err := durable.Consume(func(m jetstream.Msg) {
		select {
		case messages <- m:
		case <-ctx.Done():
			c.giveBack(m)
		}
	}, jetstream.PullMaxMessages(consumeBatch), jetstream.ConsumeErrHandler(
		func(_ jetstream.ConsumeContext, err error) { offer(failed, err) }))
	if err != nil {
		cancel()
		return fmt.Errorf("consume stream of %s: %w", c.cfg.Service, err)
	}
	defer func() {
		cancel()
		c.fetcher.running.Wait()
		c.fetcher = newFetcher(c.cfg.OnGap)
		reading.Drain()
		<-reading.Closed()
		for len(messages) > 0 {
			c.giveBack(<-messages)
		}
		for _, it := range c.parked.all() {
			c.giveBack(it.msg)
		}
	}()
	return c.loop(ctx, messages, failed)
}

// giveBack lets the broker hand the message out again at once, not after ackPatience.
func (c *Consumer[Tx]) giveBack(m jetstream.Msg) {
	if m == nil {
		return
	}
	if err := m.Nak(); err != nil {
		c.cfg.Log.Debug("an event is not given back", "error", err)
	}
}

func (c *Consumer[Tx]) durable(ctx context.Context) (jetstream.Consumer, error) {
	cfg := jetstream.ConsumerConfig{
		Durable: c.cfg.Durable, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackPatience,
		MaxAckPending: maxAckPending, DeliverPolicy: jetstream.DeliverAllPolicy,
	}
	for _, topic := range c.cfg.Topics {
		cfg.FilterSubjects = append(cfg.FilterSubjects,
			subject.Events(c.cfg.Service, string(topic)))
	}
	name := StreamName(c.cfg.Service)
	durable, err := c.cfg.JetStream.CreateOrUpdateConsumer(ctx, name, cfg)
	if err != nil {
		return nil, fmt.Errorf("open consumer %s of %s: %w", c.cfg.Durable, name, err)
	}
	return durable, nil
}

// loop collects what has come and handles it together.
func (c *Consumer[Tx]) loop(
	ctx context.Context, messages <-chan jetstream.Msg, failed <-chan error,
) error {
	for {
		batch := make([]jetstream.Msg, 0, consumeBatch)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			if fatal(err) {
				return err
			}
			continue
		case a := <-c.fetcher.answers:
			c.fetched(ctx, a)
			continue
		case m := <-messages:
			batch = append(batch, m)
		}
		for more := true; more && len(batch) < consumeBatch; {
			select {
			case m := <-messages:
				batch = append(batch, m)
			default:
				more = false
			}
		}
		c.handle(ctx, batch)
	}
}

// fatal tells errors after which the consumer must be opened again from those that pass.
func fatal(err error) bool {
	return errors.Is(err, jetstream.ErrConsumerDeleted) ||
		errors.Is(err, jetstream.ErrConsumerNotFound) ||
		errors.Is(err, jetstream.ErrStreamNotFound) ||
		errors.Is(err, jetstream.ErrNoHeartbeat)
}

func offer(to chan<- error, err error) {
	select {
	case to <- err:
	default:
	}
}
