package rpc_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/united-containers/ucn/kit/rpc"
)

// ending opens calls of an address, of which no more is sent, and returns after how long each ends,
// sorted.
func ending(t *testing.T, conn *grpc.ClientConn, from, method string, calls int,
) func() []time.Duration {
	t.Helper()
	ends, began := make(chan time.Duration, calls), time.Now()
	for range calls {
		stream, err := conn.NewStream(rpc.WithOrigin(t.Context(), from),
			&grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if err := stream.RecvMsg(new(wrapperspb.StringValue)); err == nil {
				t.Error("an answer to nothing")
			}
			ends <- time.Since(began)
		}()
	}
	return func() (all []time.Duration) {
		for range calls {
			all = append(all, <-ends)
		}
		slices.Sort(all)
		return all
	}
}

// slowly is a server with room for four slow requests, two of one address.
func slowly(t *testing.T) rig {
	t.Helper()
	var pipe rpc.Pipe
	listener, err := pipe.Listen("echo")
	if err != nil {
		t.Fatal(err)
	}
	cfg := rpc.DefaultServer()
	cfg.MaxRequests = 4 * cfg.MaxMessage
	stop := serve(t, &echo{call: shout}, cfg, rpc.ServerDeps{
		Auth: anyone{}, Listener: listener, Origins: words{}, Public: []string{echoPublic},
	})
	conn := dial(t, rpc.NewPipeDialer(&pipe, rpc.ClientDeps{Tokens: fixed("t"), Origins: words{}}))
	return rig{conn: conn, stop: stop}
}

// TestSlowRequests: of messages that do not come at once, as many are awaited as there is room for.
func TestSlowRequests(t *testing.T) {
	const short, long = 2 * time.Second, time.Minute
	for _, method := range []string{echoCall, echoPublic} {
		synctest.Test(t, func(t *testing.T) {
			r := slowly(t)
			first := ending(t, r.conn, "192.0.2.1", method, 3)
			second := ending(t, r.conn, "192.0.2.2", method, 2)
			time.Sleep(short + time.Millisecond) // of the bubble: all that take long have a place
			third, err := r.conn.NewStream(rpc.WithOrigin(t.Context(), "192.0.2.3"),
				&grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * short)
			if err := third.SendMsg(wrapperspb.String("late")); err != nil {
				t.Fatal(err)
			}
			if err := third.CloseSend(); err != nil {
				t.Fatal(err)
			}
			answer := new(wrapperspb.StringValue)
			if err := third.RecvMsg(answer); err != nil || answer.GetValue() != "LATE" {
				t.Errorf("a slow request of who has one: %q, %v", answer.GetValue(), err)
			}
			all := slices.Concat(first(), second())
			slices.Sort(all)
			want := []time.Duration{short, 2 * short, long, long, long}
			for i := range want {
				if d := all[i] - want[i]; d < 0 || d > time.Second {
					t.Errorf("%s: they ended after %v, want %v", method, all, want)
				}
			}
			if err := r.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSlowReflection: its streams may wait between requests, but as few as any request.
func TestSlowReflection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := slowly(t)
		ask := hold(reflectionpb.ServerReflection_ServerReflectionInfo_FullMethodName,
			&reflectionpb.ServerReflectionRequest{
				MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
			}, new(reflectionpb.ServerReflectionResponse))
		ended := make(chan error, 3)
		for range 3 {
			stream, err := ask(rpc.WithOrigin(t.Context(), "192.0.2.1"), r.conn)
			if err != nil {
				t.Fatal(err)
			}
			go func() { ended <- stream.RecvMsg(new(reflectionpb.ServerReflectionResponse)) }()
		}
		time.Sleep(10 * time.Second) // of the bubble
		if n := len(ended); n != 1 {
			t.Errorf("%d of 3 that say nothing have ended", n)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}
