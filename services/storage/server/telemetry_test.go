package server_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

const spanWait = 1 << 20 // turns given to other goroutines before a span counts as missing

// waitForSpan returns the attributes of the spans of a name once there is one of the server's.
func waitForSpan(t *testing.T, r rig, name string) string {
	t.Helper()
	for range spanWait {
		var text strings.Builder
		for _, span := range r.telemetry.Spans() {
			if span.Name == name {
				fmt.Fprintln(&text, span.Attributes)
			}
		}
		if strings.Contains(text.String(), "ucn.cid") {
			return text.String()
		}
		runtime.Gosched()
	}
	t.Fatalf("no span %s", name)
	return ""
}

func metricNames(t *testing.T, r rig) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, resource := range r.telemetry.Metrics(t) {
		for _, scope := range resource.ScopeMetrics {
			for _, m := range scope.Metrics {
				names[m.Name] = true
			}
		}
	}
	return names
}
