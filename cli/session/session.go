// Package session is one command's connection to a network: the clients of its services, a sender
// that signs for the wallet, access tokens, and the bus to executors.
//
// Nothing is connected before it is used. What the network file says (anchor, operator) is trusted;
// what the services say is checked against it.
package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/network"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/submit"
	"github.com/united-containers/ucn/kit/telemetry"
	"github.com/united-containers/ucn/kit/token"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// Errors of a session.
var (
	ErrForeignChain = errors.New("the ledger's genesis is not that of the network file's anchor: " +
		"it is another network, or it lies")
	ErrNoBus = errors.New("the network file names no bus, so executors cannot be reached; " +
		"get the whole file from the operator")
	ErrNoKey = errors.New("this needs a wallet; make one: `ucn wallet new`")
)

// The services that a session calls.
const (
	ledgerService    = "ledger"
	schedulerService = "scheduler"
	storageService   = "storage"
)

// Config says whom to call and for whom.
type Config struct {
	Network network.File
	// Key of the wallet that acts; zero for reads that need none.
	Key sig.PrivateKey
	// For and Signer name the account, and its delegate, that the key signs transactions as; zero
	// for the key's own account. Tokens are always the key's own.
	For    sig.AccountID
	Signer uint32
	Now    func() time.Time
	// Telemetry makes the spans; nil makes none.
	Telemetry *telemetry.Service
	// Dial replaces TCP when set; Broker the broker of the network file.
	Dial   func(rpc.ClientDeps) (rpc.Dialer, error)
	Broker func(login bus.Login) (*nats.Conn, error)
	// Log is told when the bus is lost and found; may be nil.
	Log *slog.Logger
}

// Session is a connection. Close it.
type Session struct {
	cfg Config

	Ledger    ledgerv1.LedgerServiceClient
	Scheduler schedulerv1.SchedulerServiceClient
	Storage   storagev1.StorageServiceClient

	// Chain and Anchor are what is signed for, Operator is whose services are called.
	Chain    string
	Anchor   sig.Anchor
	Operator sig.AccountID
	// Account is the wallet's; zero without a key.
	Account sig.AccountID
	// Sender submits for it; nil without a key.
	Sender *submit.Sender

	tokens *token.Source
	hosts  *token.Source // for executors
	conns  []*grpc.ClientConn
	nats   *nats.Conn
}

// Scopes of the tokens that a session makes for itself.
func scopes() []string {
	return []string{"ledger:submit", "job", "file:read", "file:write", "bus"}
}

// hostScopes are all that a host may see a token for: whoever runs it could use the token at its
// operator's other services.
func hostScopes() []string { return []string{"job:host", "job:read"} }

// Open prepares a session. It connects to nothing.
func Open(ctx context.Context, cfg Config) (*Session, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := cfg.Network.Validate(); err != nil {
		return nil, err
	}
	s := &Session{cfg: cfg, Chain: cfg.Network.Chain}
	s.Anchor, _ = cfg.Network.AnchorID()     // judged by Validate
	s.Operator, _ = cfg.Network.OperatorID() // the same
	deps := rpc.ClientDeps{}
	if cfg.Telemetry != nil {
		deps.Tracers, deps.Meters = cfg.Telemetry.Tracers, cfg.Telemetry.Meters
	}
	if !cfg.Key.IsZero() {
		s.Account = sig.AccountOfKey(cfg.Key.Public())
		s.tokens = &token.Source{
			Signer: keys.SingleSigner(cfg.Key), Chain: s.Chain, Scopes: scopes(),
			AnyService: s.Operator, Now: cfg.Now,
		}
		s.hosts = &token.Source{
			Signer: keys.SingleSigner(cfg.Key), Chain: s.Chain, Scopes: hostScopes(), Now: cfg.Now,
		}
		deps.Tokens = s.tokens
	}
	if err := s.dial(ctx, deps); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if !cfg.Key.IsZero() {
		s.Sender = submit.New(submit.Config{
			Ledger: s.Ledger, Key: cfg.Key, Account: cfg.For, Signer: cfg.Signer,
			Chain: s.Chain, Anchor: s.Anchor, Now: cfg.Now,
		})
	}
	return s, nil
}

func (s *Session) dial(ctx context.Context, deps rpc.ClientDeps) error {
	open := s.cfg.Dial
	if open == nil {
		open = func(deps rpc.ClientDeps) (rpc.Dialer, error) {
			return rpc.NewDialer(s.peers(), deps)
		}
	}
	dialer, err := open(deps)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", s.cfg.Network.API, err)
	}
	var conns [3]*grpc.ClientConn
	for i, service := range []string{ledgerService, schedulerService, storageService} {
		if conns[i], err = dialer.Dial(ctx, service); err != nil {
			return fmt.Errorf("connect to %s: %w", s.cfg.Network.API, err)
		}
		s.conns = append(s.conns, conns[i])
	}
	s.Ledger = ledgerv1.NewLedgerServiceClient(conns[0])
	s.Scheduler = schedulerv1.NewSchedulerServiceClient(conns[1])
	s.Storage = storagev1.NewStorageServiceClient(conns[2])
	return nil
}

// peers are at the operator's API unless the network file has addresses of their own for them.
func (s *Session) peers() rpc.ClientConfig {
	cfg := rpc.DefaultClient()
	cfg.MaxMessage = rpc.MaxMessage // blocks come whole
	cfg.Peers = map[string]rpc.Peer{}
	for _, service := range []string{ledgerService, schedulerService, storageService} {
		cfg.Peers[service] = rpc.Peer{
			Addr: s.cfg.Network.Addr(service), TLS: s.cfg.Network.TLS, CA: s.cfg.Network.CA,
		}
	}
	return cfg
}

// Key returns the wallet's key. Errors: ErrNoKey.
func (s *Session) Key() (sig.PrivateKey, error) {
	if s.cfg.Key.IsZero() {
		return sig.PrivateKey{}, ErrNoKey
	}
	return s.cfg.Key, nil
}

// Signer returns whom transactions are signed as: 0 for the key set, n for delegate n of the
// Sender's account.
func (s *Session) Signer() uint32 { return s.cfg.Signer }

// Now is the session's clock.
func (s *Session) Now() time.Time { return s.cfg.Now() }

// Tracer makes the spans of the command.
func (s *Session) Tracer() trace.Tracer { return tracer(s.cfg.Telemetry) }

// Token makes a token of the wallet with the scopes for an operator, valid from now on.
func (s *Session) Token(audience sig.AccountID, life time.Duration, scopes ...string,
) (string, error) {
	key, err := s.Key()
	if err != nil {
		return "", err
	}
	now := s.cfg.Now()
	return token.Issue(keys.SingleSigner(key), token.Claims{
		Chain: s.Chain, Audience: audience, Scopes: scopes, NotBefore: now,
		NotAfter: now.Add(min(life, token.MaxLifetime)),
	})
}

// Bus returns a client for executors, whoever's they are. It connects the first time; it does not
// wait for the broker.
func (s *Session) Bus() (*bus.Client, error) {
	if s.tokens == nil {
		return nil, ErrNoKey
	}
	return s.client(s.hosts.TokenFor)
}

// client returns a client for the bus whose requests carry the tokens given.
func (s *Session) client(
	tokenFor func(ctx context.Context, operator sig.AccountID) (string, error),
) (*bus.Client, error) {
	if s.nats == nil {
		login := bus.TokenLogin(func() string {
			text, err := s.tokens.TokenFor(context.Background(), s.Operator)
			if err != nil {
				return "" // the broker refuses it, which is tried again
			}
			return text
		})
		conn, err := s.connect(login)
		if err != nil {
			return nil, fmt.Errorf("connect to the bus: %w", err)
		}
		s.nats = conn
	}
	return bus.NewClient(s.nats, bus.TokenProof(tokenFor), bus.ClientOptions{
		Tracer: s.Tracer(), Clock: s.cfg.Now,
	}), nil
}

func (s *Session) connect(login bus.Login) (*nats.Conn, error) {
	switch {
	case s.cfg.Broker != nil:
		return s.cfg.Broker(login)
	case s.cfg.Network.Bus == "":
		return nil, ErrNoBus
	}
	return bus.Connect(s.cfg.Network.Bus, "ucn", login, s.cfg.Log)
}

// Sets answers which keys of an account are in force, by the ledger.
func (s *Session) Sets() keys.Sets { return instance.LedgerSets{Ledger: s.Ledger} }

// Judge judges the certificates of executors.
func (s *Session) Judge() cert.Verifier {
	return cert.Verifier{Chains: []string{s.Chain}, Sets: s.Sets(), Now: s.cfg.Now}
}

// Genesis returns the chain's genesis after checking that the anchor is its. Errors wrap
// ErrForeignChain or are those of the call.
func (s *Session) Genesis(ctx context.Context) (*block.Genesis, error) {
	r, err := s.Ledger.GetChain(ctx, &ledgerv1.GetChainRequest{Chain: s.Chain})
	if err != nil {
		return nil, fmt.Errorf("read the chain: %w", err)
	}
	g, err := block.GenesisFromPB(r.GetGenesis())
	if err != nil {
		return nil, fmt.Errorf("read the chain's genesis: %w", err)
	}
	if g.Anchor() != s.Anchor || g.Chain != s.Chain {
		return nil, ErrForeignChain
	}
	return g, nil
}

// ExpiresIn returns the expires of an escrow that shall live so long from now on. It is a point of
// the chain's accrual clock, which stands while the chain rests.
func (s *Session) ExpiresIn(ctx context.Context, life time.Duration) (tx.Millis, error) {
	r, err := s.Ledger.GetChain(ctx, &ledgerv1.GetChainRequest{Chain: s.Chain})
	if err != nil {
		return 0, fmt.Errorf("read the chain's clocks: %w", err)
	}
	accrual := tx.Millis(max(r.GetAccrual(), r.GetHead().GetAccrual()))
	return accrual + tx.Millis(max(life, 0).Milliseconds()), nil
}

// Balance returns what an account can spend; 0 for one that does not exist.
func (s *Session) Balance(ctx context.Context, account sig.AccountID) (tx.Grains, error) {
	r, err := s.Ledger.GetAccount(ctx, &ledgerv1.GetAccountRequest{
		Chain: s.Chain, Account: account[:],
	})
	if err != nil {
		return 0, fmt.Errorf("read the balance: %w", err)
	}
	return tx.Grains(r.GetAccount().GetBalance()), nil
}

// Close ends the session's connections.
func (s *Session) Close() error {
	var errs []error
	if s.Sender != nil {
		s.Sender.Close()
		s.Sender = nil
	}
	for _, conn := range s.conns {
		errs = append(errs, conn.Close())
	}
	s.conns = nil
	if s.nats != nil {
		s.nats.Close()
		s.nats = nil
	}
	return errors.Join(errs...)
}
