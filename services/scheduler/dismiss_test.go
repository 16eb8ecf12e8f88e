package scheduler_test

import (
	"encoding/binary"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/scheduler"
)

// speaks has a host say that it keeps the program of an attempt.
func (m *market) speaks(id job.ID, host byte, n int) scheduler.AttemptID {
	m.t.Helper()
	attempt := scheduler.AttemptID{host}
	binary.BigEndian.PutUint32(attempt[4:], uint32(n))
	if err := m.engine.Report(m.t.Context(), scheduler.Report{
		Job: id, Attempt: attempt, Executor: sig.PublicKey{host}, State: scheduler.Running,
		Time: time.Now(), HeldUntil: time.Now().Add(time.Hour),
	}); err != nil {
		m.t.Fatal(err)
	}
	return attempt
}

// TestHostsThatInventPrograms: who speaks of programs that no job knows, and does not answer, is
// called once at a time, and many such hosts no more than 64 together. They keep no other host
// from being told for longer than a call.
func TestHostsThatInventPrograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		defer m.stop()
		var mu sync.Mutex
		now, most, ofHost := map[string]int{}, 0, 0
		told := map[scheduler.AttemptID]bool{}
		m.hosts.Hook(func() {
			m.hosts.OnStop = func(h scheduler.Host, s scheduler.Stop) error {
				if h.Name == "host-200" {
					mu.Lock()
					defer mu.Unlock()
					told[s.Attempt] = true
					return nil
				}
				mu.Lock()
				now[h.Name]++
				most, ofHost = max(most, len(now)), max(ofHost, now[h.Name])
				mu.Unlock()
				time.Sleep(5 * time.Second)
				mu.Lock()
				delete(now, h.Name)
				mu.Unlock()
				return scheduler.ErrUnreachable
			}
		})
		j := m.submit(1, 1)
		for host := byte(1); host <= 200; host++ {
			m.offer(host, 1000)
		}
		synctest.Wait()
		for n := range 100 {
			for host := byte(1); host < 200; host++ {
				m.speaks(j.ID, host, n)
			}
		}
		synctest.Wait()
		mu.Lock()
		if ofHost != 1 || most != 64 {
			t.Errorf("%d calls to one host and %d in all at the same time", ofHost, most)
		}
		mu.Unlock()
		time.Sleep(6 * time.Second)
		synctest.Wait()
		var kept []scheduler.AttemptID
		for n := range 20 {
			kept = append(kept, m.speaks(j.ID, 200, n))
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		for _, id := range kept {
			if !told[id] {
				t.Errorf("the host was not told of %x", id)
			}
		}
	})
}
