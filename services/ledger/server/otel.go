package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/united-containers/ucn/services/ledger"
)

// library names the instrumentation.
const library = "github.com/united-containers/ucn/services/ledger"

// telemetry records what the ledger does.
type telemetry struct {
	tracer trace.Tracer
	gauges metric.Registration
}

func newTelemetry(deps Deps) (*telemetry, error) {
	if deps.Tracers == nil {
		deps.Tracers = tracenoop.NewTracerProvider()
	}
	if deps.Meters == nil {
		deps.Meters = metricnoop.NewMeterProvider()
	}
	t := &telemetry{tracer: deps.Tracers.Tracer(library)}
	meter := deps.Meters.Meter(library)
	pool, err1 := meter.Int64ObservableGauge("ucn.ledger.pool",
		metric.WithDescription("transactions that wait for a block"))
	height, err2 := meter.Int64ObservableGauge("ucn.ledger.height",
		metric.WithDescription("height of the last committed block"))
	lag, err3 := meter.Int64ObservableGauge("ucn.ledger.index.lag",
		metric.WithDescription("blocks that the index is behind"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("make metrics: %w", err)
	}
	var err error
	t.gauges, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, c := range deps.Chains {
			name := metric.WithAttributes(attribute.String("chain", c.Name()))
			transactions, _ := c.PoolSize()
			o.ObserveInt64(pool, int64(transactions), name)
			o.ObserveInt64(height, int64(c.Head().Height), name)
			if behind, err := c.Lag(); err == nil {
				o.ObserveInt64(lag, int64(behind), name)
			}
		}
		return nil
	}, pool, height, lag)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return t, nil
}

func (t *telemetry) close() error {
	if err := t.gauges.Unregister(); err != nil {
		return fmt.Errorf("unregister metrics: %w", err)
	}
	return nil
}

// submitting opens the span of a submission.
func (t *telemetry) submitting(ctx context.Context, chain string, n int) (
	context.Context, trace.Span,
) {
	return t.tracer.Start(ctx, "ledger.submit", trace.WithAttributes(
		attribute.String("ucn.chain", chain), attribute.Int("ucn.transactions", n)))
}

// submitted records the steps of a submission under its span. They happened elsewhere, shared with
// other submissions, and are told afterwards with their times.
func (t *telemetry) submitted(ctx context.Context, span trace.Span, at ledger.Timing, err error) {
	if err != nil {
		span.SetStatus(codes.Error, "not submitted")
	}
	if !span.IsRecording() {
		return
	}
	t.step(ctx, "ledger.verify", at.Begin, at.Verified)
	t.step(ctx, "ledger.execute", at.Execute, at.Executed)
	t.step(ctx, "ledger.commit", at.Executed, at.Durable)
}

func (t *telemetry) step(ctx context.Context, name string, from, to time.Time) {
	if from.IsZero() || to.IsZero() {
		return
	}
	_, span := t.tracer.Start(ctx, name, trace.WithTimestamp(from))
	span.End(trace.WithTimestamp(to))
}

// Observer records committed blocks; its Block is a chain's Observe.
type Observer struct {
	chain                            metric.MeasurementOption
	blocks, transactions, operations metric.Int64Counter
	commit, execute, durable         metric.Float64Histogram
}

// NewObserver makes the metrics of a chain's blocks. meters may be nil.
func NewObserver(meters metric.MeterProvider, chain string) (*Observer, error) {
	if meters == nil {
		meters = metricnoop.NewMeterProvider()
	}
	meter := meters.Meter(library)
	o := &Observer{chain: metric.WithAttributes(attribute.String("chain", chain))}
	var errs [6]error
	o.blocks, errs[0] = meter.Int64Counter("ucn.ledger.blocks")
	o.transactions, errs[1] = meter.Int64Counter("ucn.ledger.transactions")
	o.operations, errs[2] = meter.Int64Counter("ucn.ledger.operations")
	o.commit, errs[3] = meter.Float64Histogram("ucn.ledger.commit", metric.WithUnit("s"))
	o.execute, errs[4] = meter.Float64Histogram("ucn.ledger.execute", metric.WithUnit("s"))
	o.durable, errs[5] = meter.Float64Histogram("ucn.ledger.durable", metric.WithUnit("s"))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("make metrics: %w", err)
	}
	return o, nil
}

// Block records one committed block.
func (o *Observer) Block(s ledger.BlockStats) {
	ctx := context.Background()
	o.blocks.Add(ctx, 1, o.chain)
	o.transactions.Add(ctx, int64(s.Transactions), o.chain)
	o.operations.Add(ctx, int64(s.Operations), o.chain)
	o.commit.Record(ctx, s.Commit.Seconds(), o.chain)
	o.execute.Record(ctx, s.Execute.Seconds(), o.chain)
	o.durable.Record(ctx, s.Durable.Seconds(), o.chain)
}
