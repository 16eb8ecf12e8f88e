package server

import (
	"context"
	"encoding/base64"
	"encoding/binary"

	"github.com/united-containers/ucn/kit/fault"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/scheduler"
)

// Bounds of pages of runs and tasks.
const (
	defaultRuns  = 50
	maxRuns      = 100
	defaultTasks = 1000
	maxTasks     = 10_000
)

// ListRuns implements SchedulerServiceServer.
func (s *Server) ListRuns(
	ctx context.Context, r *schedulerv1.ListRunsRequest,
) (*schedulerv1.ListRunsResponse, error) {
	j, err := s.find(ctx, r.GetJob())
	if err != nil {
		return nil, err
	}
	size, from, err := page(r.GetPageSize(), r.GetPageToken(), defaultRuns, maxRuns)
	if err != nil {
		return nil, err
	}
	response := &schedulerv1.ListRunsResponse{}
	var runs []*scheduler.Run
	for i := range j.Runs {
		switch {
		case j.Runs[i].Slot < from:
		case len(runs) == size:
			response.NextPageToken = indexToken(j.Runs[i].Slot)
			return response, tellAttempts(response.Runs, runs)
		default:
			runs = append(runs, &j.Runs[i])
			response.Runs = append(response.Runs, runPB(&j.Runs[i]))
		}
	}
	return response, tellAttempts(response.Runs, runs)
}

// ListTasks implements SchedulerServiceServer.
func (s *Server) ListTasks(
	ctx context.Context, r *schedulerv1.ListTasksRequest,
) (*schedulerv1.ListTasksResponse, error) {
	j, err := s.find(ctx, r.GetJob())
	if err != nil {
		return nil, err
	}
	size, from, err := page(r.GetPageSize(), r.GetPageToken(), defaultTasks, maxTasks)
	switch {
	case err != nil:
		return nil, err
	case j.Spec.Tasks == 0:
		return nil, fault.New(fault.FailedPrecondition, ReasonBadRequest, "the job is no array")
	}
	tasks, next, err := s.engine.FailedTasks(ctx, j, from, size)
	if err != nil {
		return nil, err
	}
	response := &schedulerv1.ListTasksResponse{}
	for _, t := range tasks {
		response.Tasks = append(response.Tasks, &schedulerv1.EndedTask{
			Index: t.Index, EndReason: jobv1.EndReason(t.End),
		})
	}
	if next < j.Spec.Tasks {
		response.NextPageToken = indexToken(next)
	}
	return response, nil
}

// page reads the size of a page and the slot or index it begins at.
func page(size uint32, token string, otherwise, most int) (int, uint32, error) {
	if size > uint32(most) {
		return 0, 0, fault.New(fault.InvalidArgument, ReasonBadRequest,
			"page_size is %d, at most %d", size, most)
	}
	if size == 0 {
		size = uint32(otherwise)
	}
	if token == "" {
		return int(size), 0, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) != 4 {
		return 0, 0, badCursor()
	}
	return int(size), binary.BigEndian.Uint32(raw), nil
}

func indexToken(from uint32) string {
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, from))
}
