package bus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
)

func TestStream(t *testing.T) {
	h := build(t, bus.Options{})
	c := h.client(t, bus.ClientOptions{})
	const many = 5 * bus.Window
	r, err := c.Stream(t.Context(), h.server.Target(), "Count", wrapperspb.UInt32(many),
		bus.ForJob([32]byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n := 0
	for m, err := range bus.Replies[*text](r) {
		if err != nil {
			t.Fatal(err)
		}
		if m.Value != fmt.Sprint(n) {
			t.Fatalf("message %d is %q", n, m.Value)
		}
		n++
	}
	if n != many {
		t.Errorf("%d messages, want %d", n, many)
	}
	if err := r.Next(&text{}); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

func TestSlowReaderHoldsTheSender(t *testing.T) {
	var sent atomic.Int64
	h := build(t, bus.Options{KeepEvery: 10 * time.Millisecond})
	c := h.client(t, bus.ClientOptions{Tell: 20 * time.Millisecond})
	blocked := make(chan struct{})
	s, err := bus.NewServer(h.connect(t), eventtest.NewOperator(3).Instance(t, "executor").Identity,
		bus.Authenticator{Instances: cert.Verifier{Chains: []string{eventtest.Chain}},
			Tokens: anyToken{}}, bus.Options{KeepEvery: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	bus.ServerStream(s, "Flood",
		func(ctx context.Context, _ *text, send func(*text) error) error {
			for range 2 * bus.Window {
				timer := time.AfterFunc(300*time.Millisecond, sync.OnceFunc(func() {
					close(blocked)
				}))
				err := send(wrapperspb.String("x"))
				timer.Stop()
				if err != nil {
					return err
				}
				sent.Add(1)
			}
			return nil
		})
	background(t, s.Run)
	r, err := c.Stream(t.Context(), s.Target(), "Flood", &text{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	<-blocked
	if n := sent.Load(); n > bus.Window {
		t.Errorf("%d messages were sent to a reader that reads none", n)
	}
	n := 0
	for _, err := range bus.Replies[*text](r) {
		if err != nil {
			t.Fatalf("after %d messages: %v", n, err)
		}
		n++
	}
	if n != 2*bus.Window {
		t.Errorf("%d messages, want %d", n, 2*bus.Window)
	}
}

// anyToken believes every token.
type anyToken struct{}

func (anyToken) Authenticate(context.Context, string) (rpc.Caller, error) {
	return rpc.Caller{}, nil
}

func TestLeavingEndsTheHandler(t *testing.T) {
	h := build(t, bus.Options{KeepEvery: 10 * time.Millisecond, Patience: 200 * time.Millisecond})
	begin := func(opt bus.ClientOptions) *bus.Receiver {
		t.Helper()
		r, err := h.client(t, opt).Stream(t.Context(), h.server.Target(), "Forever", &text{})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Next(&text{}); err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := begin(bus.ClientOptions{Tell: 20 * time.Millisecond})
	select { // alive as long as the client is
	case cause := <-h.left:
		t.Fatalf("the handler ended: %v", cause)
	case <-time.After(400 * time.Millisecond):
	}
	r.Close()
	if cause := <-h.left; !contains(fmt.Sprint(cause), "left") {
		t.Errorf("after Close the handler ended with %v", cause)
	}
	mute := begin(bus.ClientOptions{Tell: time.Hour})
	defer mute.Close()
	if cause := <-h.left; !contains(fmt.Sprint(cause), "silent") {
		t.Errorf("without the client's word the handler ended with %v", cause)
	}
}

func TestServerDiesMidStream(t *testing.T) {
	h := build(t, bus.Options{KeepEvery: 10 * time.Millisecond})
	id := eventtest.NewOperator(4).Instance(t, "executor").Identity
	conn := h.connect(t)
	s, err := bus.NewServer(conn, id, bus.Authenticator{Tokens: anyToken{}},
		bus.Options{KeepEvery: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	bus.ServerStream(s, "Forever",
		func(ctx context.Context, _ *text, send func(*text) error) error {
			err := send(wrapperspb.String("begun"))
			<-ctx.Done()
			return err
		})
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- s.Run(ctx, func() { close(ready) }) }()
	<-ready
	r, err := h.client(t, bus.ClientOptions{Silence: 200 * time.Millisecond}).
		Stream(t.Context(), s.Target(), "Forever", &text{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Next(&text{}); err != nil {
		t.Fatal(err)
	}
	conn.Close() // as if the power failed
	if err := <-done; err == nil {
		t.Error("the server did not notice that its connection is gone")
	}
	cancel()
	err = r.Next(&text{})
	if !errors.Is(err, fault.Unavailable) || !errors.Is(err, bus.ReasonSilent) {
		t.Errorf("error %v, want %s", err, bus.ReasonSilent)
	}
}

func TestStoppingTellsClients(t *testing.T) {
	h := build(t, bus.Options{})
	r, err := h.client(t, bus.ClientOptions{}).
		Stream(t.Context(), h.server.Target(), "Forever", &text{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Next(&text{}); err != nil {
		t.Fatal(err)
	}
	h.stop()
	if err := r.Next(&text{}); !errors.Is(err, rpc.ReasonDraining) {
		t.Errorf("error %v, want %s", err, rpc.ReasonDraining)
	}
}
