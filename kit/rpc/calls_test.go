package rpc_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
)

// places are for four calls of a kind: half of all, or an eighth.
const (
	provenPlaces = 2 * 4
	probePlaces  = 8 * 4
)

// crowded is a server with so many places for calls, three of one address, behind a gateway that
// tells where its callers come from.
func crowded(t *testing.T, calls int, service *echo, auth rpc.Authenticator) *grpc.ClientConn {
	t.Helper()
	return crowdedBy(t, calls, service, rpc.ServerDeps{Auth: auth})
}

func crowdedBy(t *testing.T, calls int, service *echo, deps rpc.ServerDeps) *grpc.ClientConn {
	t.Helper()
	pipe := &rpc.Pipe{}
	listener, err := pipe.Listen("echo")
	if err != nil {
		t.Fatal(err)
	}
	cfg := rpc.DefaultServer()
	cfg.MaxCalls, cfg.MaxCallsOfOne = calls, 3
	deps.Listener, deps.Origins, deps.Public = listener, words{}, []string{echoPublic}
	serve(t, service, cfg, deps)
	return dial(t, rpc.NewPipeDialer(pipe, rpc.ClientDeps{
		Tokens: fixed("t"), Origins: words{},
	}))
}

// opener opens a call of an address that stays open, and returns once it has a place. The stream
// ends with ctx.
type opener func(ctx context.Context, conn *grpc.ClientConn) (grpc.ClientStream, error)

// hold opens a stream and waits for an answer.
func hold(method string, request, response proto.Message) opener {
	return func(ctx context.Context, conn *grpc.ClientConn) (grpc.ClientStream, error) {
		desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
		stream, err := conn.NewStream(ctx, desc, method)
		if err == nil {
			err = stream.SendMsg(request)
		}
		if errors.Is(err, io.EOF) {
			err = nil // it is over already, which the answer tells
		}
		if _, last := request.(*healthpb.HealthCheckRequest); err == nil && last {
			err = stream.CloseSend()
		}
		if err == nil {
			err = stream.RecvMsg(response)
		}
		return stream, err
	}
}

// TestOpenCallsAreShared: whoever has few finds a place, health and reflection not apart, and
// nobody has more than may be of one.
func TestOpenCallsAreShared(t *testing.T) {
	for name, open := range map[string]opener{
		"a stream": hold(echoStream, wrapperspb.String(""), new(wrapperspb.StringValue)),
		"health": hold(healthpb.Health_Watch_FullMethodName, &healthpb.HealthCheckRequest{},
			new(healthpb.HealthCheckResponse)),
		"reflection": hold(reflectionpb.ServerReflection_ServerReflectionInfo_FullMethodName,
			&reflectionpb.ServerReflectionRequest{
				MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
			}, new(reflectionpb.ServerReflectionResponse)),
	} {
		t.Run(name, func(t *testing.T) {
			calls := probePlaces
			if name == "a stream" {
				calls = provenPlaces
			}
			conn := crowded(t, calls, &echo{stream: untilDone}, anyone{})
			share(t, conn, open, name != "reflection")
		})
	}
}

// share opens calls of five addresses. told is whether one that gives way is told so: not if it
// waits for a message.
func share(t *testing.T, conn *grpc.ClientConn, open opener, told bool) {
	reason := rpc.ReasonCancelled
	if told {
		reason = rpc.ReasonCallGaveWay
	}
	from := func(address string) context.Context { return rpc.WithOrigin(t.Context(), address) }
	enter := func(address string) grpc.ClientStream {
		t.Helper()
		stream, err := open(from(address), conn)
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		return stream
	}
	refused := func(address string) {
		t.Helper()
		_, err := open(from(address), conn)
		if f := fault.From(err); !errors.Is(err, rpc.ReasonTooManyCalls) || f.Retry() == 0 {
			t.Errorf("%s: %v", address, err)
		}
	}
	of1 := make([]grpc.ClientStream, 0, 3)
	for range 3 {
		of1 = append(of1, enter("192.0.2.1"))
	}
	refused("192.0.2.1")
	enter("192.0.2.2")
	enter("192.0.2.3") // for which the newest of the first gives way
	if err := of1[2].RecvMsg(new(wrapperspb.StringValue)); !errors.Is(err, reason) {
		t.Errorf("the newest of who has most: %v", err)
	}
	enterSoon(t, func() error { // once the one that gave way has left
		_, err := open(from("192.0.2.4"), conn)
		return err
	})
	if err := of1[1].RecvMsg(new(wrapperspb.StringValue)); !errors.Is(err, reason) {
		t.Errorf("the newest of who has most then: %v", err)
	}
	refused("192.0.2.5") // all have one
}

// enterSoon tries until there is a place.
func enterSoon(t *testing.T, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		err := try()
		if err == nil {
			return
		}
		if !errors.Is(err, rpc.ReasonTooManyCalls) {
			t.Fatal(err)
		}
	}
	t.Fatal("no place became free")
}

// TestPlacesOfCallsAreGivenBack, whatever became of the call.
func TestPlacesOfCallsAreGivenBack(t *testing.T) {
	conn := crowded(t, provenPlaces, &echo{call: func(_ context.Context, text string) (string, error) {
		switch text {
		case "fail":
			return "", errors.New("no")
		case "panic":
			panic("no")
		}
		return text, nil
	}, stream: untilDone}, anyone{})
	ctx := rpc.WithOrigin(t.Context(), "192.0.2.1")
	for range 4 {
		for _, text := range []string{"", "fail", "panic"} {
			if _, err := call(ctx, conn, echoCall, text); errors.Is(err, rpc.ReasonTooManyCalls) {
				t.Fatalf("after %q: %v", text, err)
			}
		}
		refused := rpc.WithToken(ctx, "not one")
		if _, err := call(refused, conn, echoCall, ""); !errors.Is(err, rpc.ReasonTokenMalformed) {
			t.Fatal(err)
		}
	}
	open := hold(echoStream, wrapperspb.String(""), new(wrapperspb.StringValue))
	for range 10 {
		gone, cancel := context.WithCancel(ctx)
		enterSoon(t, func() error {
			_, err := open(gone, conn)
			return err
		})
		cancel()
	}
}

// heralds let every call in that has a place, and tell of it.
type heralds chan struct{}

func (h heralds) Allow(context.Context, string) error {
	h <- struct{}{}
	return nil
}

// TestRequestsGiveWay: a unary call whose request never comes has a place like any other.
func TestRequestsGiveWay(t *testing.T) {
	came := make(heralds, 100)
	conn := crowdedBy(t, provenPlaces, &echo{call: shout, stream: untilDone},
		rpc.ServerDeps{Auth: anyone{}, Limiter: came})
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	ended := make(chan error, 3)
	for range 3 {
		stream, err := conn.NewStream(rpc.WithOrigin(t.Context(), "192.0.2.1"), desc, echoCall)
		if err != nil {
			t.Fatal(err)
		}
		go func() { ended <- stream.RecvMsg(new(wrapperspb.StringValue)) }()
		<-came
	}
	open := hold(echoStream, wrapperspb.String(""), new(wrapperspb.StringValue))
	for _, from := range []string{"192.0.2.2", "192.0.2.3", "192.0.2.4"} {
		enterSoon(t, func() error {
			_, err := open(rpc.WithOrigin(t.Context(), from), conn)
			return err
		})
	}
	if err := <-ended; !errors.Is(err, rpc.ReasonCancelled) {
		t.Errorf("whose request never came: %v", err)
	}
}

// TestStreamsWithoutAMessage end, but not once one came.
func TestStreamsWithoutAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &echo{stream: func(s grpc.ServerStream) error {
			for {
				err := s.RecvMsg(new(wrapperspb.StringValue))
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				if err := s.SendMsg(wrapperspb.String("")); err != nil {
					return err
				}
			}
		}}, nil)
		silent := opened(t, r.conn)
		began := time.Now()
		err := silent.RecvMsg(new(wrapperspb.StringValue))
		if took := time.Since(began); !errors.Is(err, rpc.ReasonCancelled) ||
			took > time.Minute {
			t.Errorf("after %v: %v", took, err)
		}
		spoke := opened(t, r.conn)
		for range 2 {
			if err := spoke.SendMsg(wrapperspb.String("")); err != nil {
				t.Fatal(err)
			}
			if err := spoke.RecvMsg(new(wrapperspb.StringValue)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour) // of the bubble
		}
		if err := spoke.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}
