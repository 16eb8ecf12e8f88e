package server

import (
	"context"
	"time"

	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	"github.com/united-containers/ucn/services/executor"
)

const (
	maxListed  = 1000 // entries of one list of a policy
	maxRunTime = 10 * 366 * 24 * time.Hour
)

// GetPolicy tells whom and what the host does not want.
func (s *Server) GetPolicy(
	ctx context.Context, m *executorv1.GetPolicyRequest,
) (*executorv1.GetPolicyResponse, error) {
	if err := s.allow(ctx, actionRead, m); err != nil {
		return nil, err
	}
	out := &executorv1.GetPolicyResponse{Policy: policyPB(s.deps.Agent.Policy())}
	if set := s.deps.Agent.State().Set; set != nil {
		out.SetPolicy, out.SetVersion = policyPB(set.Policy), set.Version
		out.SetSince, out.SetReason = millis(set.Since), set.Reason
	}
	return out, nil
}

// SetPolicy sets a policy besides the configuration's.
func (s *Server) SetPolicy(
	ctx context.Context, m *executorv1.SetPolicyRequest,
) (*executorv1.SetPolicyResponse, error) {
	if err := s.allow(ctx, actionPolicy, m); err != nil {
		return nil, err
	}
	policy, err := heardPolicy(m.GetPolicy())
	if err != nil {
		return nil, err
	}
	set, against, err := s.deps.Agent.SetPolicy(ctx, policy, m.GetBase(), m.GetReason())
	if err != nil {
		return nil, err
	}
	return &executorv1.SetPolicyResponse{Version: set.Version, Against: uint32(against)}, nil
}

func heardPolicy(m *executorv1.HostPolicy) (executor.Policy, error) {
	longest, err := span("policy.max_run_time_ms", m.GetMaxRunTimeMs(), maxRunTime)
	return executor.Policy{
		AllowOwners: m.GetAllowOwners(), DenyOwners: m.GetDenyOwners(),
		DenyImages: m.GetDenyImages(), MaxRunTime: longest,
	}, err
}

func policyPB(p executor.Policy) *executorv1.HostPolicy {
	cut := func(list []string) []string { return list[:min(len(list), maxListed)] }
	return &executorv1.HostPolicy{
		AllowOwners: cut(p.AllowOwners), DenyOwners: cut(p.DenyOwners), DenyImages: cut(p.DenyImages),
		MaxRunTimeMs: uint64(p.MaxRunTime.Milliseconds()),
		Entries:      uint32(len(p.AllowOwners) + len(p.DenyOwners) + len(p.DenyImages)),
	}
}
