// Package server answers ucn.ledger.v1.LedgerService for the chains of one ledger.
//
// Reads are public; submitting needs a token with the scope ledger:submit, which an interceptor
// proves and this package asks for. It turns messages into domain calls and back, bounds streams,
// and records spans and metrics. It decides nothing about money.
package server

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/fault"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
)

// Server implements the service.
type Server struct {
	ledgerv1.UnimplementedLedgerServiceServer

	deps      Deps
	log       *slog.Logger
	telemetry *telemetry
	chains    map[string]*ledger.Chain
	watchers  watchers
	builds    builds

	faucet sync.Mutex // one request of the faucet at a time: its account has one nonce line
	grants grants     // guarded by faucet

	health sync.Mutex // guards failed, and keeps what is told in order
	failed int        // chains that take nothing
}

// New makes a server. It starts nothing.
func New(_ Config, deps Deps) (*Server, error) {
	if err := deps.validate(); err != nil {
		return nil, fmt.Errorf("ledger server: %w", err)
	}
	s := &Server{deps: deps, log: deps.Log, chains: map[string]*ledger.Chain{},
		watchers: newWatchers(), builds: newBuilds(), grants: grants{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, c := range deps.Chains {
		s.chains[c.Name()] = c
	}
	var err error
	if s.telemetry, err = newTelemetry(deps); err != nil {
		return nil, fmt.Errorf("ledger server: %w", err)
	}
	return s, nil
}

// Register adds the service to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) { ledgerv1.RegisterLedgerServiceServer(r, s) }

// Run watches the chains until ctx ends, so that health tells of one that has stopped, and of its
// going on.
func (s *Server) Run(ctx context.Context, ready func()) error {
	ready()
	var watching sync.WaitGroup
	for _, c := range s.deps.Chains {
		watching.Go(func() { s.watch(ctx, c) })
	}
	watching.Wait()
	<-ctx.Done()
	return s.telemetry.close()
}

// watch tells of a chain's failures.
func (s *Server) watch(ctx context.Context, c *ledger.Chain) {
	for failed := false; ; {
		changed, err := c.Failure()
		if (err != nil) != failed {
			failed = err != nil
			s.tell(failed)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// tell counts the chains that have failed: the service is well when none has.
func (s *Server) tell(failed bool) {
	s.health.Lock()
	defer s.health.Unlock()
	if failed {
		s.failed++
	} else {
		s.failed--
	}
	if s.deps.Health != nil {
		s.deps.Health(ledgerv1.LedgerService_ServiceDesc.ServiceName, s.failed == 0)
	}
}

// mainChain is what an empty name stands for.
const mainChain = "main"

func (s *Server) chain(name string) (*ledger.Chain, error) {
	if name == "" {
		name = mainChain
	}
	c := s.chains[name]
	if c == nil {
		return nil, fault.New(fault.NotFound, ledger.ReasonChainUnknown,
			"this ledger holds no chain %q", name)
	}
	return c, nil
}

// id reads a 32-byte id of a request.
func id[T ~[32]byte](b []byte, what string) (T, error) {
	if len(b) != len(T{}) {
		return T{}, fault.New(fault.InvalidArgument, ledger.ReasonBadRequest,
			"%s has %d bytes, an id has %d", what, len(b), len(T{}))
	}
	return T(b), nil
}

func notFound(what string, id []byte) error {
	return fault.New(fault.NotFound, ledger.ReasonNotFound, "no %s %x on this chain", what, id)
}
