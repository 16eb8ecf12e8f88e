package wiretest_test

import (
	"io"
	"slices"
	"testing"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/united-containers/ucn/kit/telemetry"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/server"
	"github.com/united-containers/ucn/services/ledger/wire/wiretest"
)

func TestOneTraceShowsTheStepsOfATransaction(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	all, err := telemetry.New(t.Context(), telemetry.Default(),
		telemetry.Options{Spans: spans, LogWriter: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	own, err := all.Service("ledger")
	if err != nil {
		t.Fatal(err)
	}
	n, err := ledgertest.NewNetwork(1, 3)
	if err != nil {
		t.Fatal(err)
	}
	c, err := wiretest.Config(n, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := wiretest.Serve(n, c, own)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := s.Dial(n.Keys[0], server.Scope)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ledgerv1.NewLedgerServiceClient(conn).Submit(t.Context(),
		&ledgerv1.SubmitRequest{Transaction: n.Transfer(0, 1, 0, 5)})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	var names []string
	traces := map[string]bool{}
	for _, span := range spans.GetSpans() {
		names = append(names, span.Name)
		traces[span.SpanContext.TraceID().String()] = true
		if span.EndTime.Before(span.StartTime) {
			t.Errorf("%s ends before it begins", span.Name)
		}
	}
	for _, want := range []string{
		"ledger.submit", "ledger.verify", "ledger.execute", "ledger.commit",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("no span %s among %v", want, names)
		}
	}
	if len(traces) != 1 {
		t.Errorf("%d traces of one call: %v", len(traces), names)
	}
}
