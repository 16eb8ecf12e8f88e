package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/share"
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

	places      *share.Places // of uploads under way; a client is an account
	directories *directories
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
	if cfg.AllUploads == 0 {
		cfg.AllUploads = DefaultAllUploads
	}
	if cfg.CollectEvery == 0 {
		cfg.CollectEvery = DefaultCollectEvery
	}
	if cfg.Stall == 0 {
		cfg.Stall = DefaultStall
	}
	if cfg.DirectoryTime == 0 {
		cfg.DirectoryTime = DefaultDirectoryTime
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
		admission: admission{accounts: deps.Accounts},
		places: share.New(share.Bounds{Most: cfg.AllUploads, Each: cfg.Uploads,
			Keep: 1}),
		directories: newDirectories(cfg.DirectoryTime, deps.Now),
	}, nil
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

// turn is an upload under way. Its context ends when it must give way to an account that has fewer.
type turn struct {
	s       *Server
	ctx     context.Context
	leave   context.CancelCauseFunc
	account storage.Account
	places  []*share.Place
}

// beginUpload takes one of the account's places; end gives it back. Only accounts on the chain have
// places: keys cost nothing, and with one place each they would keep everybody out.
func (s *Server) beginUpload(ctx context.Context, a storage.Account) (*turn, error) {
	if err := s.known(ctx, a); err != nil {
		return nil, err
	}
	t := &turn{s: s, account: a}
	t.ctx, t.leave = context.WithCancelCause(ctx)
	_, err := t.take(s.places)
	switch {
	case errors.Is(err, share.ErrEach):
		err = fault.New(fault.ResourceExhausted, storage.ReasonBusy,
			"the account has %d uploads under way, the most it may; end one first", s.cfg.Uploads)
	case err != nil:
		err = fault.New(fault.ResourceExhausted, storage.ReasonBusy,
			"%d uploads are under way, the most of all: try again later",
			s.cfg.AllUploads).WithRetry(time.Second)
	}
	if err != nil {
		t.end()
		return nil, err
	}
	return t, nil
}

func (t *turn) take(from *share.Places) (*share.Place, error) {
	place, err := from.Take(string(t.account[:]), func() { t.leave(storage.GaveWay()) })
	if err == nil {
		t.places = append(t.places, place)
	}
	return place, err
}

func (t *turn) end() {
	for _, place := range t.places {
		place.Give()
	}
	t.leave(nil)
}

// causeOf says why an upload ended that had to give way, or took too long.
func causeOf(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	switch why := context.Cause(ctx); fault.ReasonOf(why) {
	case storage.ReasonBusy, storage.ReasonStalled:
		return why
	}
	return err
}
