package rpc_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/rpc"
)

// long is an answer of 300 KiB.
func long(context.Context, string) (string, error) { return strings.Repeat("x", 300<<10), nil }

// unread asks without reading the answer, and returns once the answer is on its way.
func unread(t *testing.T, conn *grpc.ClientConn, o ...grpc.CallOption) grpc.ClientStream {
	t.Helper()
	return unreadOf(t, conn, "", o...)
}

// unreadOf is unread, of a text.
func unreadOf(t *testing.T, conn *grpc.ClientConn, text string, o ...grpc.CallOption,
) grpc.ClientStream {
	t.Helper()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer t")
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, echoCall, o...)
	if err == nil {
		err = stream.SendMsg(wrapperspb.String(text))
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err == nil {
		_, err = stream.Header()
	}
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func plain(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	const window = 64 << 10 // one that does not grow: what is not read stays at the server
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(window))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// answered asks again and again, until an answer comes.
func answered(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		err := unread(t, conn).RecvMsg(new(wrapperspb.StringValue))
		if err == nil {
			return
		}
		if err = rpc.Error("echo", err); !errors.Is(err, rpc.ReasonAnswers) {
			t.Fatal(err)
		}
	}
	t.Fatal("no answer although nobody holds any")
}

// TestAnswersThatNobodyReads: a client that asks and reads nothing is refused more, and its memory
// is free again once it leaves, takes what it asked for, or has stalled for too long.
func TestAnswersThatNobodyReads(t *testing.T) {
	for name, tt := range map[string]struct {
		stall time.Duration
		free  func(*grpc.ClientConn, []grpc.ClientStream) error
	}{
		"leaves": {time.Hour, func(c *grpc.ClientConn, _ []grpc.ClientStream) error {
			return c.Close()
		}},
		"reads": {time.Hour, func(_ *grpc.ClientConn, all []grpc.ClientStream) error {
			return all[0].RecvMsg(new(wrapperspb.StringValue))
		}},
		"stalls": {time.Millisecond, func(*grpc.ClientConn, []grpc.ClientStream) error {
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := rpc.DefaultServer()
			cfg.MaxMessage, cfg.MaxAnswers, cfg.AnswerTime = 512<<10, 1<<20, time.Hour
			cfg.AnswerTime = tt.stall
			server := build(t, &echo{call: long}, cfg, rpc.ServerDeps{Auth: anyone{}})
			kittest.Run(t, server)
			conn := plain(t, server.Addr().String())
			held := []grpc.ClientStream{unread(t, conn)}
			err := rpc.Error("echo", unread(t, conn).RecvMsg(new(wrapperspb.StringValue)))
			if f := fault.From(err); tt.stall == time.Hour && (!errors.Is(err, rpc.ReasonAnswers) ||
				f.Kind() != fault.ResourceExhausted || f.Retry() == 0) {
				t.Fatalf("beyond half of the bytes: %v", err)
			}
			if err := tt.free(conn, held); err != nil {
				t.Fatal(err)
			}
			answered(t, plain(t, server.Addr().String()))
		})
	}
}

// TestStreamsWaitForRoom: a message of a stream comes once another client has left.
func TestStreamsWaitForRoom(t *testing.T) {
	cfg := rpc.DefaultServer()
	cfg.MaxMessage, cfg.MaxAnswers = 512<<10, 1<<20
	server := build(t, &echo{call: long, stream: func(s grpc.ServerStream) error {
		text, _ := long(s.Context(), "")
		return s.SendMsg(wrapperspb.String(text))
	}}, cfg, rpc.ServerDeps{Auth: anyone{}})
	kittest.Run(t, server)
	first, second := plain(t, server.Addr().String()), plain(t, server.Addr().String())
	unread(t, first)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer t")
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := second.NewStream(ctx, desc, echoStream)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(new(wrapperspb.StringValue)); err != nil {
		t.Error(err)
	}
}
