package executor_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	meternoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/united-containers/ucn/chain/sig"
	events "github.com/united-containers/ucn/kit/event/pebble"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/agenttest"
	"github.com/united-containers/ucn/services/executor/fake"
	"github.com/united-containers/ucn/services/executor/journal"
	"github.com/united-containers/ucn/services/executor/server"
)

// BenchmarkNoop is what an executor adds to a job that does nothing: from the question to the
// result, with a journal on this disk, and an engine, a chain and a storage that take no time.
func BenchmarkNoop(b *testing.B) {
	host := fake.NewHost(fake.Options{AnyImage: true})
	j, err := journal.Open(b.TempDir(), journal.Options{},
		func(db *pebble.DB) (journal.Outbox, error) { return events.NewOutbox(db, "out/") })
	if err != nil {
		b.Fatal(err)
	}
	ledger := agenttest.NewLedger(sig.Anchor{7}, time.Now)
	encoder, err := server.NewEncoder(nil)
	if err != nil {
		b.Fatal(err)
	}
	cfg := executor.DefaultConfig()
	cfg.AckWait = 0
	agent, err := executor.New(cfg, executor.Identity{
		Key: key(4), Operator: sig.AccountID{4}, Payee: sig.AccountID{5},
		Anchors: map[string]sig.Anchor{"main": {7}},
	}, executor.Deps{
		Driver: host.Driver("e"), Journal: j, Ledger: ledger, Files: agenttest.NewFiles(),
		Encoder: encoder, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Tracers: tracenoop.NewTracerProvider(), Meters: meternoop.NewMeterProvider(),
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- agent.Run(ctx, func() { close(ready) }) }()
	<-ready
	for agent.Offer().Expires.IsZero() {
		<-time.After(time.Millisecond)
	}
	for n := 0; b.Loop(); n++ {
		noop(b, agent, ledger, n)
	}
	b.StopTimer()
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
	host.Shutdown()
	if err := j.Close(); err != nil {
		b.Error(err)
	}
}

func noop(b *testing.B, agent *executor.Agent, ledger *agenttest.Ledger, n int) {
	encoder, err := server.NewEncoder(nil)
	if err != nil {
		b.Fatal(err)
	}
	_, hash, err := encoder.Offer(agent.Offer())
	if err != nil {
		b.Fatal(err)
	}
	w := &world{owner: executor.Peer{Account: sig.AccountID{1}}, ackKey: key(3)}
	id := executor.JobID{byte(n), byte(n >> 8), byte(n >> 16), 1}
	ask := executor.Ask{
		From: executor.Peer{Instance: sig.PublicKey{2}}, Job: id, Run: "01", Offer: hash,
		Attempt: executor.AttemptID(fmt.Sprintf("%x", id[:16])),
		Spec: executor.JobSpec{
			Owner: w.owner.Account, Chain: "main", Image: image, Args: []string{"exit", "0"},
			Isolation: executor.IsolationStandard,
			Resources: executor.Resources{CPUMilli: 100, Memory: 8 << 20},
		},
		Terms: executor.Terms{
			Escrow: executor.EscrowID(id), Subject: id, Budget: ucn,
			AckKeys: []sig.PublicKey{w.ackKey.Public()},
			PlaceBy: uint64(time.Now().Add(time.Minute).UnixMilli()),
			Until:   uint64(time.Now().Add(time.Hour).UnixMilli()),
		},
	}
	ledger.Open(ask.Terms.Escrow, w.escrow(&ask))
	answer, err := agent.Ask(b.Context(), ask)
	if err != nil || answer.Lease == nil {
		b.Fatalf("answer %+v, %v", answer.Declined, err)
	}
	if err := ledger.Place(*answer.Lease); err != nil {
		b.Fatal(err)
	}
	err = agent.Task(b.Context(), w.task(ask, answer.Lease.ID), func(executor.Update) error {
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}
