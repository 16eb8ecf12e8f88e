package main

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/event/eventtest"
)

// verifyBatch is how many events a consumer takes at once.
const verifyBatch = 256

// verifyEvents: how many envelopes of one instance one core verifies a second: decoded, signed,
// by a certificate that is known. In batches, as consumers take them, and one by one.
func verifyEvents(context.Context, string) ([]figure, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var figures []figure
	for _, one := range []struct {
		name string
		size int
	}{{"event.verify_per_core_s", verifyBatch}, {"event.verify_single_per_core_s", 1}} {
		r := testing.Benchmark(func(b *testing.B) { verifyLoop(b, one.size) })
		if r.N == 0 {
			return nil, errors.New("an event was not verified")
		}
		figures = append(figures, figure{
			one.name, float64(r.N*one.size) / r.T.Seconds(), "events/s",
		})
	}
	return figures, nil
}

func verifyLoop(b *testing.B, size int) {
	instance := eventtest.NewOperator(1).Instance(b, "executor")
	directory := event.NewDirectory(
		event.JudgeBy(cert.Verifier{Chains: []string{eventtest.Chain}}), nil)
	directory.Learn(b.Context(), instance.Certificate)
	verifier := event.NewVerifier(event.VerifierConfig{Certificates: directory})
	var batch []event.Received
	for _, e := range instance.Line(b, event.TopicJob, size) {
		batch = append(batch, instance.Received(e))
	}
	for b.Loop() {
		for _, verdict := range verifier.Verify(b.Context(), batch) {
			if verdict.Err != nil {
				b.Fatal(verdict.Err)
			}
		}
	}
}
