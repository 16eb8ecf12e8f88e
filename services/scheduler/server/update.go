package server

import (
	"context"
	"fmt"
	"slices"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/fault"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/scheduler"
)

// maxUpdate bounds the canonical bytes of a further revision: it is written with every change of
// its job.
const maxUpdate = 64 << 10

// UpdateJob implements SchedulerServiceServer.
func (s *Server) UpdateJob(
	ctx context.Context, r *schedulerv1.UpdateJobRequest,
) (*schedulerv1.UpdateJobResponse, error) {
	j, err := s.find(ctx, r.GetJob())
	if err != nil {
		return nil, err
	}
	raw, err := canon.Marshal(r.GetRevision())
	switch {
	case err != nil || r.GetRevision() == nil:
		return nil, fault.New(fault.InvalidArgument, ReasonSpec, "revision: is missing or no message")
	case len(raw) > maxUpdate:
		return nil, fault.New(fault.InvalidArgument, ReasonSpec,
			"revision has %d bytes, an update at most %d", len(raw), maxUpdate)
	}
	if !slices.Equal(raw, j.Newest()) {
		if err := s.checkUpdate(ctx, j, r.GetRevision()); err != nil {
			return nil, translate(err)
		}
	}
	j, err = s.engine.Update(ctx, j, specOf(r.GetRevision().GetRevision().GetSpec()), raw)
	if err != nil {
		return nil, translate(err)
	}
	out, err := jobPB(j)
	if err != nil {
		return nil, err
	}
	return &schedulerv1.UpdateJobResponse{Job: out}, nil
}

// checkUpdate checks that a revision follows the one in force of the job.
func (s *Server) checkUpdate(
	ctx context.Context, j *scheduler.Job, next *jobv1.SignedRevision,
) error {
	newest := &jobv1.SignedRevision{}
	if err := canon.Unmarshal(j.Newest(), newest); err != nil {
		return fmt.Errorf("decode a stored revision: %w", err)
	}
	var held sig.KeySet
	if s.deps.KeySets != nil {
		var err error
		if held, err = s.deps.KeySets.KeySet(ctx, j.Spec.Chain, j.Owner); err != nil {
			return fmt.Errorf("read the owner's key set: %w", err)
		}
	}
	return job.VerifyNext(j.ID, newest, next, held)
}
