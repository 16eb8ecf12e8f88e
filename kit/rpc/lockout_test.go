package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/united-containers/ucn/kit/rpc"
)

// choosy proves every token but those that begin with "slow", which wait, and "bad".
type choosy struct{ waits chan struct{} }

func (c choosy) Authenticate(ctx context.Context, token string) (rpc.Caller, error) {
	if strings.HasPrefix(token, "slow") {
		c.waits <- struct{}{}
		<-ctx.Done()
		return rpc.Caller{}, ctx.Err()
	}
	if token == "bad" {
		return rpc.Caller{}, errors.New("bad")
	}
	return anyone{}.Authenticate(ctx, token)
}

// Remembered implements rpc.Rememberer.
func (c choosy) Remembered(token string) (rpc.Caller, bool) {
	return rpc.Caller{Account: [32]byte{2}}, token == "known"
}

// staying is a service whose calls with the text "stay" last until their client leaves.
func staying(came chan<- struct{}) *echo {
	return &echo{stream: untilDone, call: func(ctx context.Context, text string) (string, error) {
		if text == "stay" {
			came <- struct{}{}
			<-ctx.Done()
			return "", ctx.Err()
		}
		return text, nil
	}}
}

// TestStrangersKeepOutStrangersAlone: whatever addresses without a token hold, who has one is
// served.
func TestStrangersKeepOutStrangersAlone(t *testing.T) {
	came := make(chan struct{}, 10)
	conn := crowded(t, probePlaces, staying(came), choosy{})
	from := func(n int) context.Context {
		return rpc.WithOrigin(t.Context(), fmt.Sprintf("192.0.2.%d", n))
	}
	watch := hold(healthpb.Health_Watch_FullMethodName, &healthpb.HealthCheckRequest{},
		new(healthpb.HealthCheckResponse))
	for n := range 4 {
		if _, err := watch(from(n), conn); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := watch(from(4), conn); !errors.Is(err, rpc.ReasonTooManyCalls) {
		t.Errorf("a fifth watch: %v", err)
	}
	for n := range 8 {
		go func() { _, _ = call(rpc.WithToken(from(n), ""), conn, echoPublic, "stay") }()
		<-came
	}
	for _, token := range []string{"", "bad"} {
		_, err := call(rpc.WithToken(from(200), token), conn, echoPublic, "")
		if !errors.Is(err, rpc.ReasonTooManyCalls) {
			t.Errorf("a stranger with the token %q: %v", token, err)
		}
	}
	for _, method := range []string{echoCall, echoPublic} {
		if _, err := call(from(200), conn, method, ""); err != nil {
			t.Errorf("with a token, %s: %v", method, err)
		}
	}
}

// TestProofsKeepOutNobodyWhoIsKnown: tokens that take long to be judged have few places.
func TestProofsKeepOutNobodyWhoIsKnown(t *testing.T) {
	waits := make(chan struct{}, 10)
	conn := crowded(t, probePlaces, staying(nil), choosy{waits})
	ask := func(n int, token string) error {
		ctx := rpc.WithOrigin(t.Context(), fmt.Sprintf("192.0.2.%d", n))
		_, err := call(rpc.WithToken(ctx, token), conn, echoCall, "")
		return err
	}
	for n := range 4 {
		go func() { _ = ask(n, fmt.Sprint("slow", n)) }()
		<-waits
	}
	if err := ask(200, "new"); !errors.Is(err, rpc.ReasonTooManyCalls) {
		t.Errorf("a fifth proof: %v", err)
	}
	if err := ask(200, "known"); err != nil {
		t.Errorf("a token that was proven before: %v", err)
	}
}

// TestManyNetworksOfASite: an IPv6 /48 has 65,536 addresses that count alone, but all of them give
// way to another network.
func TestManyNetworksOfASite(t *testing.T) {
	came := make(chan struct{}, 10)
	conn := crowded(t, probePlaces, staying(came), nil)
	ended := make(chan error, 8)
	for n := range 8 {
		ctx := rpc.WithOrigin(t.Context(), fmt.Sprintf("2001:db8:1:%x::1", n))
		go func() {
			_, err := call(rpc.WithToken(ctx, ""), conn, echoPublic, "stay")
			ended <- err
		}()
		<-came
	}
	for _, tt := range []struct {
		from   string
		reason error
	}{
		{"2001:db8:1:ffff::1", rpc.ReasonTooManyCalls}, {"2001:db8:2::1", nil}, {"192.0.2.1", nil},
	} {
		ctx := rpc.WithToken(rpc.WithOrigin(t.Context(), tt.from), "")
		if _, err := call(ctx, conn, echoPublic, ""); !errors.Is(err, tt.reason) {
			t.Errorf("%s: %v", tt.from, err)
		}
	}
	if err := <-ended; !errors.Is(err, rpc.ReasonCallGaveWay) {
		t.Errorf("the newest of the /48: %v", err)
	}
}

// TestProbesEnd after a minute, when they may come again; an address has few at a time.
func TestProbesEnd(t *testing.T) {
	for name, open := range map[string]opener{
		"health": hold(healthpb.Health_Watch_FullMethodName, &healthpb.HealthCheckRequest{},
			new(healthpb.HealthCheckResponse)),
		"reflection": hold(reflectionpb.ServerReflection_ServerReflectionInfo_FullMethodName,
			&reflectionpb.ServerReflectionRequest{
				MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
			}, new(reflectionpb.ServerReflectionResponse)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { probesEnd(t, open) })
		})
	}
}

func probesEnd(t *testing.T, open opener) {
	pipe := &rpc.Pipe{}
	listener, err := pipe.Listen("echo")
	if err != nil {
		t.Fatal(err)
	}
	deps := rpc.ServerDeps{Listener: listener, Origins: words{}}
	stop := serve(t, &echo{}, rpc.DefaultServer(), deps)
	conn := dial(t, rpc.NewPipeDialer(pipe, rpc.ClientDeps{Origins: words{}}))
	ctx := rpc.WithOrigin(t.Context(), "192.0.2.1")
	for range 2 {
		began := time.Now()
		first, err := open(ctx, conn)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := open(ctx, conn); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := open(ctx, conn); !errors.Is(err, rpc.ReasonTooManyCalls) {
			t.Errorf("a fifth of an address: %v", err)
		}
		err = first.RecvMsg(new(healthpb.HealthCheckResponse))
		if took := time.Since(began); err == nil || took < time.Minute || took > 61*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
		synctest.Wait()
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
