package clitest

import (
	"context"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/fault"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// Updated returns the newest revision that UpdateJob took; nil before the first.
func (m *Market) Updated() *jobv1.SignedRevision {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.updated
}

// UpdateJob implements the service by the rules of revisions; it changes nothing that runs.
func (m *Market) UpdateJob(_ context.Context, r *schedulerv1.UpdateJobRequest) (
	*schedulerv1.UpdateJobResponse, error,
) {
	j, _, err := m.find(r.GetJob())
	if err != nil {
		return nil, err
	}
	newest := j.GetUpdate()
	if newest == nil {
		newest = j.GetRevision()
	}
	err = job.VerifyNext(job.ID(r.GetJob()), newest, r.GetRevision(), sig.KeySet{})
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, "JOB_SPEC_INVALID", "%v", err)
	}
	m.change(r.GetJob(), func(held *schedulerv1.Job) {
		held.Update, m.updated = r.GetRevision(), r.GetRevision()
	})
	j.Update = r.GetRevision()
	return &schedulerv1.UpdateJobResponse{Job: j}, nil
}
