package rpc_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/rpc"
)

// TestRefusedCallsLeaveNothing: nothing is kept of calls without token that name a far deadline.
func TestRefusedCallsLeaveNothing(t *testing.T) {
	server := build(t, &echo{call: shout}, rpc.DefaultServer(), rpc.ServerDeps{Auth: anyone{}})
	kittest.Run(t, server)
	conn := plain(t, server.Addr().String())
	refuse := func(calls int) {
		for range calls {
			ctx, cancel := context.WithTimeout(t.Context(), 10_000*time.Hour)
			_, err := call(ctx, conn, echoCall, "")
			cancel()
			if err = rpc.Error("echo", err); !errors.Is(err, rpc.ReasonTokenMissing) {
				t.Fatal(err)
			}
		}
	}
	const calls, most = 4_000, 64 // bytes of one call, which were 274
	refuse(100)                   // what is made once
	before := heap()
	refuse(calls)
	if kept := heap() - before; kept > calls*most {
		t.Errorf("%d calls without a token leave %d KiB", calls, kept>>10)
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestCallsAreRefusedBeforeTheirRequest: whoever brings no token is told so though the request
// never comes, whether or not the call has a deadline.
func TestCallsAreRefusedBeforeTheirRequest(t *testing.T) {
	server := build(t, &echo{call: shout}, rpc.DefaultServer(), rpc.ServerDeps{Auth: anyone{}})
	kittest.Run(t, server)
	conn := plain(t, server.Addr().String())
	far, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	desc := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	for name, ctx := range map[string]context.Context{"none": t.Context(), "far": far} {
		stream, err := conn.NewStream(ctx, desc, echoCall)
		if err != nil {
			t.Fatal(err)
		}
		err = rpc.Error("echo", stream.RecvMsg(new(wrapperspb.StringValue)))
		if !errors.Is(err, rpc.ReasonTokenMissing) || !errors.Is(err, fault.Unauthenticated) {
			t.Errorf("deadline %s: %v", name, err)
		}
	}
}
