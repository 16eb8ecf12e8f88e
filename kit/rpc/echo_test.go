package rpc_test

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/rpc"
)

const (
	echoCall   = "/test.Echo/Call"
	echoPublic = "/test.Echo/Public"
	echoStream = "/test.Echo/Stream"
)

// echo is the service under test: its behaviour is whatever the test puts in.
type echo struct {
	call   func(ctx context.Context, text string) (string, error)
	stream func(stream grpc.ServerStream) error
}

// register adds the service to a server, as generated code would.
func (e *echo) register(to grpc.ServiceRegistrar) {
	method := func(name string) grpc.MethodDesc {
		return grpc.MethodDesc{MethodName: name, Handler: func(_ any, ctx context.Context,
			decode func(any) error, intercept grpc.UnaryServerInterceptor,
		) (any, error) {
			request := new(wrapperspb.StringValue)
			if err := decode(request); err != nil {
				return nil, err
			}
			info := &grpc.UnaryServerInfo{Server: e, FullMethod: "/test.Echo/" + name}
			return intercept(ctx, request, info, func(ctx context.Context, _ any) (any, error) {
				text, err := e.call(ctx, request.GetValue())
				return wrapperspb.String(text), err
			})
		}}
	}
	to.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Echo", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{method("Call"), method("Public")},
		Streams: []grpc.StreamDesc{{
			StreamName: "Stream", ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error { return e.stream(stream) },
		}},
	}, e)
}

// call makes a unary call.
func call(ctx context.Context, conn grpc.ClientConnInterface, method, text string) (string, error) {
	response := new(wrapperspb.StringValue)
	err := conn.Invoke(ctx, method, wrapperspb.String(text), response)
	return response.GetValue(), err
}

// openStream starts a stream and waits for the server's first message.
func openStream(ctx context.Context, t *testing.T, conn grpc.ClientConnInterface,
) grpc.ClientStream {
	t.Helper()
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := conn.NewStream(ctx, desc, echoStream)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(new(wrapperspb.StringValue)); err != nil {
		t.Fatal(err)
	}
	return stream
}

// untilDone is a stream handler that greets and waits for its context to end.
func untilDone(stream grpc.ServerStream) error {
	if err := stream.SendMsg(wrapperspb.String("hello")); err != nil {
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

// anyone accepts every token as account 1 with the scopes "job" and "file:read".
type anyone struct{}

func (anyone) Authenticate(context.Context, string) (rpc.Caller, error) {
	return rpc.Caller{Account: [32]byte{1}, Scopes: []string{"job", "file:read"}}, nil
}

// fixed is a TokenSource with one token.
type fixed string

func (f fixed) Token(context.Context, string) (string, error) { return string(f), nil }

// rig is one server on a Pipe and a connection to it.
type rig struct {
	log  *kittest.Log
	conn *grpc.ClientConn
	stop func() error
}

// newRig starts e behind a server; change may alter what it is built from.
func newRig(t *testing.T, e *echo, change func(*rpc.ServerConfig, *rpc.ServerDeps)) rig {
	t.Helper()
	var pipe rpc.Pipe
	listener, err := pipe.Listen("echo")
	if err != nil {
		t.Fatal(err)
	}
	log := kittest.NewLog(t)
	cfg := rpc.DefaultServer()
	deps := rpc.ServerDeps{
		Log: log.Logger, Auth: anyone{}, Listener: listener, Public: []string{echoPublic},
	}
	if change != nil {
		change(&cfg, &deps)
	}
	stop := serve(t, e, cfg, deps)
	conn := dial(t, rpc.NewPipeDialer(&pipe, rpc.ClientDeps{Tokens: fixed("t0ken")}))
	return rig{log: log, conn: conn, stop: stop}
}

func serve(t *testing.T, e *echo, cfg rpc.ServerConfig, deps rpc.ServerDeps) func() error {
	t.Helper()
	return kittest.Run(t, build(t, e, cfg, deps))
}

func build(t *testing.T, e *echo, cfg rpc.ServerConfig, deps rpc.ServerDeps) *rpc.Server {
	t.Helper()
	server, err := rpc.NewServer(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	e.register(server)
	return server
}

func dial(t *testing.T, d rpc.Dialer) *grpc.ClientConn {
	t.Helper()
	conn, err := d.Dial(t.Context(), "echo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}
