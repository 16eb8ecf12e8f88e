package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// connect makes the OTLP exporters that all services share.
func (t *Telemetry) connect(ctx context.Context, cfg Config) error {
	traceOptions := []otlptracegrpc.Option{
		otlptracegrpc.WithEndpoint(cfg.Endpoint), otlptracegrpc.WithTimeout(ExportTimeout),
	}
	metricOptions := []otlpmetricgrpc.Option{
		otlpmetricgrpc.WithEndpoint(cfg.Endpoint), otlpmetricgrpc.WithTimeout(ExportTimeout),
	}
	if cfg.Insecure || cfg.loopback() {
		traceOptions = append(traceOptions, otlptracegrpc.WithInsecure())
		metricOptions = append(metricOptions, otlpmetricgrpc.WithInsecure())
	}
	spans, err := otlptracegrpc.New(ctx, traceOptions...)
	if err != nil {
		return fmt.Errorf("set up trace exporter: %w", err)
	}
	metrics, err := otlpmetricgrpc.New(ctx, metricOptions...)
	if err != nil {
		return fmt.Errorf("set up metric exporter: %w", err)
	}
	complaint := &complaint{log: t.log}
	t.spans = sdktrace.NewBatchSpanProcessor(quietSpans{spans, complaint},
		sdktrace.WithMaxQueueSize(MaxQueue), sdktrace.WithMaxExportBatchSize(MaxBatch),
		sdktrace.WithExportTimeout(ExportTimeout))
	t.metrics = func() sdkmetric.Reader {
		return sdkmetric.NewPeriodicReader(quietMetrics{metrics, complaint},
			sdkmetric.WithInterval(MetricInterval), sdkmetric.WithTimeout(ExportTimeout))
	}
	t.closers = append(t.closers, metrics.Shutdown)
	return nil
}

// complaint logs failing exports, at most one line per ErrorInterval. OpenTelemetry's own error
// handler is a global that writes every failure to standard error.
type complaint struct {
	log *slog.Logger

	mu   sync.Mutex // guards last
	last time.Time
}

func (c *complaint) swallow(ctx context.Context, err error) {
	if err == nil {
		return
	}
	c.mu.Lock()
	due := time.Since(c.last) >= ErrorInterval
	if due {
		c.last = time.Now()
	}
	c.mu.Unlock()
	if due {
		c.log.WarnContext(ctx, "telemetry lost: collector does not take it", "error", err)
	}
}

// quietSpans never returns an export error: it complains instead.
type quietSpans struct {
	sdktrace.SpanExporter
	complaint *complaint
}

func (q quietSpans) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	q.complaint.swallow(ctx, q.SpanExporter.ExportSpans(ctx, spans))
	return nil
}

// quietMetrics is the same for metrics. Its Shutdown does nothing, since every service's reader
// calls it and the exporter is shared.
type quietMetrics struct {
	sdkmetric.Exporter
	complaint *complaint
}

func (q quietMetrics) Export(ctx context.Context, data *metricdata.ResourceMetrics) error {
	q.complaint.swallow(ctx, q.Exporter.Export(ctx, data))
	return nil
}

func (q quietMetrics) Shutdown(context.Context) error { return nil }

// shared is a span processor used by several providers: only Telemetry shuts it down.
type shared struct{ sdktrace.SpanProcessor }

func (shared) Shutdown(context.Context) error { return nil }
