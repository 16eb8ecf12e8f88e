package server

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/sig"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	"github.com/united-containers/ucn/services/executor"
)

const (
	defaultPage = 100
	maxPage     = 1000
	maxPageByte = 256 << 10 // of one page; the rest comes with the next token
)

// Deps of a Server. All are needed.
type Deps struct {
	Agent    *executor.Agent
	Encoder  *Encoder
	Operator sig.AccountID
	Instance sig.PublicKey // the executor's
}

// Server is the host operator's view of the executor over gRPC.
type Server struct {
	executorv1.UnimplementedExecutorServiceServer
	deps Deps
}

// New returns a server; it starts nothing.
func New(deps Deps) *Server { return &Server{deps: deps} }

// Register registers the service.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	executorv1.RegisterExecutorServiceServer(r, s)
}

// GetHost tells what the host can do and what it has free.
func (s *Server) GetHost(
	ctx context.Context, m *executorv1.GetHostRequest,
) (*executorv1.GetHostResponse, error) {
	if err := s.allow(ctx, actionRead, m); err != nil {
		return nil, err
	}
	offer, state := s.deps.Agent.Offer(), s.deps.Agent.State()
	out := &executorv1.GetHostResponse{
		Offer: s.deps.Encoder.offerPB(&offer), Abilities: abilities(s.deps.Agent.Abilities()),
		Draining: state.Draining, EvictAt: millis(state.EvictAt), Reason: state.Reason,
		Policy: policyPB(s.deps.Agent.Policy()), Warnings: s.deps.Agent.Warnings(),
		ClockAheadMs: s.deps.Agent.ClockAhead().Milliseconds(),
	}
	if set := state.Set; set != nil {
		out.SetPolicy, out.SetVersion = policyPB(set.Policy), set.Version
		out.SetSince, out.SetReason = millis(set.Since), set.Reason
	}
	return out, nil
}

// Drain takes no new work, and evicts what still runs at the deadline.
func (s *Server) Drain(
	ctx context.Context, m *executorv1.DrainRequest,
) (*executorv1.DrainResponse, error) {
	if err := s.allow(ctx, actionDrain, m); err != nil {
		return nil, err
	}
	after, err := span("evict_after_ms", m.GetEvictAfterMs(), executor.MaxDrain)
	if err != nil {
		return nil, err
	}
	left, err := s.deps.Agent.Drain(ctx, m.GetReason(), after)
	if err != nil {
		return nil, err
	}
	return &executorv1.DrainResponse{
		Attempts: uint32(left), EvictAt: millis(s.deps.Agent.State().EvictAt),
	}, nil
}

// Evict ends one attempt after a notice.
func (s *Server) Evict(
	ctx context.Context, m *executorv1.EvictRequest,
) (*executorv1.EvictResponse, error) {
	if err := s.allow(ctx, actionEvict, m); err != nil {
		return nil, err
	}
	id, err := named[executor.AttemptID]("attempt", m.GetAttempt())
	if err != nil {
		return nil, err
	}
	notice, err := span("notice_ms", m.GetNoticeMs(), executor.MaxNotice)
	if err != nil {
		return nil, err
	}
	at, err := s.deps.Agent.Evict(ctx, id, notice, m.GetReason())
	if err != nil {
		return nil, err
	}
	return &executorv1.EvictResponse{EvictAt: millis(at)}, nil
}

// span reads a time between two moments.
func span(name string, ms uint64, most time.Duration) (time.Duration, error) {
	if ms > uint64(most.Milliseconds()) {
		return 0, malformed("%s is %d, at most %d", name, ms, most.Milliseconds())
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// Undrain takes new work again.
func (s *Server) Undrain(
	ctx context.Context, m *executorv1.UndrainRequest,
) (*executorv1.UndrainResponse, error) {
	if err := s.allow(ctx, actionUndrain, m); err != nil {
		return nil, err
	}
	if err := s.deps.Agent.Undrain(ctx); err != nil {
		return nil, err
	}
	return &executorv1.UndrainResponse{}, nil
}

func abilities(a executor.Abilities) []*executorv1.Ability {
	list := []*executorv1.Ability{
		{Name: "engine", Present: a.Engine != "", Detail: a.Engine},
		{Name: "runtime", Present: a.Runtime != "", Detail: a.Runtime},
		{Name: "cgroup", Present: a.CgroupVersion > 0, Detail: fmt.Sprintf("v%d", a.CgroupVersion)},
		{Name: "cpu limit", Present: a.CPULimit}, {Name: "memory limit", Present: a.MemoryLimit},
		{Name: "pids limit", Present: a.PIDsLimit}, {Name: "freeze", Present: a.Freeze},
		{Name: "root quota", Present: a.RootQuota},
		{Name: "volume quota", Present: a.VolumeQuota != "", Detail: a.VolumeQuota},
	}
	for _, m := range []struct {
		name  string
		meter executor.Meter
	}{
		{"measures cpu", executor.MeterCPU}, {"measures memory", executor.MeterMemory},
		{"measures network", executor.MeterNetwork}, {"measures disk", executor.MeterDisk},
	} {
		list = append(list, &executorv1.Ability{Name: m.name, Present: a.Meters.Has(m.meter)})
	}
	for _, missing := range a.Missing {
		list = append(list, &executorv1.Ability{Name: missing.What, Detail: missing.Fix})
	}
	return list
}

// ListAttempts tells what runs and ran here, newest first.
func (s *Server) ListAttempts(
	ctx context.Context, m *executorv1.ListAttemptsRequest,
) (*executorv1.ListAttemptsResponse, error) {
	if err := s.allow(ctx, actionRead, m); err != nil {
		return nil, err
	}
	before, err := s.readPage(m.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := int(m.GetPageSize())
	switch {
	case size > maxPage:
		return nil, malformed("page_size is %d, at most %d", size, maxPage)
	case size == 0:
		size = defaultPage
	}
	out, bytes := &executorv1.ListAttemptsResponse{}, 0
	for {
		records, err := s.deps.Agent.Attempts(ctx, before, size-len(out.Attempts))
		if err != nil || len(records) == 0 {
			return out, err
		}
		for i := range records {
			m, err := listed(&records[i])
			if err != nil {
				return nil, err
			}
			before, bytes = records[i].Asked, bytes+proto.Size(m)
			out.Attempts = append(out.Attempts, m)
			if len(out.Attempts) == size || bytes > maxPageByte {
				out.NextPageToken = s.pageToken(before)
				return out, nil
			}
		}
	}
}

// listed is an attempt in a list: without the outputs.
func listed(r *executor.Record) (*jobv1.AttemptStatus, error) {
	status := r.Status(r.Waiting)
	m, err := statusPB(&status)
	if err != nil {
		return nil, err
	}
	if o := r.Outcome; o != nil {
		m.Reason, m.Outcome.Outputs = o.Message, nil
	}
	return m, nil
}

// pageToken names this host, so that no other's list is gone on with from here.
func (s *Server) pageToken(t time.Time) string {
	own := slices.Clone(s.deps.Instance[:8])
	return hex.EncodeToString(binary.BigEndian.AppendUint64(own, uint64(t.UnixNano())))
}

func (s *Server) readPage(token string) (time.Time, error) {
	if token == "" {
		return time.Time{}, nil
	}
	raw, err := hex.DecodeString(token)
	if err != nil || len(raw) != 16 {
		return time.Time{}, malformed("page_token is not one of this service")
	}
	if string(raw[:8]) != string(s.deps.Instance[:8]) {
		return time.Time{}, malformed("page_token is of another host's list")
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(raw[8:]))), nil
}
