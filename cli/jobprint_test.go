package cli

import (
	"bytes"
	"strings"
	"testing"

	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// TestKeptOriginalIsShown: who reads of a job sees which program is kept, until when, and which
// attempt goes on with another's.
func TestKeptOriginalIsShown(t *testing.T) {
	ended, running := jobv1.State_STATE_ENDED, jobv1.State_STATE_RUNNING
	first := &schedulerv1.Attempt{
		Id: []byte{1}, State: ended, Host: "host-1", Created: 1000, Ended: 61_000, Kept: true,
		Reason: "host-1 has been silent for 1m0s, kept; its replacement is on host-2",
		Status: &jobv1.AttemptStatus{State: running, HeldUntil: 300_000},
	}
	second := &schedulerv1.Attempt{
		Id: []byte{2}, State: running, Host: "host-2", Created: 61_000, Reason: "running",
	}
	third := &schedulerv1.Attempt{
		Id: []byte{3}, State: running, Host: "host-1", Created: 90_000, Continues: []byte{1},
		Reason: "host-1 is back and goes on with its program",
	}
	forgotten := &schedulerv1.Attempt{
		Id: []byte{4}, State: running, Host: "host-3", Continues: []byte{9}, Reason: "running",
	}
	shown := func(attempts ...*schedulerv1.Attempt) string {
		var out bytes.Buffer
		jobOf(&schedulerv1.Job{Runs: []*schedulerv1.Run{{Attempts: attempts}}}).print(&out)
		return out.String()
	}
	for _, tt := range []struct {
		attempts []*schedulerv1.Attempt
		want     string
	}{
		{[]*schedulerv1.Attempt{first, second}, "attempt 1\tkept on host-1 until " + stamp(300_000) +
			": host-1 has been silent for 1m0s, kept; its replacement is on host-2\n"},
		{[]*schedulerv1.Attempt{first, second, third}, "attempt 3\trunning on host-1, continues " +
			"attempt 1: host-1 is back and goes on with its program\n"},
		{[]*schedulerv1.Attempt{forgotten}, "running on host-3, continues an attempt before those:"},
	} {
		if got := shown(tt.attempts...); !strings.Contains(got, tt.want) {
			t.Errorf("shown is\n%s, want in it\n%s", got, tt.want)
		}
	}
}

// TestCostOfWhatRuns: what a host said last of an attempt that runs can be long ago, so it is not
// shown as the cost; the bill is. Once it has ended it is.
func TestCostOfWhatRuns(t *testing.T) {
	a := &schedulerv1.Attempt{
		Id: []byte{1}, State: jobv1.State_STATE_RUNNING, Host: "host-1", Created: 1000,
		Status: &jobv1.AttemptStatus{
			State: jobv1.State_STATE_RUNNING, Amount: 7, Usage: &jobv1.Usage{WallMs: 5000}, Time: 6000,
		},
	}
	for ended, want := range map[uint64][2]string{
		0: {"ucn job bill", " - "}, 9000: {"UCN for", "UCN"},
	} {
		a.Ended = ended
		run := &schedulerv1.Run{Attempts: []*schedulerv1.Attempt{a}}
		var out, runs bytes.Buffer
		jobOf(&schedulerv1.Job{Runs: []*schedulerv1.Run{run}}).print(&out)
		printRuns(&runs, []runResult{runOf(run)})
		if !strings.Contains(out.String(), want[0]) ||
			!strings.Contains(strings.ReplaceAll(runs.String(), "\t", " "), want[1]) {
			t.Errorf("ended %d: %s%s", ended, &out, &runs)
		}
	}
	if got := attemptOf(a); got.AsOf != 6000 {
		t.Errorf("as of %d", got.AsOf)
	}
}
