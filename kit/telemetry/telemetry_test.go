package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/telemetry"
)

func TestServicesOfOneProcessKeepTheirNames(t *testing.T) {
	log := kittest.NewLog(t)
	tel := kittest.NewTelemetry(t, log)
	ledger, scheduler := tel.MustService(t, "ledger"), tel.MustService(t, "scheduler")
	if again := tel.MustService(t, "ledger"); again != ledger {
		t.Error("the same name gave another service")
	}
	ctx, outer := scheduler.Tracers.Tracer("t").Start(t.Context(), "match")
	_, inner := ledger.Tracers.Tracer("t").Start(ctx, "submit")
	inner.End()
	outer.End()
	got := map[string]string{}
	for _, span := range tel.Spans() {
		name, _ := span.Resource.Set().Value("service.name")
		got[span.Name] = name.AsString()
		if span.SpanContext.TraceID() != outer.SpanContext().TraceID() {
			t.Errorf("span %s is of another trace", span.Name)
		}
	}
	if got["match"] != "scheduler" || got["submit"] != "ledger" || len(got) != 2 {
		t.Errorf("services by span: %v", got)
	}
	scheduler.Log.InfoContext(ctx, "matched")
	id := outer.SpanContext()
	if lines := log.Lines("matched", "service=scheduler", "trace_id="+id.TraceID().String(),
		"span_id="+id.SpanID().String()); len(lines) != 1 {
		t.Errorf("log lines: %q", log.Lines())
	}
}

func TestMetricsOfAllServicesAreScraped(t *testing.T) {
	tel := kittest.NewTelemetry(t, kittest.NewLog(t))
	for i, name := range []string{"ledger", "storage"} {
		counter, err := tel.MustService(t, name).Meters.Meter("t").Int64Counter("ucn.blocks",
			metric.WithDescription("blocks"))
		if err != nil {
			t.Fatal(err)
		}
		counter.Add(t.Context(), int64(i+1))
	}
	response := httptest.NewRecorder()
	tel.Handler().ServeHTTP(response, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`ucn_blocks_total{service_name="ledger"} 1`, `ucn_blocks_total{service_name="storage"} 2`,
		"go_goroutines",
	} {
		if !strings.Contains(response.Body.String(), want) {
			t.Errorf("%s is missing from\n%s", want, response.Body)
		}
	}
	if n := len(tel.Metrics(t)); n != 2 {
		t.Errorf("%d services have metrics, want 2", n)
	}
}

func TestTraceparentRoundTrip(t *testing.T) {
	tel := kittest.NewTelemetry(t, kittest.NewLog(t))
	ctx, span := tel.MustService(t, "a").Tracers.Tracer("t").Start(t.Context(), "x")
	defer span.End()
	text := telemetry.Inject(ctx)
	got := trace.SpanContextFromContext(telemetry.Extract(context.Background(), text))
	if !got.IsRemote() || got.TraceID() != span.SpanContext().TraceID() ||
		got.SpanID() != span.SpanContext().SpanID() {
		t.Errorf("%q gave %v", text, got)
	}
	if text := telemetry.Inject(context.Background()); text != "" {
		t.Errorf("no span is written %q", text)
	}
	for _, bad := range []string{"", "00-zz", strings.Repeat("0", 1<<16), "00-" +
		strings.Repeat("0", 32) + "-0000000000000000-01"} {
		if trace.SpanContextFromContext(telemetry.Extract(t.Context(), bad)).IsValid() {
			t.Errorf("%.60q was taken for a traceparent", bad)
		}
	}
}

func TestJSONLogPutsIdsOutsideGroups(t *testing.T) {
	var out bytes.Buffer
	cfg := telemetry.Default()
	cfg.LogFormat, cfg.LogLevel = "json", slog.LevelWarn
	tel, err := telemetry.New(t.Context(), cfg, telemetry.Options{LogWriter: &out})
	if err != nil {
		t.Fatal(err)
	}
	s, err := tel.Service("dns")
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := s.Tracers.Tracer("t").Start(t.Context(), "x")
	defer span.End()
	s.Log.InfoContext(ctx, "too quiet")
	s.Log.With("a", 1).WithGroup("g").With("b", 2).WithGroup("").WarnContext(ctx, "hot", "c", 3)
	var got struct {
		Msg     string         `json:"msg"`
		Service string         `json:"service"`
		TraceID string         `json:"trace_id"`
		A       int            `json:"a"`
		G       map[string]int `json:"g"`
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, out.Bytes())
	}
	if got.Msg != "hot" || got.Service != "dns" || got.A != 1 || got.G["b"] != 2 ||
		got.G["c"] != 3 || got.TraceID != span.SpanContext().TraceID().String() {
		t.Errorf("record %+v", got)
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAbsentCollectorBlocksNothing(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
	}()
	cfg := telemetry.Default()
	cfg.Endpoint = listener.Addr().String() // accepts and never answers
	tel, err := telemetry.New(t.Context(), cfg, telemetry.Options{LogWriter: &bytes.Buffer{}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := tel.Service("ledger")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range telemetry.MaxQueue {
				_, span := s.Tracers.Tracer("t").Start(t.Context(), "x")
				span.SetAttributes(attribute.Int("i", 1))
				span.End()
			}
		})
	}
	all.Wait()
	if took := time.Since(began); took > telemetry.ExportTimeout {
		t.Errorf("spans beyond the queue took %s", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began = time.Now()
	if err := tel.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown with a full queue: %v", err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("shutdown took %s", took)
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Errorf("second shutdown: %v", err)
	}
	if _, err := tel.Service("late"); err != nil {
		t.Errorf("service after shutdown: %v", err)
	}
}

func TestRunFlushesAndReturns(t *testing.T) {
	tel, err := telemetry.New(t.Context(), telemetry.Default(),
		telemetry.Options{LogWriter: &bytes.Buffer{}, Version: "v1", Instance: "i"})
	if err != nil {
		t.Fatal(err)
	}
	if err := kittest.Run(t, tel)(); err != nil {
		t.Error(err)
	}
}

func TestConfigValidate(t *testing.T) {
	cases := map[string]string{
		"endpoint: nowhere":        "endpoint",
		"sample_ratio: 2":          "sample_ratio",
		"sample_ratio: .nan":       "sample_ratio",
		"log_format: xml":          "log_format",
		"log_level: loud":          "log_level",
		"log_level: debug":         "",
		"endpoint: 127.0.0.1:4317": "",
	}
	for text, field := range cases {
		cfg := telemetry.Default()
		err := config.Parse("f", []byte(text), nil, &cfg)
		if field == "" && err != nil || field != "" &&
			(err == nil || !strings.Contains(err.Error(), "f:1: "+field+":")) {
			t.Errorf("%s: error %v, want one about %q", text, err, field)
		}
		if _, err := telemetry.New(t.Context(), telemetry.Config{}, telemetry.Options{}); err == nil {
			t.Error("a zero configuration was accepted")
		}
	}
}
