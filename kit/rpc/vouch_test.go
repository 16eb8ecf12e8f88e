package rpc_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/united-containers/ucn/kit/rpc"
)

// words vouch in clear for the service "echo".
type words struct{}

func (words) Vouch(service, address string) ([]byte, error) {
	if address == "198.51.100.66" {
		return nil, errors.New("no")
	}
	if service != "echo" || address == "198.51.100.1" {
		return nil, nil
	}
	return []byte("word:" + address), nil
}

func (words) Origin(_ context.Context, vouched []byte) (string, error) {
	address, ok := strings.CutPrefix(string(vouched), "word:")
	if !ok {
		return "", errors.New("not a word")
	}
	return address, nil
}

// whence answers with where the call comes from.
func whence(ctx context.Context, _ string) (string, error) {
	return rpc.CallOrigin(ctx) + ".", nil
}

// vouching is a server that judges words, and the Pipe that it listens on.
func vouching(t *testing.T, perCaller int) *rpc.Pipe {
	t.Helper()
	pipe := &rpc.Pipe{}
	listener, err := pipe.Listen("echo")
	if err != nil {
		t.Fatal(err)
	}
	cfg := rpc.DefaultServer()
	cfg.RatePerSecond, cfg.RateBurst = 0.001, perCaller
	serve(t, &echo{call: whence}, cfg, rpc.ServerDeps{
		Auth: anyone{}, Listener: listener, Public: []string{echoPublic}, Origins: words{},
	})
	return pipe
}

// vouchingConn is a connection of a gateway.
func vouchingConn(t *testing.T, pipe *rpc.Pipe) *grpc.ClientConn {
	return dial(t, rpc.NewPipeDialer(pipe, rpc.ClientDeps{Origins: words{}}))
}

func TestGatewaysVouchForOrigins(t *testing.T) {
	conn := vouchingConn(t, vouching(t, 100))
	ctx := t.Context()
	forged := metadata.AppendToOutgoingContext(ctx, "ucn-origin-bin", "word:198.51.100.9")
	for name, tt := range map[string]struct {
		ctx  context.Context
		want string
	}{
		"its caller":          {rpc.WithOrigin(ctx, "192.0.2.1:1234"), "192.0.2.1."},
		"its caller's /64":    {rpc.WithOrigin(ctx, "2001:db8::1"), "2001:db8::/64."},
		"one not to be told":  {rpc.WithOrigin(ctx, "198.51.100.1"), "."},
		"itself":              {ctx, "."},
		"somebody else's":     {forged, "."},
		"over somebody elses": {rpc.WithOrigin(forged, "192.0.2.2"), "192.0.2.2."},
	} {
		if got, err := call(tt.ctx, conn, echoPublic, ""); got != tt.want || err != nil {
			t.Errorf("%s: from %q, %v", name, got, err)
		}
	}
	if _, err := call(rpc.WithOrigin(ctx, "198.51.100.66"), conn, echoPublic, ""); err == nil {
		t.Error("a source that fails fails no call")
	}
}

// TestLimitsAreOfWhoIsVouchedFor: of callers without account behind one connection, each has its
// own limit.
func TestLimitsAreOfWhoIsVouchedFor(t *testing.T) {
	conn := vouchingConn(t, vouching(t, 3))
	for _, from := range []string{"192.0.2.1", "192.0.2.2"} {
		ctx := rpc.WithOrigin(t.Context(), from)
		for n := range 4 {
			_, err := call(ctx, conn, echoPublic, "")
			if limited := errors.Is(err, rpc.ReasonRateLimited); limited != (n == 3) {
				t.Errorf("call %d of %s: %v", n, from, err)
			}
		}
	}
}

// TestOriginsThatAreNotBelieved: a caller without this package sends what it likes.
func TestOriginsThatAreNotBelieved(t *testing.T) {
	pipe := vouching(t, 100)
	conn, err := grpc.NewClient("passthrough:///echo",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, name string) (net.Conn, error) {
			return pipe.DialContext(ctx, name)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for name, tt := range map[string]struct {
		values []string
		want   string
	}{
		"nothing said": {nil, "."},
		"a word":       {[]string{"word:192.0.2.1"}, "192.0.2.1."},
		"no word":      {[]string{"lies"}, "."},
		"two":          {[]string{"word:192.0.2.1", "word:192.0.2.1"}, "."},
		"too long":     {[]string{"word:" + strings.Repeat("9", 6000)}, "."},
	} {
		ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{"ucn-origin-bin": tt.values})
		if got, err := call(ctx, conn, echoPublic, ""); got != tt.want || err != nil {
			t.Errorf("%s: from %q, %v", name, got, err)
		}
	}
}
