package broker_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/rpc"
)

// TestClientsHaveNoDeputy: NATS does not ask whether a client may publish where it wants an answer.
// Nothing that a client with a token can say may be answered by the broker there.
func TestClientsHaveNoDeputy(t *testing.T) {
	known := tokens{"good": {Scopes: []string{"bus"}, NotAfter: time.Now().Add(time.Hour)}}
	b := start(t, config(t), broker.Deps{Tokens: rpc.Authenticator(known)})
	conn := connect(t, b, bus.TokenLogin(func() string { return "good" }))
	admin, err := b.Connect("admin")
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	js, err := jetstream.New(admin)
	if err != nil {
		t.Fatal(err)
	}
	there, nobody := subject.Address{Operator: [32]byte{1}, Service: "executor"},
		subject.Address{Operator: [32]byte{2}, Service: "executor"}
	if _, err := js.Publish(t.Context(), there.Event("job", "attempt.changed"), nil); err != nil {
		t.Fatal(err)
	}
	heard := make(chan *nats.Msg, 16)
	if _, err := admin.ChanSubscribe(there.RPC(), heard); err != nil {
		t.Fatal(err)
	}
	if err := admin.Flush(); err != nil {
		t.Fatal(err)
	}
	const order = "$JS.API.STREAM.PURGE.UCN_executor"
	for _, to := range []subject.Address{there, nobody} {
		m := nats.NewMsg(to.RPC())
		m.Reply = order
		if err := conn.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
		m.Reply = ""
		m.Header.Set("Nats-Trace-Dest", order)
		if err := conn.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	<-heard
	stream, err := js.Stream(t.Context(), "UCN_executor")
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("the stream holds %d events, want 1", n)
	}
}
