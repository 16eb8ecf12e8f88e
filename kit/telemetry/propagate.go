package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/propagation"
)

// header is the field of W3C Trace Context that names a span. Trace state and baggage are not put
// into events: they are text of strangers without use here.
const header = "traceparent"

// Propagator returns the propagator every client and server of this house uses.
func Propagator() propagation.TextMapPropagator { return propagation.TraceContext{} }

// Inject returns the traceparent of the context's span for an event or message, "" without one.
func Inject(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	Propagator().Inject(ctx, carrier)
	return carrier[header]
}

// Extract returns ctx with the remote span that traceparent names as the parent of what follows.
// Malformed text, which any peer may send, leaves ctx as it is.
func Extract(ctx context.Context, traceparent string) context.Context {
	return Propagator().Extract(ctx, propagation.MapCarrier{header: traceparent})
}
