package rpc_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/rpc"
)

// shelf is a server with room for answers of 1 MiB.
func shelf(t *testing.T, service *echo) *grpc.ClientConn {
	t.Helper()
	cfg := rpc.DefaultServer()
	cfg.MaxMessage, cfg.MaxAnswers, cfg.AnswerTime = 512<<10, 1<<20, time.Hour
	server := build(t, service, cfg, rpc.ServerDeps{Auth: anyone{}})
	kittest.Run(t, server)
	return plain(t, server.Addr().String())
}

// opened is a stream of a server, before its first message.
func opened(t *testing.T, conn *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer t")
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := conn.NewStream(ctx, desc, echoStream)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// TestStreamReservesOnceItsClientHasRead what was sent before.
func TestStreamReservesOnceItsClientHasRead(t *testing.T) {
	unread, goOn := make(chan error, 1), make(chan struct{})
	conn := shelf(t, &echo{stream: func(s grpc.ServerStream) error {
		text, _ := long(s.Context(), "")
		for n := range 3 {
			if n == 1 {
				soon, cancel := context.WithTimeout(s.Context(), 20*time.Millisecond)
				unread <- rpc.Reserve(soon, len(text))
				cancel()
				<-goOn
			}
			if err := rpc.Reserve(s.Context(), len(text)); err != nil {
				return err
			}
			if err := s.SendMsg(wrapperspb.String(text)); err != nil {
				return err
			}
		}
		return nil
	}})
	stream := opened(t, conn)
	if err := <-unread; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("although nothing was read: %v", err)
	}
	close(goOn)
	for range 3 {
		if err := stream.RecvMsg(new(wrapperspb.StringValue)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReserveWithoutRoom: a unary call is refused before anything is built for it, and a stream
// waits until there is room.
func TestReserveWithoutRoom(t *testing.T) {
	var built atomic.Int32
	conn := shelf(t, &echo{call: func(ctx context.Context, _ string) (string, error) {
		if err := rpc.Reserve(ctx, 300<<10); err != nil {
			return "", err
		}
		built.Add(1)
		return long(ctx, "")
	}, stream: func(s grpc.ServerStream) error {
		if err := rpc.Reserve(s.Context(), 300<<10); err != nil {
			return err
		}
		return s.SendMsg(wrapperspb.String("x")) // less than was thought
	}})
	held := unread(t, conn)
	err := rpc.Error("echo", unread(t, conn).RecvMsg(new(wrapperspb.StringValue)))
	if f := fault.From(err); !errors.Is(err, rpc.ReasonAnswers) || f.Retry() == 0 ||
		built.Load() != 1 {
		t.Errorf("without room: %v, %d built", err, built.Load())
	}
	stream := opened(t, conn)
	if err := held.RecvMsg(new(wrapperspb.StringValue)); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(new(wrapperspb.StringValue)); err != nil {
		t.Errorf("once there is room: %v", err)
	}
	for range 10 { // what was reserved too much is free again
		answered(t, conn)
	}
}

// TestReservedAndNotSent is given back, by the next and at the end.
func TestReservedAndNotSent(t *testing.T) {
	conn := shelf(t, &echo{call: func(ctx context.Context, text string) (string, error) {
		for range 10 {
			if err := rpc.Reserve(ctx, 300<<10); err != nil {
				return "", err
			}
		}
		if text == "fail" {
			return "", errors.New("no")
		}
		return text, nil
	}})
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer t")
	for range 10 {
		_, err := call(ctx, conn, echoCall, "fail")
		if f := fault.From(rpc.Error("echo", err)); f.Kind() != fault.Internal {
			t.Fatalf("a handler that fails: %v", f)
		}
		if _, err := call(ctx, conn, echoCall, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := rpc.Reserve(t.Context(), 1<<40); err != nil {
		t.Errorf("outside of a server: %v", err)
	}
}

// TestAskedCompressed: answers of who asks compressed are counted like all others.
func TestAskedCompressed(t *testing.T) {
	noise := make([]byte, 150<<10)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	conn := shelf(t, &echo{call: func(context.Context, string) (string, error) {
		return hex.EncodeToString(noise), nil
	}})
	held := unread(t, conn, grpc.UseCompressor(gzip.Name))
	err := unread(t, conn, grpc.UseCompressor(gzip.Name)).RecvMsg(new(wrapperspb.StringValue))
	if err = rpc.Error("echo", err); !errors.Is(err, rpc.ReasonAnswers) {
		t.Errorf("beyond half of the bytes: %v", err)
	}
	m := new(wrapperspb.StringValue)
	if err := held.RecvMsg(m); err != nil || m.GetValue() != hex.EncodeToString(noise) {
		t.Errorf("an answer to who asked compressed: %d bytes, %v", len(m.GetValue()), err)
	}
}
