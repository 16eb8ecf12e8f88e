package server

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/fault"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/scheduler"
)

// Bounds of filters.
const (
	maxFilters = 16  // states or reasons
	maxPrefix  = 63  // bytes
	maxText    = 100 // bytes
)

// ListJobs implements SchedulerServiceServer.
func (s *Server) ListJobs(
	ctx context.Context, r *schedulerv1.ListJobsRequest,
) (*schedulerv1.ListJobsResponse, error) {
	caller, err := owner(ctx)
	if err != nil {
		return nil, err
	}
	size, err := pageSize(r.GetPageSize(), defaultJobs)
	if err != nil {
		return nil, err
	}
	filter, err := filterOf(r)
	if err != nil {
		return nil, err
	}
	query, err := queryOf(r, caller, size)
	if err != nil {
		return nil, err
	}
	listing := listingOf(&schedulerv1.ListJobsRequest{
		State: r.GetState(), States: r.GetStates(), EndReasons: r.GetEndReasons(),
		NamePrefix: r.GetNamePrefix(), Trigger: r.GetTrigger(), Since: r.GetSince(),
		Until: r.GetUntil(), Text: r.GetText(), Order: r.GetOrder(),
	}, caller)
	if query.After, err = readCursor(listing, r.GetPageToken()); err != nil {
		return nil, err
	}
	response := &schedulerv1.ListJobsResponse{}
	// Pages are filled past jobs that the filter leaves out, up to a bound per call.
	for scanned := 0; scanned < maxScanned; scanned += size {
		page, err := s.engine.Jobs(ctx, query)
		if err != nil {
			return nil, err
		}
		for _, j := range page {
			query.After = scheduler.Cursor{Time: j.Submitted, Job: j.ID}
			if filter.lets(j) {
				response.Jobs = append(response.Jobs, summaryPB(j))
			}
			if len(response.Jobs) == size {
				response.NextPageToken = listing.token(cursorBytes(query.After))
				return response, nil
			}
		}
		if len(page) < size {
			return response, nil
		}
	}
	response.NextPageToken = listing.token(cursorBytes(query.After))
	return response, nil
}

// queryOf is what of a listing the store's indexes answer.
func queryOf(
	r *schedulerv1.ListJobsRequest, caller sig.AccountID, size int,
) (scheduler.JobQuery, error) {
	q := scheduler.JobQuery{Owner: caller, Limit: size}
	switch r.GetOrder() {
	case schedulerv1.Order_ORDER_UNSPECIFIED, schedulerv1.Order_ORDER_NEWEST:
	case schedulerv1.Order_ORDER_OLDEST:
		q.Oldest = true
	default:
		return q, badFilter("order: %d is not known", r.GetOrder())
	}
	if r.GetSince() != 0 {
		q.Since = fromMillis(r.GetSince())
	}
	if r.GetUntil() != 0 {
		q.Until = fromMillis(r.GetUntil())
	}
	if r.GetUntil() != 0 && r.GetUntil() <= r.GetSince() {
		return q, badFilter("until: must be after since")
	}
	return q, nil
}

// filter is what of a listing each job is held against.
type filter struct {
	states  []scheduler.State
	ends    []scheduler.EndReason
	prefix  string
	text    string // lower case
	trigger schedulerv1.TriggerKind
}

func filterOf(r *schedulerv1.ListJobsRequest) (f filter, err error) {
	states := slices.Clone(r.GetStates())
	if r.GetState() != jobv1.State_STATE_UNSPECIFIED {
		states = append(states, r.GetState())
	}
	if len(states) > maxFilters || len(r.GetEndReasons()) > maxFilters {
		return f, badFilter("states, end_reasons: at most %d each", maxFilters)
	}
	for _, state := range states {
		if jobv1.State_name[int32(state)] == "" || state == 0 {
			return f, badFilter("states: %d is not known", state)
		}
		f.states = append(f.states, scheduler.State(state))
	}
	for _, end := range r.GetEndReasons() {
		if jobv1.EndReason_name[int32(end)] == "" || end == 0 {
			return f, badFilter("end_reasons: %d is not known", end)
		}
		f.ends = append(f.ends, scheduler.EndReason(end))
	}
	switch {
	case len(r.GetNamePrefix()) > maxPrefix:
		return f, badFilter("name_prefix: at most %d bytes", maxPrefix)
	case len(r.GetText()) > maxText:
		return f, badFilter("text: at most %d bytes", maxText)
	case schedulerv1.TriggerKind_name[int32(r.GetTrigger())] == "":
		return f, badFilter("trigger: %d is not known", r.GetTrigger())
	}
	f.prefix, f.text = r.GetNamePrefix(), strings.ToLower(r.GetText())
	f.trigger = r.GetTrigger()
	return f, nil
}

func badFilter(format string, args ...any) error {
	return fault.New(fault.InvalidArgument, ReasonBadRequest, format, args...)
}

// lets tells whether a job is to be listed.
func (f filter) lets(j *scheduler.Job) bool {
	state, end, reason := j.State()
	switch {
	case len(f.states) > 0 && !slices.Contains(f.states, state),
		len(f.ends) > 0 && !slices.Contains(f.ends, end),
		!strings.HasPrefix(j.Spec.Name, f.prefix),
		f.trigger != 0 && f.trigger != triggerOf(j):
		return false
	case f.text == "":
		return true
	}
	texts := []string{j.Spec.Name, reason}
	for i := range j.Runs {
		if a := j.Runs[i].Current(); a != nil {
			texts = append(texts, a.Host.Name)
		}
	}
	for _, text := range texts {
		if strings.Contains(strings.ToLower(text), f.text) {
			return true
		}
	}
	return false
}

// triggerOf is what starts a job's runs: further triggers are refused when it is submitted.
func triggerOf(j *scheduler.Job) schedulerv1.TriggerKind {
	if j.Spec.Always {
		return schedulerv1.TriggerKind_TRIGGER_KIND_ALWAYS
	}
	return schedulerv1.TriggerKind_TRIGGER_KIND_ONCE
}

// The place of a job in a listing is its time and id.
const cursorSize = 8 + 32

func cursorBytes(c scheduler.Cursor) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(c.Time.UnixNano())), c.Job[:]...)
}

func readCursor(l listing, token string) (scheduler.Cursor, error) {
	raw, err := l.place(token, cursorSize)
	if raw == nil {
		return scheduler.Cursor{}, err
	}
	nanos := binary.BigEndian.Uint64(raw)
	return scheduler.Cursor{Time: time.Unix(0, int64(nanos)), Job: job.ID(raw[8:])}, nil
}
