package kittest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"testing"

	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/run"
)

func TestRunStopsInReverseAtTheEnd(t *testing.T) {
	var order []string
	t.Run("inner", func(t *testing.T) {
		for _, name := range []string{"first", "second"} {
			kittest.Run(t, run.Func(func(ctx context.Context, ready func()) error {
				ready()
				<-ctx.Done()
				order = append(order, name)
				return nil
			}))
		}
	})
	if len(order) != 2 || order[0] != "second" {
		t.Errorf("stopped in order %v", order)
	}
}

func TestRunGivesTheErrorOfAnEarlyStop(t *testing.T) {
	stop := kittest.Run(t, run.Func(func(ctx context.Context, ready func()) error {
		ready()
		<-ctx.Done()
		return io.ErrShortWrite
	}))
	if err := stop(); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("error %v", err)
	}
}

func TestLogFindsLines(t *testing.T) {
	log := kittest.NewLog(t)
	log.Debug("one", "a", 1)
	log.Info("two", "a", 1)
	if n := len(log.Lines("a=1")); n != 2 {
		t.Errorf("%d lines hold a=1", n)
	}
	if n := len(log.Lines("two", "a=1")); n != 1 {
		t.Errorf("%d lines hold both", n)
	}
	if n := len(log.Lines("three")); n != 0 {
		t.Errorf("%d lines hold what was not logged", n)
	}
}

func TestSpansOutliveShutdown(t *testing.T) {
	tel := kittest.NewTelemetry(t, kittest.NewLog(t))
	_, span := tel.MustService(t, "a").Tracers.Tracer("t").Start(t.Context(), "x")
	span.End()
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if spans := tel.Spans(); len(spans) != 1 || spans[0].Name != "x" {
		t.Errorf("spans %v", spans)
	}
}

func TestTLSPairFits(t *testing.T) {
	if _, err := tls.LoadX509KeyPair(kittest.TLS(t)); err != nil {
		t.Error(err)
	}
}
