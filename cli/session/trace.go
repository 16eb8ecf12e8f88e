package session

import (
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/united-containers/ucn/kit/telemetry"
)

// scope names the spans of the client commands.
const scope = "github.com/united-containers/ucn/cli"

func tracer(t *telemetry.Service) trace.Tracer {
	if t == nil {
		return noop.NewTracerProvider().Tracer(scope)
	}
	return t.Tracers.Tracer(scope)
}
