package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/fault"
)

// Dialer connects a service to its peers by name. Every service has its own, so that traces and
// tokens are its own.
type Dialer interface {
	// Dial returns a connection to the named service. It does not wait for the peer to be there:
	// calls fail with PEER_UNAVAILABLE until it is. An error means that the service is not
	// configured or may not be dialled this way. The caller closes the connection.
	Dial(ctx context.Context, service string) (*grpc.ClientConn, error)
}

// ClientDeps are what the clients of one service need from outside. All may be nil.
type ClientDeps struct {
	Tracers trace.TracerProvider
	Meters  metric.MeterProvider
	// Tokens gives the token for each call that does not carry one (WithToken). nil sends none.
	Tokens TokenSource
	// Origins vouches for where the callers of a gateway come from (WithOrigin). nil tells nobody.
	Origins OriginSource
}

// NewDialer returns a Dialer for TCP and unix sockets, with the addresses of cfg.
func NewDialer(cfg ClientConfig, deps ClientDeps) (Dialer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("rpc client: %w", err)
	}
	return &netDialer{cfg, deps}, nil
}

// NewPipeDialer returns a Dialer for the services that listen on a Pipe.
func NewPipeDialer(pipe *Pipe, deps ClientDeps) Dialer { return &pipeDialer{pipe, deps} }

var (
	_ Dialer = (*netDialer)(nil)
	_ Dialer = (*pipeDialer)(nil)
)

type netDialer struct {
	cfg  ClientConfig
	deps ClientDeps
}

func (d *netDialer) Dial(_ context.Context, service string) (*grpc.ClientConn, error) {
	p, known := d.cfg.Peers[service]
	if !known {
		return nil, unassigned(service)
	}
	creds, err := clientCredentials(p)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", service, err)
	}
	options := append(clientOptions(service, d.cfg.MaxMessage, d.deps),
		grpc.WithTransportCredentials(creds))
	conn, err := grpc.NewClient(p.Addr, options...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", service, err)
	}
	return conn, nil
}

type pipeDialer struct {
	pipe *Pipe
	deps ClientDeps
}

func (d *pipeDialer) Dial(_ context.Context, service string) (*grpc.ClientConn, error) {
	options := append(clientOptions(service, DefaultMessage, d.deps),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return d.pipe.DialContext(ctx, service)
		}))
	// passthrough: a name on a pipe is not for DNS.
	conn, err := grpc.NewClient("passthrough:///"+service, options...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", service, err)
	}
	return conn, nil
}

// gatewayWindow is how many bytes of a stream come to a gateway, whose clients may take nothing,
// before it reads them. gRPC's own goes up to 16 MiB where much passes.
const gatewayWindow = 1 << 20

func clientOptions(service string, maxMessage config.Size, deps ClientDeps) []grpc.DialOption {
	c := &client{service: service, tokens: deps.Tokens, origins: deps.Origins}
	var options []grpc.DialOption
	if deps.Origins != nil {
		options = append(options, grpc.WithInitialWindowSize(gatewayWindow),
			grpc.WithInitialConnWindowSize(16*gatewayWindow))
	}
	return append(options,
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(int(maxMessage)),
			grpc.MaxCallSendMsgSize(int(maxMessage))),
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: pingEvery, Timeout: pingTimeout, PermitWithoutStream: true,
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			MinConnectTimeout: handshakeTimeout,
			Backoff: backoff.Config{
				BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2,
				MaxDelay: 5 * time.Second,
			},
		}),
		grpc.WithDisableServiceConfig(), // a peer's DNS record does not configure us
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(
			traceOptions(deps.Tracers, deps.Meters)...)),
		grpc.WithChainUnaryInterceptor(c.unary()),
		grpc.WithChainStreamInterceptor(c.stream()),
	)
}

func clientCredentials(p Peer) (credentials.TransportCredentials, error) {
	if !p.TLS {
		return insecure.NewCredentials(), nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: p.ServerName}
	if p.CA == "" {
		return credentials.NewTLS(cfg), nil
	}
	pem, err := os.ReadFile(p.CA)
	if err != nil {
		return nil, fmt.Errorf("read certificate authorities: %w", err)
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New(p.CA + " holds no PEM certificate")
	}
	return credentials.NewTLS(cfg), nil
}

// Unassigned stands for a peer that is not configured: every call fails with PEER_UNASSIGNED.
// Dependencies are never nil.
func Unassigned(service string) grpc.ClientConnInterface { return unassignedConn(service) }

type unassignedConn string

func (u unassignedConn) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	return local(unassigned(string(u)))
}

func (u unassignedConn) NewStream(context.Context, *grpc.StreamDesc, string,
	...grpc.CallOption,
) (grpc.ClientStream, error) {
	return nil, local(unassigned(string(u)))
}

func unassigned(service string) *fault.Error {
	return fault.New(fault.FailedPrecondition, ReasonUnassigned,
		"no %s is configured: name its address under peers", service)
}
