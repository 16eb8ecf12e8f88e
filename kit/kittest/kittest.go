// Package kittest is plumbing for tests: captured logs, telemetry in memory, components that run
// for the length of a test, and TLS files.
//
// Everything stops and is removed when the test ends; a component that fails, or does not stop,
// fails the test. Only tests import it.
package kittest

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/united-containers/ucn/kit/run"
	"github.com/united-containers/ucn/kit/telemetry"
)

// StopTime is how long a component may take to stop before its test fails.
const StopTime = 30 * time.Second

// Run starts a component and returns when it is ready. It is stopped when the test ends, after
// everything that was started later. stop ends it earlier and returns its error; then the test's
// end does nothing more.
func Run(t testing.TB, c run.Component) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- c.Run(ctx, sync.OnceFunc(func() { close(ready) })) }()
	stopped := false
	stop = func() error {
		stopped = true
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(StopTime):
			t.Errorf("component %T did not stop within %s", c, StopTime)
			return run.ErrStuck
		}
	}
	t.Cleanup(func() {
		if stopped {
			return
		}
		if err := stop(); err != nil {
			t.Errorf("component %T: %v", c, err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		stopped = true
		cancel()
		t.Fatalf("component %T returned before it was ready: %v", c, err)
	}
	return stop
}

// Log is a log that tests can look into. It also goes to the test's own output.
type Log struct {
	*slog.Logger

	mu    sync.Mutex // guards lines and ended
	lines []string
	ended bool
	out   testing.TB
}

// NewLog returns a log at level debug, with trace ids, in slog's text form.
func NewLog(t testing.TB) *Log {
	l := &Log{out: t}
	l.Logger = slog.New(telemetry.WithTrace(slog.NewTextHandler(l,
		&slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ended = true // t.Log would panic now
	})
	return l
}

// Write implements io.Writer for slog: one call is one line.
func (l *Log) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := strings.TrimSuffix(string(line), "\n")
	l.lines = append(l.lines, text)
	if !l.ended {
		l.out.Log(text)
	}
	return len(line), nil
}

// Lines returns the lines that hold all of the given texts.
func (l *Log) Lines(texts ...string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for _, line := range l.lines {
		holds := true
		for _, text := range texts {
			holds = holds && strings.Contains(line, text)
		}
		if holds {
			found = append(found, line)
		}
	}
	return found
}

// Telemetry keeps spans and metrics in memory.
type Telemetry struct {
	*telemetry.Telemetry

	spans *tracetest.InMemoryExporter

	mu      sync.Mutex // guards readers
	readers []*sdkmetric.ManualReader
}

// NewTelemetry returns telemetry whose logs go to log and which is shut down when the test ends.
func NewTelemetry(t testing.TB, log *Log) *Telemetry {
	t.Helper()
	k := &Telemetry{spans: tracetest.NewInMemoryExporter()}
	cfg := telemetry.Default()
	cfg.LogLevel = slog.LevelDebug
	made, err := telemetry.New(t.Context(), cfg, telemetry.Options{
		Spans: keep{k.spans}, Metrics: k.reader, LogWriter: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	k.Telemetry = made
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), telemetry.ShutdownTimeout)
		defer cancel()
		if err := made.Shutdown(ctx); err != nil {
			t.Errorf("shut down telemetry: %v", err)
		}
	})
	return k
}

func (k *Telemetry) reader() sdkmetric.Reader {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := sdkmetric.NewManualReader()
	k.readers = append(k.readers, r)
	return r
}

// MustService returns the telemetry of a service or fails the test.
func (k *Telemetry) MustService(t testing.TB, name string) *telemetry.Service {
	t.Helper()
	s, err := k.Service(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Spans returns all spans that have ended so far, of all services.
func (k *Telemetry) Spans() tracetest.SpanStubs { return k.spans.GetSpans() }

// Metrics returns the present metrics, one element per service.
func (k *Telemetry) Metrics(t testing.TB) []metricdata.ResourceMetrics {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]metricdata.ResourceMetrics, len(k.readers))
	for i, r := range k.readers {
		if err := r.Collect(t.Context(), &all[i]); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// keep is an exporter whose spans outlive its shutdown.
type keep struct{ sdktrace.SpanExporter }

func (keep) Shutdown(context.Context) error { return nil }
