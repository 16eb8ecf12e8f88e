// Package wiretest runs whole ledgers in a process: over real files and real gRPC, for tests that
// go through the API and for the benchmark of the API.
package wiretest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/origin"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/run"
	"github.com/united-containers/ucn/kit/telemetry"
	"github.com/united-containers/ucn/kit/token"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/server"
	"github.com/united-containers/ucn/services/ledger/wire"
)

// Config returns the configuration of a ledger of the network under a folder, and writes the
// genesis and the keys that it names there.
func Config(n *ledgertest.Network, dir string) (wire.Config, error) {
	c := wire.Default()
	c.Dir = filepath.Join(dir, "chains")
	one := wire.ChainConfig{
		Genesis:     filepath.Join(dir, "genesis"),
		ProposerKey: filepath.Join(dir, "proposer.key"),
		FaucetKey:   filepath.Join(dir, "faucet.key"),
	}
	c.Chains = []wire.ChainConfig{one}
	return c, errors.Join(
		os.WriteFile(one.Genesis, n.Genesis.Append(nil), 0o600),
		writeKey(one.ProposerKey, n.Proposer), writeKey(one.FaucetKey, n.Faucet))
}

func writeKey(path string, key sig.PrivateKey) error {
	text, err := keys.EncodeSigning(key, nil)
	if err != nil {
		return err
	}
	return keys.Replace(path, text)
}

// Service is a ledger that serves.
type Service struct {
	Ledger *wire.Ledger
	// Operator is the audience of tokens.
	Operator sig.AccountID
	front    *rpc.Server
	cancel   context.CancelFunc
	done     chan error
}

// Serve starts a ledger on a free port of the loopback interface. service may be nil.
func Serve(n *ledgertest.Network, c wire.Config, service *telemetry.Service) (*Service, error) {
	return ServeOn(nil, n, c, service)
}

// ServeOn is Serve on a listener, such as one of an rpc.Pipe, which simulated time can run over.
// The ledger's time is that of package time then.
func ServeOn(
	listener net.Listener, n *ledgertest.Network, c wire.Config, service *telemetry.Service,
) (*Service, error) {
	if service == nil {
		service = &telemetry.Service{Name: "ledger", Log: slog.New(slog.DiscardHandler)}
	}
	ctx, cancel := context.WithCancel(context.Background())
	deps := wire.Deps{Telemetry: service}
	if listener != nil {
		began := time.Now()
		deps.Elapsed = func() time.Duration { return time.Since(began) }
	}
	l, err := wire.New(ctx, c, deps)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &Service{
		Ledger: l, Operator: sig.AccountOfKey(n.Proposer.Public()), cancel: cancel,
		done: make(chan error, 1),
	}
	s.front, err = rpc.NewServer(rpc.DefaultServer(), rpc.ServerDeps{
		Listener: listener,
		Log:      service.Log, Tracers: service.Tracers, Meters: service.Meters, Public: server.Public(),
		Auth: &token.Verifier{Audience: s.Operator, Chains: []string{block.Main}, Sets: l.Sets()},
		Origins: &origin.Judge{Operator: s.Operator, Certificates: cert.Verifier{
			Chains: []string{block.Main}, Sets: l.Sets(),
		}},
	})
	if err != nil {
		cancel()
		return nil, errors.Join(err, l.Close())
	}
	l.Register(s.front)
	var group run.Group
	group.Add("ledger", l)
	group.Add("rpc", s.front, "ledger")
	ready := make(chan struct{})
	go func() { s.done <- group.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
		return s, nil
	case err := <-s.done:
		cancel()
		return nil, fmt.Errorf("the ledger did not start: %w", err)
	}
}

// Stop ends the service and returns what it ended with.
func (s *Service) Stop() error {
	s.cancel()
	return <-s.done
}

// Addr is where it listens.
func (s *Service) Addr() string { return s.front.Addr().String() }

// Dial connects with tokens of a key's account; a zero key sends none.
func (s *Service) Dial(key sig.PrivateKey, scopes ...string) (*grpc.ClientConn, error) {
	return Dial(s.Addr(), s.Operator, key, scopes...)
}

// Dial connects to a ledger of an operator at an address; see Service.Dial.
func Dial(addr string, operator sig.AccountID, key sig.PrivateKey, scopes ...string) (
	*grpc.ClientConn, error,
) {
	var deps rpc.ClientDeps
	if !key.IsZero() {
		deps.Tokens = &token.Source{
			Signer: keys.SingleSigner(key), Chain: block.Main, Scopes: scopes, AnyService: operator,
		}
	}
	c := rpc.DefaultClient()
	c.Peers = map[string]rpc.Peer{"ledger": {Addr: addr}}
	dialer, err := rpc.NewDialer(c, deps)
	if err != nil {
		return nil, err
	}
	return dialer.Dial(context.Background(), "ledger")
}

// Shape of the benchmark.
const (
	benchAccounts = 99_998 // with the proposer's and the faucet's as many as a genesis holds
	benchBatch    = 1_000
)

// Single100k measures how many signed single transfers a second go through the API: 100,000
// accounts, rounds transfers of each, one stream over loopback TCP, every block durable and with
// its state root. The transfers are signed beforehand; everything else, the client's work too, is
// inside the time. dir should be on a real disk.
func Single100k(ctx context.Context, dir string, rounds int) (perSecond float64, err error) {
	n, err := ledgertest.NewNetwork(1, benchAccounts)
	if err != nil {
		return 0, err
	}
	c, err := Config(n, dir)
	if err != nil {
		return 0, err
	}
	batches, err := n.Presign(rounds, benchBatch)
	if err != nil {
		return 0, err
	}
	s, err := Serve(n, c, nil)
	if err != nil {
		return 0, err
	}
	conn, err := s.Dial(n.Keys[0], server.Scope)
	if err != nil {
		return 0, errors.Join(err, s.Stop())
	}
	began := time.Now()
	err = ledgertest.Drive(ctx, ledgerv1.NewLedgerServiceClient(conn), batches)
	took := time.Since(began)
	if err := errors.Join(err, conn.Close(), s.Stop()); err != nil {
		return 0, err
	}
	return float64(benchAccounts*rounds) / took.Seconds(), nil
}
