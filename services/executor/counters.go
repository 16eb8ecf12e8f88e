package executor

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// counters are the metrics of an agent.
type counters struct {
	asks   metric.Int64Counter
	ends   metric.Int64Counter
	grains metric.Int64Counter
	cpu    metric.Float64Counter
}

func newCounters(meters metric.MeterProvider) (counters, error) {
	m := meters.Meter("ucn/executor")
	asks, err1 := m.Int64Counter("ucn.executor.asks",
		metric.WithDescription("questions of schedulers, by answer"))
	ends, err2 := m.Int64Counter("ucn.executor.attempts.ended",
		metric.WithDescription("attempts that ended, by reason"))
	grains, err3 := m.Int64Counter("ucn.executor.paid",
		metric.WithDescription("grains the chain paid for attempts"), metric.WithUnit("{grain}"))
	cpu, err4 := m.Float64Counter("ucn.executor.cpu",
		metric.WithDescription("CPU time of ended attempts"), metric.WithUnit("s"))
	return counters{asks: asks, ends: ends, grains: grains, cpu: cpu},
		errors.Join(err1, err2, err3, err4)
}

func (c *counters) asked(ctx context.Context, answer Answer) {
	code := "YES"
	if answer.Declined != nil {
		code = string(answer.Declined.Code)
	}
	c.asks.Add(ctx, 1, metric.WithAttributes(attribute.String("answer", code)))
}

func (c *counters) ended(ctx context.Context, o *Outcome) {
	c.ends.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", string(o.Reason))))
	c.cpu.Add(ctx, float64(o.Usage.CPUNS)/1e9)
}

func (c *counters) paid(ctx context.Context, grains uint64) {
	c.grains.Add(ctx, int64(min(grains, 1<<62)))
}
