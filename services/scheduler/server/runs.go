package server

import (
	"context"

	"github.com/united-containers/ucn/kit/fault"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// UpdateJob implements SchedulerServiceServer.
func (s *Server) UpdateJob(
	context.Context, *schedulerv1.UpdateJobRequest,
) (*schedulerv1.UpdateJobResponse, error) {
	return nil, fault.New(fault.Unimplemented, ReasonNotBuilt, "jobs are not updated yet")
}

// ListRuns implements SchedulerServiceServer.
func (s *Server) ListRuns(
	context.Context, *schedulerv1.ListRunsRequest,
) (*schedulerv1.ListRunsResponse, error) {
	return nil, fault.New(fault.Unimplemented, ReasonNotBuilt, "runs are not listed yet")
}

// ListTasks implements SchedulerServiceServer.
func (s *Server) ListTasks(
	context.Context, *schedulerv1.ListTasksRequest,
) (*schedulerv1.ListTasksResponse, error) {
	return nil, fault.New(fault.Unimplemented, ReasonNotBuilt, "tasks are not listed yet")
}
