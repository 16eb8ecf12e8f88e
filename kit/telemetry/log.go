package telemetry

import (
	"context"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// newHandler returns the process's log handler.
func newHandler(w io.Writer, cfg Config) slog.Handler {
	options := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "json" {
		return WithTrace(slog.NewJSONHandler(w, options))
	}
	return WithTrace(slog.NewTextHandler(w, options))
}

// WithTrace returns a handler that adds trace_id and span_id of the context's span to every
// record, always at the top level, whatever groups are open.
func WithTrace(next slog.Handler) slog.Handler { return &traceHandler{root: next, next: next} }

// traceHandler keeps the handler as it was before the first WithGroup, and what came since, so
// that the ids can be put in front of the groups.
type traceHandler struct {
	root slog.Handler                      // no group open
	next slog.Handler                      // root with all of since applied
	open []func(slog.Handler) slog.Handler // WithGroup and later calls, in order
}

func (h *traceHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h *traceHandler) Handle(ctx context.Context, record slog.Record) error {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return h.next.Handle(ctx, record)
	}
	ids := []slog.Attr{
		slog.String("trace_id", span.TraceID().String()),
		slog.String("span_id", span.SpanID().String()),
	}
	if len(h.open) == 0 {
		record = record.Clone()
		record.AddAttrs(ids...)
		return h.next.Handle(ctx, record)
	}
	next := h.root.WithAttrs(ids)
	for _, apply := range h.open {
		next = apply(next)
	}
	return next.Handle(ctx, record)
}

func (h *traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(h.open) == 0 {
		next := h.root.WithAttrs(attrs)
		return &traceHandler{root: next, next: next}
	}
	return h.then(func(n slog.Handler) slog.Handler { return n.WithAttrs(attrs) })
}

func (h *traceHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.then(func(n slog.Handler) slog.Handler { return n.WithGroup(name) })
}

func (h *traceHandler) then(apply func(slog.Handler) slog.Handler) slog.Handler {
	open := append(h.open[:len(h.open):len(h.open)], apply)
	return &traceHandler{root: h.root, next: apply(h.next), open: open}
}
