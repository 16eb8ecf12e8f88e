package executor_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/executor"
)

// TestStorageThatNamesATimeIsWaitedFor: what a job made was paid for. It is stored although storage
// takes no more for longer than CollectWait, if it says when it will; it is not asked before that,
// and not without end. One that only fails is given up after CollectWait.
func TestStorageThatNamesATimeIsWaitedFor(t *testing.T) {
	const again = 4 * time.Minute
	later := fault.New(fault.ResourceExhausted, "STORAGE_EVENT_RATE", "later").WithRetry(again)
	broken := fault.New(fault.Unavailable, "BROKEN", "broken")
	for name, tt := range map[string]struct {
		refusal   error
		refuses   time.Duration
		stored    bool
		ends      time.Duration // at most
		mostTries int64
	}{
		"names a time":          {later, 30 * time.Minute, true, 35 * time.Minute, 20},
		"names times for ever":  {later, 100 * time.Hour, false, 121 * time.Minute, 80},
		"only fails, for short": {broken, 5 * time.Minute, true, 6 * time.Minute, 1000},
		"only fails":            {broken, 100 * time.Hour, false, 11 * time.Minute, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				var tries atomic.Int64
				began := time.Now()
				w.files.SetHook(func(op string) (error, error) {
					if op != "Put" || time.Since(began) > tt.refuses {
						return w.killed(), nil
					}
					tries.Add(1)
					return tt.refusal, nil
				})
				agent := w.start()
				ask := w.ask(1, "write", "/out/a", "abc")
				lease := w.lease(agent, ask)
				o := (&client{w: w}).run(w.task(ask, lease.ID))
				took := time.Since(began)
				w.closed(ask.Attempt)
				if o.Reason != executor.EndCompleted || (len(o.Outputs) == 1) != tt.stored ||
					took > tt.ends || tries.Load() > tt.mostTries || tries.Load() == 0 ||
					strings.Contains(o.Message, "stored") == tt.stored {
					t.Errorf("after %s and %d tries: %+v", took, tries.Load(), o)
				}
			})
		})
	}
}
