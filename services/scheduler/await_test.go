package scheduler_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/services/scheduler"
)

// dueIn counts the sweeps in a time for which the job was due, while others make offers.
func (o *original) dueIn(d time.Duration, hosts ...byte) (n int) {
	o.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Second) {
		for _, host := range hosts {
			o.offer(host, uint64(host)*1000)
		}
		if o.run().State == scheduler.Running { // else it is due for its replacement
			o.tell(o.id, 0, scheduler.Running, 0)
		}
		synctest.Wait()
		due, err := o.store.Due(o.t.Context(), scheduler.Cursor{}, time.Now(), 10)
		if err != nil {
			o.t.Fatal(err)
		}
		n += len(due)
	}
	return n
}

// TestSilentHostsMakeNothingDue: while the host of a kept program is silent its job is not looked
// at, whatever lives of the scheduler come and go. Once that host makes an offer it is asked, also
// if its word on what it keeps is lost.
func TestSilentHostsMakeNothingDue(t *testing.T) {
	for name, restarts := range map[string][]time.Duration{
		"one life": nil, "started anew": {0}, "started anew while it was back": {time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOriginal(t, always)
				defer func() { o.stop() }()
				o.replaced()
				o.hosts.Hook(func() {
					o.hosts.OnTell = func(_ scheduler.Host, k scheduler.Task) *scheduler.Report {
						return &scheduler.Report{
							Job: o.id, Run: k.Run, Attempt: k.Attempt, Executor: o.first.Host.Executor,
							State: scheduler.Running, Reason: "kept", Time: time.Now(), Ran: true,
							HeldUntil: time.Now().Add(hold), Raw: []byte(time.Now().String()),
						}
					}
				})
				for _, back := range restarts {
					if back > 0 { // it makes offers, is not reached, and is gone with the old life
						o.dueIn(back, 1, 2)
					}
					o.stop()
					o.start()
					o.dueIn(20*time.Second, 2)
				}
				if n := o.dueIn(10*time.Minute, 2); n > 0 {
					t.Errorf("due at %d of 120 sweeps while its host is silent", n)
				}
				o.silence("host-1", false)
				o.dueIn(10*time.Second, 1, 2)
				if run := o.run(); run.Current().Continues != o.first.ID {
					t.Errorf("host 1 does not go on with its program: %s, %s", run.State, run.Reason)
				}
			})
		})
	}
}
