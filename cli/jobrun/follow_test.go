package jobrun

import (
	"slices"
	"strings"
	"testing"

	"github.com/united-containers/ucn/cli/session"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/network"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

type shown []string

func (s *shown) Event(e Event) { *s = append(*s, e.State) }

// TestStatesDoNotGoBack: a host's word that comes after a later one of the scheduler is not shown;
// a program that wakes up is.
func TestStatesDoNotGoBack(t *testing.T) {
	s, err := session.Open(t.Context(), session.Config{Network: network.File{
		API: "127.0.0.1:1", Chain: "main", Anchor: strings.Repeat("ab", 32),
		Operator: id.Bech32(id.Account, [32]byte{1}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	view := shown{}
	f := &following{
		r: &Runner{Session: s, View: &view}, e: &errand{spec: &jobv1.JobSpec{}},
	}
	v := &visit{f: f, attempt: &schedulerv1.Attempt{}}
	for _, told := range []struct{ scheduler, host jobv1.State }{
		{jobv1.State_STATE_LEASED, jobv1.State_STATE_LEASED},
		{jobv1.State_STATE_STARTING, jobv1.State_STATE_LEASED},
		{jobv1.State_STATE_STARTING, jobv1.State_STATE_STARTING},
		{jobv1.State_STATE_RUNNING, jobv1.State_STATE_STARTING},
		{jobv1.State_STATE_STARTING, jobv1.State_STATE_RUNNING},
		{jobv1.State_STATE_ASLEEP, jobv1.State_STATE_RUNNING},
		{jobv1.State_STATE_RUNNING, jobv1.State_STATE_ASLEEP},
		{jobv1.State_STATE_ASLEEP, jobv1.State_STATE_RUNNING},
	} {
		v.attempt.State = told.scheduler
		f.take(&report{from: v, status: &jobv1.AttemptStatus{State: told.host}})
	}
	if want := []string{"leased", "starting", "running", "asleep", "running"}; !slices.Equal(
		view, want) {
		t.Errorf("shown were %q, want %q", view, want)
	}
}
