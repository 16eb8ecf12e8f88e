package rpc_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/rpc"
)

// shout answers in capitals.
func shout(_ context.Context, text string) (string, error) { return strings.ToUpper(text), nil }

func TestSameServiceOverEveryTransport(t *testing.T) {
	certFile, keyFile := kittest.TLS(t)
	socket := filepath.Join(t.TempDir(), "echo.sock")
	cases := []struct {
		name   string
		server func(*rpc.ServerConfig)
		peer   rpc.Peer
	}{
		{"tcp", func(*rpc.ServerConfig) {}, rpc.Peer{}},
		{"tls", func(c *rpc.ServerConfig) {
			c.TLSCert, c.TLSKey = certFile, config.SecretFile(keyFile)
		}, rpc.Peer{TLS: true, CA: certFile, ServerName: "localhost"}},
		{"unix", func(c *rpc.ServerConfig) { c.Addr = "unix:" + socket }, rpc.Peer{}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cfg := rpc.DefaultServer()
			c.server(&cfg)
			server := build(t, &echo{call: shout, stream: untilDone}, cfg,
				rpc.ServerDeps{Auth: anyone{}})
			kittest.Run(t, server)
			peer := c.peer
			if peer.Addr = server.Addr().String(); server.Addr().Network() == "unix" {
				peer.Addr = "unix:" + peer.Addr
			}
			clients := rpc.DefaultClient()
			clients.Peers = map[string]rpc.Peer{"echo": peer}
			dialer, err := rpc.NewDialer(clients, rpc.ClientDeps{Tokens: fixed("t")})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := call(t.Context(), dial(t, dialer), echoCall, "hello"); got != "HELLO" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestPlaintextClientIsRefusedByTLSServer(t *testing.T) {
	certFile, keyFile := kittest.TLS(t)
	cfg := rpc.DefaultServer()
	cfg.TLSCert, cfg.TLSKey = certFile, config.SecretFile(keyFile)
	server := build(t, &echo{call: shout}, cfg, rpc.ServerDeps{Auth: anyone{}})
	kittest.Run(t, server)
	otherCert, _ := kittest.TLS(t)
	for name, peer := range map[string]rpc.Peer{
		"plaintext": {}, "another authority": {TLS: true, CA: otherCert},
	} {
		clients := rpc.DefaultClient()
		peer.Addr = server.Addr().String()
		clients.Peers = map[string]rpc.Peer{"echo": peer}
		dialer, err := rpc.NewDialer(clients, rpc.ClientDeps{Tokens: fixed("t")})
		if err != nil {
			t.Fatal(err)
		}
		_, err = call(t.Context(), dial(t, dialer), echoCall, "hello")
		if !errors.Is(err, fault.Unavailable) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestUnixSocketOfADeadServerIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	cfg := rpc.DefaultServer()
	cfg.Addr = "unix:" + path
	dead, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	serve(t, &echo{}, cfg, rpc.ServerDeps{})
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	second := build(t, &echo{}, cfg, rpc.ServerDeps{})
	if err := second.Run(t.Context(), func() {}); err == nil ||
		!strings.Contains(err.Error(), "another server") {
		t.Errorf("a second server: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Addr = "unix:" + file
	if err := build(t, &echo{}, cfg, rpc.ServerDeps{}).Run(t.Context(), func() {}); err == nil {
		t.Error("a server took the place of a file")
	}
	if content, err := os.ReadFile(file); string(content) != "data" {
		t.Errorf("the file holds %q, %v", content, err)
	}
}

func TestDrainLetsCallsFinish(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	r := newRig(t, &echo{call: func(context.Context, string) (string, error) {
		close(entered)
		<-release
		return "done", nil
	}}, nil)
	answered := make(chan string, 1)
	go func() {
		got, err := call(t.Context(), r.conn, echoCall, "")
		if err != nil {
			got = err.Error()
		}
		answered <- got
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	waitForNotServing(t, r.conn)
	close(release)
	if got := <-answered; got != "done" {
		t.Errorf("the call in progress got %q", got)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run returned %v", err)
	}
}

// waitForNotServing returns once the server takes no new calls.
func waitForNotServing(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	for range 10_000 {
		response, err := healthpb.NewHealthClient(conn).Check(t.Context(),
			&healthpb.HealthCheckRequest{})
		if err != nil || response.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			return
		}
	}
	t.Fatal("the server still serves")
}

func TestDrainEndsStreams(t *testing.T) {
	r := newRig(t, &echo{stream: untilDone}, func(c *rpc.ServerConfig, _ *rpc.ServerDeps) {
		c.Drain = 300 * time.Millisecond
	})
	stream := openStream(t.Context(), t, r.conn)
	if err := r.stop(); err != nil {
		t.Errorf("Run returned %v", err)
	}
	err := stream.RecvMsg(new(wrapperspb.StringValue))
	if !errors.Is(err, rpc.ReasonDraining) || !errors.Is(err, fault.Unavailable) {
		t.Errorf("error %v, want SERVER_DRAINING", err)
	}
}

func TestDrainCutsOffWhatHangs(t *testing.T) {
	entered := make(chan struct{})
	r := newRig(t, &echo{call: func(ctx context.Context, _ string) (string, error) {
		close(entered)
		<-ctx.Done() // only the end of its connection ends this
		return "", ctx.Err()
	}}, func(c *rpc.ServerConfig, _ *rpc.ServerDeps) { c.Drain = 100 * time.Millisecond })
	answered := make(chan error, 1)
	go func() {
		_, err := call(t.Context(), r.conn, echoCall, "")
		answered <- err
	}()
	<-entered
	if err := r.stop(); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if err := <-answered; !errors.Is(err, fault.Unavailable) && !errors.Is(err, fault.Cancelled) {
		t.Errorf("the hanging call got %v", err)
	}
	if len(r.log.Lines("cutting off")) != 1 {
		t.Errorf("log %q", r.log.Lines())
	}
}

func TestRunReportsAListenerThatFails(t *testing.T) {
	var pipe rpc.Pipe
	listener, err := pipe.Listen("echo")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	server := build(t, &echo{}, rpc.DefaultServer(), rpc.ServerDeps{Listener: listener})
	if err := server.Run(t.Context(), func() {}); err == nil {
		t.Error("Run returned nil without being told to stop")
	}
	misspelt := build(t, &echo{}, rpc.DefaultServer(), rpc.ServerDeps{Public: []string{"/a.B/C"}})
	if err := misspelt.Run(t.Context(), func() { t.Error("ready") }); err == nil ||
		!strings.Contains(err.Error(), "/a.B/C") {
		t.Errorf("public method that is not there: error %v", err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := taken.Close(); err != nil {
			t.Error(err)
		}
	}()
	cfg := rpc.DefaultServer()
	cfg.Addr = taken.Addr().String()
	err = build(t, &echo{}, cfg, rpc.ServerDeps{}).Run(t.Context(), func() { t.Error("ready") })
	if err == nil || !strings.Contains(err.Error(), cfg.Addr) {
		t.Errorf("address in use: error %v", err)
	}
}

func TestOneTraceCoversClientAndServer(t *testing.T) {
	tel := kittest.NewTelemetry(t, kittest.NewLog(t))
	cli, ledger := tel.MustService(t, "cli"), tel.MustService(t, "ledger")
	var pipe rpc.Pipe
	listener, err := pipe.Listen("echo")
	if err != nil {
		t.Fatal(err)
	}
	var inside trace.SpanContext
	stop := serve(t, &echo{call: func(ctx context.Context, _ string) (string, error) {
		inside = trace.SpanContextFromContext(ctx)
		return "", nil
	}}, rpc.DefaultServer(), rpc.ServerDeps{
		Log: ledger.Log, Tracers: ledger.Tracers, Meters: ledger.Meters, Auth: anyone{},
		Listener: listener,
	})
	conn := dial(t, rpc.NewPipeDialer(&pipe, rpc.ClientDeps{
		Tracers: cli.Tracers, Meters: cli.Meters, Tokens: fixed("t"),
	}))
	ctx, span := cli.Tracers.Tracer("t").Start(t.Context(), "command")
	if _, err := call(ctx, conn, echoCall, ""); err != nil {
		t.Fatal(err)
	}
	span.End()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, s := range tel.Spans() {
		if s.SpanContext.TraceID() != span.SpanContext().TraceID() {
			t.Errorf("span %s is of another trace", s.Name)
		}
		name, _ := s.Resource.Set().Value("service.name")
		names[name.AsString()] = true
	}
	if !names["cli"] || !names["ledger"] || inside.TraceID() != span.SpanContext().TraceID() {
		t.Errorf("services in the trace: %v, handler's span %v", names, inside)
	}
}

func TestReflectionListsServices(t *testing.T) {
	r := newRig(t, &echo{}, nil)
	stream, err := reflectionpb.NewServerReflectionClient(r.conn).
		ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	request := &reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	}
	if err := stream.Send(request); err != nil {
		t.Fatal(err)
	}
	response, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range response.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	if got := strings.Join(names, " "); !strings.Contains(got, "test.Echo") {
		t.Errorf("services %s", got)
	}
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
}

// TestARequestThatNeverComes: the call is given up although no interceptor ever saw it.
func TestARequestThatNeverComes(t *testing.T) {
	r := newRig(t, &echo{call: shout}, func(c *rpc.ServerConfig, _ *rpc.ServerDeps) {
		c.MaxTime = 100 * time.Millisecond
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, method := range []string{echoCall, "/grpc.health.v1.Health/Check"} {
		stream, err := r.conn.NewStream(ctx, &grpc.StreamDesc{
			ClientStreams: true, ServerStreams: true,
		}, method)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(new(wrapperspb.StringValue)); err == nil || ctx.Err() != nil {
			t.Fatalf("%s: the server still waits: %v", method, err)
		}
	}
}
