package scheduler_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/services/scheduler"
)

// TestStatusesAreBounded: hosts that say as much as they may at each end do not swell the record of
// the job; what was said last of each lane is kept.
func TestStatusesAreBounded(t *testing.T) {
	const lanes, tries, most = 4, 6, 1 << 20
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		j := m.submitSpec(replicas(lanes))
		ended := map[scheduler.AttemptID]bool{}
		for range tries {
			m.offers(time.Minute, 1, 2, 3)
			for _, r := range m.read(j.ID).Runs {
				a := *r.Current()
				if ended[a.ID] {
					t.Fatalf("lane %d is not tried again: %s", r.Slot, r.Reason)
				}
				ended[a.ID] = true
				m.hosts.End(a.ID)
				if err := m.engine.Report(t.Context(), scheduler.Report{
					Job: j.ID, Run: r.ID, Attempt: a.ID, Executor: a.Host.Executor, Ran: true,
					State: scheduler.Ended, End: scheduler.Completed, Time: time.Now(),
					Raw: bytes.Repeat(a.ID[:], 128<<10/len(a.ID)),
				}); err != nil {
					t.Fatal(err)
				}
			}
		}
		held := 0
		for _, r := range m.read(j.ID).Runs {
			for _, a := range r.Attempts {
				held += len(a.Status)
			}
			if last := r.Attempts[len(r.Attempts)-1]; ended[last.ID] && len(last.Status) != 128<<10 {
				t.Errorf("of the last attempt of lane %d %d bytes are kept", r.Slot, len(last.Status))
			}
		}
		if held == 0 || held > most {
			t.Errorf("the record holds %d bytes of statuses after %d attempts, want at most %d", held,
				len(ended), most)
		}
	})
}
