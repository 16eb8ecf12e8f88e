package server

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/storage"
)

// Server is the gRPC side of storage. It is safe for concurrent use.
type Server struct {
	storagev1.UnimplementedStorageServiceServer

	cfg     Config
	deps    Deps
	access  *storage.Access
	metrics *metrics

	admission admission

	// mu guards uploads, the number of uploads under way per account.
	mu      sync.Mutex
	uploads map[storage.Account]int
}

var _ storagev1.StorageServiceServer = (*Server)(nil)

// New builds a server. It starts nothing.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("storage server: %w", err)
	}
	if cfg.Uploads == 0 {
		cfg.Uploads = DefaultUploads
	}
	if cfg.CollectEvery == 0 {
		cfg.CollectEvery = DefaultCollectEvery
	}
	if cfg.Stall == 0 {
		cfg.Stall = DefaultStall
	}
	deps, err := deps.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("storage server: %w", err)
	}
	m, err := newMetrics(deps.Meter)
	if err != nil {
		return nil, fmt.Errorf("storage server: %w", err)
	}
	return &Server{cfg: cfg, deps: deps, access: storage.NewAccess(deps.Store), metrics: m,
		admission: admission{accounts: deps.Accounts}, uploads: make(map[storage.Account]int)}, nil
}

// Register adds the service to a gRPC server made by kit/rpc, which authenticates callers.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	storagev1.RegisterStorageServiceServer(r, s)
}

// Run calls ready, collects garbage now and then, and returns when ctx ends: calls are drained by
// the gRPC server it is registered with.
func (s *Server) Run(ctx context.Context, ready func()) error {
	ready()
	tick := time.NewTicker(s.cfg.CollectEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if _, err := s.collect(ctx, false); err != nil && ctx.Err() == nil {
			s.deps.Log.ErrorContext(ctx, "garbage collection failed", "error", err)
		}
	}
}

// session opens the caller's view of the store. A call without a proven caller is a mistake in how
// the server was put together, and refused.
func (s *Server) session(ctx context.Context) (*storage.Session, error) {
	caller, ok := rpc.CallerFrom(ctx)
	if !ok {
		return nil, fault.New(fault.Unauthenticated, rpc.ReasonTokenMissing,
			"this call needs a token")
	}
	return s.access.For(storage.Grant{Account: caller.Account, Scopes: caller.Scopes})
}

// beginUpload takes one of the account's places; call the returned function to give it back.
func (s *Server) beginUpload(a storage.Account) (end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uploads[a] >= s.cfg.Uploads {
		return nil, fault.New(fault.ResourceExhausted, storage.ReasonBusy,
			"the account has %d uploads under way, the most it may; end one first", s.uploads[a])
	}
	s.uploads[a]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.uploads[a]--; s.uploads[a] == 0 {
			delete(s.uploads, a)
		}
	}, nil
}
