package server

import (
	"context"
	"encoding/binary"

	"github.com/united-containers/ucn/chain/sig"
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
	listing := listingOf(&schedulerv1.ListRunsRequest{Job: r.GetJob()}, sig.AccountID{})
	size, err := pageOf(r.GetPageSize(), defaultRuns, maxRuns)
	if err != nil {
		return nil, err
	}
	from, err := readIndex(listing, r.GetPageToken())
	if err != nil {
		return nil, err
	}
	response := &schedulerv1.ListRunsResponse{}
	var runs []*scheduler.Run
	for i := range j.Runs {
		switch {
		case j.Runs[i].Slot < from:
		case len(runs) == size:
			response.NextPageToken = listing.token(indexBytes(j.Runs[i].Slot))
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
	listing := listingOf(&schedulerv1.ListTasksRequest{Job: r.GetJob()}, sig.AccountID{})
	size, err := pageOf(r.GetPageSize(), defaultTasks, maxTasks)
	if err != nil {
		return nil, err
	}
	from, err := readIndex(listing, r.GetPageToken())
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
		response.NextPageToken = listing.token(indexBytes(next))
	}
	return response, nil
}

// pageOf reads the size of a page of runs or tasks.
func pageOf(size uint32, otherwise, most int) (int, error) {
	if size > uint32(most) {
		return 0, fault.New(fault.InvalidArgument, ReasonBadRequest,
			"page_size is %d, at most %d", size, most)
	}
	if size == 0 {
		return otherwise, nil
	}
	return int(size), nil
}

// indexBytes is the place of a slot or a task: the page begins with it.
func indexBytes(from uint32) []byte { return binary.BigEndian.AppendUint32(nil, from) }

func readIndex(l listing, token string) (uint32, error) {
	raw, err := l.place(token, 4)
	if raw == nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(raw), nil
}
