package rpc_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/rpc"
)

func TestPipe(t *testing.T) {
	var pipe rpc.Pipe
	conn := dial(t, rpc.NewPipeDialer(&pipe, rpc.ClientDeps{Tokens: fixed("t")}))
	_, err := call(t.Context(), conn, echoCall, "a")
	if !errors.Is(err, rpc.ReasonUnavailable) || !strings.Contains(err.Error(), "echo") {
		t.Errorf("nobody listens: error %v", err)
	}
	for range 2 { // a name is free again once its server has gone
		listener, err := pipe.Listen("echo")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pipe.Listen("echo"); !errors.Is(err, rpc.ErrNameTaken) {
			t.Errorf("second listener: error %v", err)
		}
		stop := serve(t, &echo{call: shout}, rpc.DefaultServer(),
			rpc.ServerDeps{Auth: anyone{}, Listener: listener})
		response, err := waitCall(t, conn)
		if response != "A" {
			t.Errorf("%q, %v", response, err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

// waitCall calls and lets gRPC wait for the connection.
func waitCall(t *testing.T, conn *grpc.ClientConn) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		conn.ResetConnectBackoff()
		got, err := call(ctx, conn, echoCall, "a")
		if !errors.Is(err, fault.Unavailable) {
			return got, err
		}
		// Leave the server a moment to come up, however busy the machine is.
		moment, done := context.WithTimeout(ctx, 10*time.Millisecond)
		conn.WaitForStateChange(moment, conn.GetState())
		done()
	}
	return "", errors.New("never connected")
}

func TestUnassignedPeers(t *testing.T) {
	dialer, err := rpc.NewDialer(rpc.DefaultClient(), rpc.ClientDeps{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dialer.Dial(t.Context(), "dns"); !errors.Is(err, rpc.ReasonUnassigned) {
		t.Errorf("dial: error %v", err)
	}
	conn := rpc.Unassigned("dns")
	_, unary := call(t.Context(), conn, echoCall, "")
	_, stream := conn.NewStream(t.Context(), &grpc.StreamDesc{}, echoStream)
	for _, err := range []error{unary, stream} {
		if !errors.Is(err, rpc.ReasonUnassigned) || !strings.Contains(err.Error(), "dns") {
			t.Errorf("error %v", err)
		}
	}
}

func TestPeerUnavailable(t *testing.T) {
	clients := rpc.DefaultClient()
	clients.Peers = map[string]rpc.Peer{"echo": {Addr: "unix:" + t.TempDir() + "/none"}}
	dialer, err := rpc.NewDialer(clients, rpc.ClientDeps{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = call(t.Context(), dial(t, dialer), echoCall, "")
	if !errors.Is(err, rpc.ReasonUnavailable) || !errors.Is(err, fault.Unavailable) ||
		strings.Contains(fault.From(err).Message(), "/none") {
		t.Errorf("error %v: want a fault whose message names no path", err)
	}
}

func TestServerConfigValidate(t *testing.T) {
	cases := map[string]string{
		"":                                    "",
		"addr: 0.0.0.0:80":                    "addr",
		"addr: ':7000'":                       "addr",
		"addr: example.org:80":                "addr",
		"addr: 127.0.0.1":                     "addr",
		"addr: 'unix:'":                       "addr",
		"addr: '[::1]:0'":                     "",
		"addr: localhost:0":                   "",
		"addr: unix:/x":                       "",
		"{addr: ':1', insecure: true}":        "",
		"tls_cert: x":                         "tls_cert",
		"max_message: 0":                      "max_message",
		"max_message: 1GiB":                   "max_message",
		"max_streams: 0":                      "max_streams",
		"max_time: -1s":                       "max_time",
		"drain: 0s":                           "drain",
		"rate_per_second: -1":                 "rate_per_second",
		"{rate_per_second: 1, rate_burst: 0}": "rate_burst",
	}
	for text, field := range cases {
		cfg := rpc.DefaultServer()
		check(t, text, field, config.Parse("f", []byte(text), nil, &cfg))
	}
	cfg := rpc.DefaultServer()
	cfg.Addr = "0.0.0.0:0"
	if _, err := rpc.NewServer(cfg, rpc.ServerDeps{}); err == nil {
		t.Error("NewServer took a configuration that is not valid")
	}
	cfg = rpc.DefaultServer()
	cfg.TLSCert, cfg.TLSKey = "/none", "/none"
	if _, err := rpc.NewServer(cfg, rpc.ServerDeps{}); err == nil {
		t.Error("NewServer took a certificate that is not there")
	}
}

func TestClientConfigValidate(t *testing.T) {
	cases := map[string]string{
		"peers: {a: {addr: 127.0.0.1:1}}":                "",
		"peers: {a: {addr: unix:/x}}":                    "",
		"peers: {a: {addr: h.example:1}}":                "peers.a.addr",
		"peers: {a: {addr: 10.0.0.1:1}}":                 "peers.a.addr",
		"peers: {a: {addr: 10.0.0.1:1, insecure: true}}": "",
		"peers: {a: {addr: h.example:1, tls: true}}":     "",
		"peers: {a: {addr: ':1'}}":                       "peers.a.addr",
		"peers: {a: {addr: 127.0.0.1:1, ca: x}}":         "peers.a.tls",
		"{max_message: 0, peers: {}}":                    "max_message",
	}
	for text, field := range cases {
		cfg := rpc.DefaultClient()
		check(t, text, field, config.Parse("f", []byte(text), nil, &cfg))
	}
	clients := rpc.DefaultClient()
	clients.Peers = map[string]rpc.Peer{"a": {Addr: "h.example:1"}}
	if _, err := rpc.NewDialer(clients, rpc.ClientDeps{}); err == nil {
		t.Error("NewDialer took a configuration that is not valid")
	}
	clients.Peers = map[string]rpc.Peer{"a": {Addr: "h.example:1", TLS: true, CA: "/none"}}
	dialer, err := rpc.NewDialer(clients, rpc.ClientDeps{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dialer.Dial(t.Context(), "a"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing authorities: error %v", err)
	}
}

func check(t *testing.T, text, field string, err error) {
	t.Helper()
	if field == "" && err != nil || field != "" &&
		(err == nil || !strings.Contains(err.Error(), " "+field+":")) {
		t.Errorf("%s: error %v, want one about %q", text, err, field)
	}
}

func TestRenewedCertificateIsServed(t *testing.T) {
	certFile, keyFile := kittest.TLS(t)
	cfg := rpc.DefaultServer()
	cfg.TLSCert, cfg.TLSKey = certFile, config.SecretFile(keyFile)
	server := build(t, &echo{call: shout}, cfg, rpc.ServerDeps{Auth: anyone{}})
	kittest.Run(t, server)
	newCert, newKey := kittest.TLS(t)
	later := time.Now().Add(time.Minute)
	for from, to := range map[string]string{newCert: certFile, newKey: keyFile} {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(to, later, later); err != nil {
			t.Fatal(err)
		}
	}
	clients := rpc.DefaultClient()
	clients.Peers = map[string]rpc.Peer{
		"echo": {Addr: server.Addr().String(), TLS: true, CA: newCert},
	}
	dialer, err := rpc.NewDialer(clients, rpc.ClientDeps{Tokens: fixed("t")})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := call(t.Context(), dial(t, dialer), echoCall, "new"); got != "NEW" {
		t.Errorf("%q, %v", got, err)
	}
}
