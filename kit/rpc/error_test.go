package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
)

func TestFaultsCrossWhole(t *testing.T) {
	sent := fault.New(fault.FailedPrecondition, "NONCE_OLD", "use nonce %d", 8).
		With("nonce", "8").WithRetry(1500 * time.Millisecond).
		Because(errors.New("secret of this machine"))
	wrapped := fmt.Errorf("/var/lib/path: %w", sent)
	r := newRig(t, &echo{
		call:   func(context.Context, string) (string, error) { return "lost", wrapped },
		stream: func(grpc.ServerStream) error { return wrapped },
	}, nil)
	_, unary := call(t.Context(), r.conn, echoCall, "")
	stream, err := r.conn.NewStream(t.Context(),
		&grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, echoStream)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{unary, stream.RecvMsg(new(wrapperspb.StringValue))} {
		got := fault.From(err)
		if got == nil {
			t.Fatalf("error %v is no fault", err)
		}
		if !errors.Is(err, sent) || !errors.Is(err, fault.FailedPrecondition) ||
			!errors.Is(err, fault.Reason("NONCE_OLD")) || got.Message() != "use nonce 8" ||
			got.Value("nonce") != "8" || got.Retry() != 1500*time.Millisecond {
			t.Errorf("fault %+v", got)
		}
		if text := err.Error(); strings.Contains(text, "secret") || strings.Contains(text, "path") {
			t.Errorf("the wire carried %q", text)
		}
		if code := status.Code(err); code != codes.FailedPrecondition {
			t.Errorf("code %s", code)
		}
	}
}

func TestLargestFaultCrosses(t *testing.T) {
	largest := fault.New(fault.Aborted, fault.Reason(strings.Repeat("R", fault.MaxReason)), "%s",
		strings.Repeat("界", fault.MaxMessage)).WithRetry(time.Hour)
	for i := range fault.MaxMeta {
		largest = largest.With(fmt.Sprint(i, strings.Repeat("k", fault.MaxKey)),
			strings.Repeat("v", fault.MaxValue))
	}
	r := newRig(t, &echo{call: func(context.Context, string) (string, error) {
		return "", largest
	}}, nil)
	_, err := call(t.Context(), r.conn, echoCall, "")
	got := fault.From(err)
	if !errors.Is(err, largest) || got.Message() != largest.Message() ||
		len(got.Meta()) != fault.MaxMeta {
		t.Errorf("fault %v with %d entries", got.Reason(), len(got.Meta()))
	}
}

func TestEverythingElseIsRedacted(t *testing.T) {
	cases := []struct {
		name string
		err  error
	}{
		{"plain error", errors.New("password=hunter2")},
		{"status by hand", status.Error(codes.NotFound, "password=hunter2")},
		{"wrapped status", fmt.Errorf("x: %w", status.Error(codes.Unimplemented, "hunter2"))},
		{"end of file", io.EOF},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, &echo{call: func(context.Context, string) (string, error) {
				return "", c.err
			}}, nil)
			_, err := call(t.Context(), r.conn, echoCall, "")
			got := fault.From(err)
			if got.Kind() != fault.Internal || got.Reason() != rpc.ReasonInternal {
				t.Fatalf("fault %v", got)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the wire carried %q", err)
			}
			lines := r.log.Lines("level=ERROR", got.Value("id"), c.err.Error())
			if got.Value("id") == "" || len(lines) != 1 {
				t.Errorf("id %q is logged in %q", got.Value("id"), r.log.Lines())
			}
		})
	}
}

func TestPanicsStayInside(t *testing.T) {
	r := newRig(t, &echo{
		call:   func(context.Context, string) (string, error) { panic("hunter2") },
		stream: func(grpc.ServerStream) error { panic("hunter3") },
	}, nil)
	_, unary := call(t.Context(), r.conn, echoCall, "")
	stream, err := r.conn.NewStream(t.Context(),
		&grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, echoStream)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{unary, stream.RecvMsg(new(wrapperspb.StringValue))} {
		if !errors.Is(err, fault.Internal) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("error %v", err)
		}
		lines := r.log.Lines(fault.From(err).Value("id"), "panic: hunter", "echo_test.go")
		if len(lines) != 1 {
			t.Errorf("no stack for %v in %q", err, r.log.Lines())
		}
	}
}

func TestContextErrorsKeepTheirMeaning(t *testing.T) {
	entered := make(chan struct{}, 1)
	r := newRig(t, &echo{call: func(ctx context.Context, _ string) (string, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return "", fmt.Errorf("read rows: %w", ctx.Err())
	}}, func(c *rpc.ServerConfig, _ *rpc.ServerDeps) { c.MaxTime = 50 * time.Millisecond })
	_, err := call(t.Context(), r.conn, echoCall, "")
	if !errors.Is(err, fault.DeadlineExceeded) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("server's time cap: error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	<-entered
	go func() { <-entered; cancel() }()
	_, err = call(ctx, r.conn, echoCall, "")
	if !errors.Is(err, fault.Cancelled) || !errors.Is(err, context.Canceled) {
		t.Errorf("client's cancel: error %v", err)
	}
	if lines := r.log.Lines("level=ERROR"); len(lines) != 0 {
		t.Errorf("logged as internal: %q", lines)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	r := newRig(t, &echo{call: func(_ context.Context, text string) (string, error) {
		return strings.Repeat(text, 2), nil
	}}, func(c *rpc.ServerConfig, _ *rpc.ServerDeps) { c.MaxMessage = 64 * config.KiB })
	cases := []struct {
		name string
		size int
		want fault.Kind
	}{
		{"fits", 1 << 10, fault.OK},
		{"request too large", 65 << 10, fault.ResourceExhausted},
		{"response too large", 40 << 10, fault.ResourceExhausted},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := call(t.Context(), r.conn, echoCall, strings.Repeat("x", c.size))
			if fault.KindOf(err) != c.want {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
}

func TestUnknownMethod(t *testing.T) {
	r := newRig(t, &echo{}, nil)
	_, err := call(t.Context(), r.conn, "/test.Echo/Nothing", "")
	if !errors.Is(err, fault.Unimplemented) || !errors.Is(err, rpc.ReasonUnimplemented) {
		t.Errorf("error %v", err)
	}
}

func TestForeignServersText(t *testing.T) {
	err := rpc.Error("dns", status.Error(codes.NotFound, "text of a stranger"))
	f := fault.From(err)
	if f.Kind() != fault.NotFound || f.Reason() != rpc.ReasonForeign ||
		strings.Contains(f.Message(), "stranger") || !strings.Contains(err.Error(), "stranger") {
		t.Errorf("fault %v: the stranger's text belongs into the local cause only", f)
	}
	if shown := status.Convert(err); strings.Contains(shown.Message(), "stranger") {
		t.Errorf("a gateway would show %q", shown.Message())
	}
	if got := rpc.Error("dns", io.EOF); got != io.EOF {
		t.Errorf("an error that is no status became %v", got)
	}
	if rpc.Error("dns", nil) != nil || rpc.Status(nil) != nil {
		t.Error("success became an error")
	}
}

func TestPassingOnAPeersFault(t *testing.T) {
	first := rpc.Status(fault.New(fault.NotFound, "NO_ACCOUNT", "no such account")).Err()
	second := rpc.Status(fmt.Errorf("ask ledger: %w", rpc.Error("ledger", first)))
	got := fault.From(rpc.Error("gateway", second.Err()))
	if got.Reason() != "NO_ACCOUNT" || got.Message() != "no such account" {
		t.Errorf("after two hops: %v", got)
	}
}

func TestRefusalOfOurOwnTokenIsOurTrouble(t *testing.T) {
	for _, refused := range []*fault.Error{
		fault.New(fault.Unauthenticated, rpc.ReasonTokenExpired, "make a new one"),
		fault.New(fault.PermissionDenied, rpc.ReasonScopeMissing, "make another one"),
	} {
		fromPeer := rpc.Error("ledger", rpc.Status(refused).Err())
		r := newRig(t, &echo{call: func(context.Context, string) (string, error) {
			return "", fmt.Errorf("ask ledger: %w", fromPeer)
		}}, nil)
		_, err := call(t.Context(), r.conn, echoCall, "")
		if !errors.Is(err, rpc.ReasonInternal) ||
			len(r.log.Lines("level=ERROR", fault.From(err).Value("id"))) != 1 {
			t.Errorf("%s reached the caller as %v", refused.Reason(), err)
		}
	}
}

func TestStreamHeaderErrorsAreFaults(t *testing.T) {
	r := newRig(t, &echo{stream: func(grpc.ServerStream) error { return errors.New("x") }}, nil)
	stream, err := r.conn.NewStream(rpc.WithToken(t.Context(), ""),
		&grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, echoStream)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil && !errors.Is(err, rpc.ReasonTokenMissing) {
		t.Errorf("header: error %v", err)
	}
	err = stream.RecvMsg(new(wrapperspb.StringValue))
	if !errors.Is(err, rpc.ReasonTokenMissing) {
		t.Errorf("message: error %v", err)
	}
}
