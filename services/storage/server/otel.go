package server

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/storage"
)

const scopeName = "github.com/united-containers/ucn/services/storage/server"

// metrics counts what passes. Attributes have few values each: never a CID or an account.
type metrics struct {
	bytes    metric.Int64Counter
	blobs    metric.Int64Counter
	refusals metric.Int64Counter
	garbage  metric.Int64Counter
	freed    metric.Int64Counter
}

func newMetrics(p metric.MeterProvider) (*metrics, error) {
	meter := p.Meter(scopeName)
	bytes, err := meter.Int64Counter("ucn.storage.bytes", metric.WithUnit("By"),
		metric.WithDescription("Bytes of blobs received (direction=in) and sent (direction=out)"))
	blobs, err2 := meter.Int64Counter("ucn.storage.blobs", metric.WithUnit("{blob}"),
		metric.WithDescription("References made (change=put), found (held) and ended (remove)"))
	refusals, err3 := meter.Int64Counter("ucn.storage.refusals", metric.WithUnit("{call}"),
		metric.WithDescription("Calls refused or failed, by reason; INTERNAL has no other"))
	garbage, err4 := meter.Int64Counter("ucn.storage.collected", metric.WithUnit("{thing}"),
		metric.WithDescription("What collections ended, by what: reference, upload, blob"))
	freed, err5 := meter.Int64Counter("ucn.storage.collected.bytes", metric.WithUnit("By"),
		metric.WithDescription("Bytes that collections freed on the disk"))
	return &metrics{bytes, blobs, refusals, garbage, freed}, errors.Join(err, err2, err3, err4, err5)
}

func (m *metrics) moved(ctx context.Context, direction string, n int64) {
	m.bytes.Add(ctx, n, metric.WithAttributes(attribute.String("direction", direction)))
}

func (m *metrics) changed(ctx context.Context, change string) {
	m.changedBy(ctx, change, 1)
}

func (m *metrics) collected(ctx context.Context, got storage.Collected) {
	for what, n := range map[string]int64{"reference": got.References, "upload": got.Uploads,
		"blob": got.Blobs} {
		m.garbage.Add(ctx, n, metric.WithAttributes(attribute.String("what", what)))
	}
	m.freed.Add(ctx, got.Bytes)
}

func (m *metrics) changedBy(ctx context.Context, change string, n int64) {
	m.blobs.Add(ctx, n, metric.WithAttributes(attribute.String("change", change)))
}

// failed counts err by its reason, and passes it on.
func (m *metrics) failed(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	reason := string(fault.ReasonOf(err))
	switch {
	case reason != "":
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		reason = "CANCELLED"
	default:
		reason = "INTERNAL"
	}
	m.refusals.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", reason)))
	return err
}

// annotate tells the call's span which blob it is about.
func annotate(ctx context.Context, c cid.CID, size int64) {
	trace.SpanFromContext(ctx).SetAttributes(attribute.String("ucn.cid", c.String()),
		attribute.Int64("ucn.blob.size", size))
}
