package session_test

import (
	"context"
	"encoding/hex"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/cli/session"
	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/network"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/token"
)

// hostSees serves one method on the bus and passes on who asked.
func hostSees(t *testing.T, b *broker.Broker, host eventtest.Instance) <-chan rpc.Caller {
	t.Helper()
	conn, err := b.Connect("host")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	tokens := &token.Verifier{Audience: host.Cert.Operator, Chains: []string{eventtest.Chain}}
	server, err := bus.NewServer(conn, host.Identity, bus.Authenticator{Tokens: tokens},
		bus.Options{})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan rpc.Caller, 1)
	bus.Unary(server, "test/See", func(
		ctx context.Context, m *wrapperspb.StringValue,
	) (*wrapperspb.StringValue, error) {
		caller, _ := rpc.CallerFrom(ctx)
		seen <- caller
		return m, nil
	})
	kittest.Run(t, server)
	return seen
}

// TestHostsSeeNarrowTokens: a host could use the token it is shown at its operator's storage.
func TestHostsSeeNarrowTokens(t *testing.T) {
	cfg := broker.Default()
	cfg.Dir, cfg.Services = t.TempDir(), nil
	b, err := broker.New(cfg, broker.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	kittest.Run(t, b)
	operator := eventtest.NewOperator(1)
	host := operator.Instance(t, "executor")
	seen := hostSees(t, b, host)
	s, err := session.Open(t.Context(), session.Config{
		Network: network.File{
			API: "127.0.0.1:1", Chain: eventtest.Chain, Anchor: hex.EncodeToString(make([]byte, 32)),
			Operator: id.Bech32(id.Account, operator.Signer.Account),
		},
		Key: sig.FromSeed([32]byte{9}), Now: time.Now,
		Broker: func(bus.Login) (*nats.Conn, error) { return b.Connect("wallet") },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	client, err := s.Bus()
	if err != nil {
		t.Fatal(err)
	}
	target, err := bus.TargetOf(host.Cert, "executor")
	if err != nil {
		t.Fatal(err)
	}
	in, out := wrapperspb.String("x"), &wrapperspb.StringValue{}
	if err := client.Call(t.Context(), target, "test/See", in, out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"job:host", "job:read"}, (<-seen).Scopes); diff != "" {
		t.Errorf("a host sees a token that opens more than hosts (-want +got)\n%s", diff)
	}
}
