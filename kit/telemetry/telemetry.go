// Package telemetry sets up OpenTelemetry traces and metrics and slog for the services of one
// process.
//
// Each service has its own tracer and meter provider, so that service.name is right even when all
// services run in one process; they share one span queue and one exporter. Nothing is global: the
// providers are handed to whoever needs them.
//
// Telemetry never blocks and never fails a service: spans beyond a full queue are dropped, an
// unreachable collector is logged at most once per ErrorInterval, and Shutdown is bounded by its
// context. What it does not do: keep telemetry over a crash.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	promexport "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"
)

// Bounds of what telemetry may hold and how long it may take.
const (
	MaxQueue        = 4096             // spans waiting for export; more are dropped
	MaxBatch        = 512              // spans in one export
	MaxAttribute    = 1024             // bytes of one span attribute
	ExportTimeout   = 5 * time.Second  // one export
	MetricInterval  = 15 * time.Second // between pushes of metrics
	ShutdownTimeout = 5 * time.Second  // flush at the end of Run
	ErrorInterval   = time.Minute      // between log lines about failing exports
)

// Options are what tests and unusual programs set beside the Config.
type Options struct {
	// Spans replaces the OTLP exporter when set. It is used synchronously: a span is there as
	// soon as it has ended. For tests.
	Spans sdktrace.SpanExporter
	// Metrics replaces the OTLP metric exporter when set: it makes one reader per service.
	Metrics func() sdkmetric.Reader
	// LogWriter is where logs go; nil means standard error.
	LogWriter io.Writer
	// Version is the program's version for resource attributes; may be empty.
	Version string
	// Instance tells processes of the same service apart; may be empty.
	Instance string
}

// Telemetry is the process's telemetry. Use New.
type Telemetry struct {
	options  Options
	log      *slog.Logger
	base     slog.Handler
	sampler  sdktrace.Sampler
	spans    sdktrace.SpanProcessor // nil when traces go nowhere
	metrics  func() sdkmetric.Reader
	registry *prometheus.Registry
	closers  []func(context.Context) error // exporters, closed after all providers

	mu       sync.Mutex // guards services: each name has exactly one Service
	services map[string]*Service
	closed   bool
}

// Service is the telemetry of one service: what its constructor takes as dependencies.
type Service struct {
	Name string
	// Log writes records that carry the service's name and the ids of the context's span.
	Log *slog.Logger
	// Tracers and Meters carry the service's resource attributes.
	Tracers trace.TracerProvider
	Meters  metric.MeterProvider

	tracers *sdktrace.TracerProvider
	meters  *sdkmetric.MeterProvider
}

// New sets up telemetry as cfg says. It connects to nothing yet: an absent collector is no error.
func New(ctx context.Context, cfg Config, options Options) (*Telemetry, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	if options.LogWriter == nil {
		options.LogWriter = os.Stderr
	}
	base := newHandler(options.LogWriter, cfg)
	t := &Telemetry{
		options: options, base: base, log: slog.New(base).With("service", "telemetry"),
		sampler:  sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.SampleRatio)),
		registry: prometheus.NewRegistry(), metrics: options.Metrics,
		services: map[string]*Service{},
	}
	t.registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	switch {
	case options.Spans != nil:
		t.spans = sdktrace.NewSimpleSpanProcessor(options.Spans)
	case cfg.Endpoint != "":
		if err := t.connect(ctx, cfg); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Service returns the telemetry of the named service, the same one for the same name. After
// Shutdown it still works but records nothing.
func (t *Telemetry) Service(name string) (*Service, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, known := t.services[name]; known {
		return s, nil
	}
	attributes := resource.NewWithAttributes(semconv.SchemaURL, t.attributes(name)...)
	meters, err := t.newMeters(attributes)
	if err != nil {
		return nil, fmt.Errorf("telemetry of %s: %w", name, err)
	}
	tracers := t.newTracers(attributes)
	s := &Service{
		Name: name, Log: slog.New(t.base).With("service", name),
		Tracers: tracers, Meters: meters, tracers: tracers, meters: meters,
	}
	t.services[name] = s
	return s, nil
}

func (t *Telemetry) attributes(name string) []attribute.KeyValue {
	attributes := []attribute.KeyValue{
		semconv.ServiceName(name), semconv.ServiceNamespace("ucn"),
	}
	if t.options.Version != "" {
		attributes = append(attributes, semconv.ServiceVersion(t.options.Version))
	}
	if t.options.Instance != "" {
		attributes = append(attributes, semconv.ServiceInstanceID(t.options.Instance))
	}
	return attributes
}

func (t *Telemetry) newTracers(r *resource.Resource) *sdktrace.TracerProvider {
	limits := sdktrace.NewSpanLimits()
	limits.AttributeValueLengthLimit = MaxAttribute
	options := []sdktrace.TracerProviderOption{
		sdktrace.WithResource(r), sdktrace.WithSampler(t.sampler),
		sdktrace.WithRawSpanLimits(limits),
	}
	if t.spans != nil && !t.closed {
		options = append(options, sdktrace.WithSpanProcessor(shared{t.spans}))
	}
	return sdktrace.NewTracerProvider(options...)
}

// newMeters makes a provider that Prometheus can scrape and that pushes if there is a collector.
// The service's name becomes a label, since all services share one registry.
func (t *Telemetry) newMeters(r *resource.Resource) (*sdkmetric.MeterProvider, error) {
	scrape, err := promexport.New(
		promexport.WithRegisterer(t.registry), promexport.WithoutTargetInfo(),
		promexport.WithoutScopeInfo(), promexport.WithResourceAsConstantLabels(
			attribute.NewAllowKeysFilter(semconv.ServiceNameKey)))
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	options := []sdkmetric.Option{sdkmetric.WithResource(r), sdkmetric.WithReader(scrape)}
	if t.metrics != nil && !t.closed {
		options = append(options, sdkmetric.WithReader(t.metrics()))
	}
	return sdkmetric.NewMeterProvider(options...), nil
}

// Handler serves the metrics of all services of the process to Prometheus.
func (t *Telemetry) Handler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError,
		Timeout:       ExportTimeout,
	})
}

// Registry is where metrics that are not OpenTelemetry's may be registered.
func (t *Telemetry) Registry() *prometheus.Registry { return t.registry }

// Run keeps telemetry until ctx ends, then flushes for at most ShutdownTimeout. It is a component
// of kit/run: let every service come after it. A failed flush is logged, never returned.
func (t *Telemetry) Run(ctx context.Context, ready func()) error {
	ready()
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ShutdownTimeout)
	defer cancel()
	if err := t.Shutdown(ctx); err != nil {
		t.log.WarnContext(ctx, "telemetry not flushed", "error", err)
	}
	return nil
}

// Shutdown flushes what is queued and closes the exporters. It returns when ctx ends at the
// latest. Calling it again does nothing.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	t.mu.Lock()
	services := t.services
	again := t.closed
	t.closed = true
	t.mu.Unlock()
	if again {
		return nil
	}
	var errs []error
	for _, s := range services {
		errs = append(errs, s.tracers.Shutdown(ctx), s.meters.Shutdown(ctx))
	}
	if t.spans != nil {
		errs = append(errs, t.spans.Shutdown(ctx))
	}
	for _, closeExporter := range t.closers {
		errs = append(errs, closeExporter(ctx))
	}
	return errors.Join(errs...)
}
