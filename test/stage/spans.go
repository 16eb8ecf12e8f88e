package stage

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	metricsv1 "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/telemetry"
)

// maxSpans bounds what is kept; the oldest go first.
const maxSpans = 200_000

// Span is one that has ended.
type Span struct {
	Trace, ID, Parent string // hex
	Service, Name     string
	Start, End        time.Time
}

// Spans keeps spans in memory. Services of this process export to it directly, others by OTLP.
type Spans struct {
	collectorv1.UnimplementedTraceServiceServer

	// Endpoint is where other processes export to.
	Endpoint string

	telemetry *telemetry.Telemetry
	server    *grpc.Server

	mu   sync.Mutex // guards list and more
	list []Span
	more chan struct{} // closed when list has grown
}

var (
	_ sdktrace.SpanExporter          = (*Spans)(nil)
	_ collectorv1.TraceServiceServer = (*Spans)(nil)
)

func newSpans(ctx context.Context) (*Spans, error) {
	s := &Spans{more: make(chan struct{}), server: grpc.NewServer()}
	listener, err := net.Listen("tcp", anyPort)
	if err != nil {
		return nil, fmt.Errorf("listen for spans: %w", err)
	}
	s.Endpoint = listener.Addr().String()
	collectorv1.RegisterTraceServiceServer(s.server, s)
	metricsv1.RegisterMetricsServiceServer(s.server, noMetrics{})
	go func() { _ = s.server.Serve(listener) }() // ends with close, which waits for it
	s.telemetry, err = telemetry.New(ctx, telemetry.Default(), telemetry.Options{Spans: s})
	return s, err
}

func (s *Spans) close() error {
	s.server.Stop()
	return nil
}

// ExportSpans implements sdktrace.SpanExporter.
func (s *Spans) ExportSpans(_ context.Context, ended []sdktrace.ReadOnlySpan) error {
	for _, e := range ended {
		service := ""
		for _, a := range e.Resource().Attributes() {
			if a.Key == "service.name" {
				service = a.Value.AsString()
			}
		}
		span := Span{
			Trace: e.SpanContext().TraceID().String(), ID: e.SpanContext().SpanID().String(),
			Service: service, Name: e.Name(), Start: e.StartTime(), End: e.EndTime(),
		}
		if e.Parent().HasSpanID() {
			span.Parent = e.Parent().SpanID().String()
		}
		s.add(span)
	}
	return nil
}

// Shutdown implements sdktrace.SpanExporter.
func (s *Spans) Shutdown(context.Context) error { return nil }

// Export implements the OTLP collector's service.
func (s *Spans) Export(
	_ context.Context, r *collectorv1.ExportTraceServiceRequest,
) (*collectorv1.ExportTraceServiceResponse, error) {
	for _, resource := range r.GetResourceSpans() {
		service := ""
		for _, a := range resource.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			for _, e := range scope.GetSpans() {
				s.add(Span{
					Trace: hex.EncodeToString(e.GetTraceId()), ID: hex.EncodeToString(e.GetSpanId()),
					Parent: hex.EncodeToString(e.GetParentSpanId()), Service: service,
					Name: e.GetName(), Start: time.Unix(0, int64(e.GetStartTimeUnixNano())),
					End: time.Unix(0, int64(e.GetEndTimeUnixNano())),
				})
			}
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

// noMetrics takes metrics and forgets them.
type noMetrics struct {
	metricsv1.UnimplementedMetricsServiceServer
}

// Export implements the OTLP collector's service.
func (noMetrics) Export(
	context.Context, *metricsv1.ExportMetricsServiceRequest,
) (*metricsv1.ExportMetricsServiceResponse, error) {
	return &metricsv1.ExportMetricsServiceResponse{}, nil
}

func (s *Spans) add(span Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) >= maxSpans {
		s.list = slices.Delete(s.list, 0, maxSpans/2)
	}
	s.list = append(s.list, span)
	close(s.more)
	s.more = make(chan struct{})
}

// Trace returns the spans of a trace that have ended, by their start.
func (s *Spans) Trace(id string) []Span {
	spans, _ := s.trace(id)
	return spans
}

func (s *Spans) trace(id string) (found []Span, more <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range s.list {
		if span.Trace == id {
			found = append(found, span)
		}
	}
	slices.SortStableFunc(found, func(a, b Span) int { return a.Start.Compare(b.Start) })
	return found, s.more
}

// Await waits until the trace satisfies enough, or ctx ends; it returns what there is.
func (s *Spans) Await(ctx context.Context, id string, enough func([]Span) bool) []Span {
	for {
		found, more := s.trace(id)
		if enough(found) {
			return found
		}
		select {
		case <-more:
		case <-ctx.Done():
			return found
		}
	}
}
