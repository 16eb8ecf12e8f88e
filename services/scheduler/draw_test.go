package scheduler_test

import (
	"encoding/binary"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/services/scheduler"
)

// frail is a source of ids that gives the same to all who read it at the same time, as generators
// do that say so.
type frail struct {
	next, readers, together atomic.Uint64
}

func (f *frail) Read(p []byte) (int, error) {
	f.together.Add(f.readers.Add(1) - 1)
	defer f.readers.Add(^uint64(0))
	n := f.next.Load()
	for range 20 {
		runtime.Gosched()
	}
	f.next.Store(n + 1)
	return copy(p, binary.BigEndian.AppendUint64(make([]byte, 8), n)), nil
}

// TestIDsAreDrawnOneByOne: lanes that are placed at the same moment do not read the source of ids
// at the same time. Two that got the same id had one record between them: the other lane was asked
// for ever, with its lease on the chain.
func TestIDsAreDrawnOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &frail{}
		m, j := drawing(t, source, 20)
		defer m.stop()
		m.wantPlaced(j)
		if n := source.together.Load(); n > 0 {
			t.Errorf("the source of ids was read %d times by several at once", n)
		}
	})
}

// repeating gives the id of one draw again at the next.
type repeating struct{ draws, repeat uint64 }

func (s *repeating) Read(p []byte) (int, error) {
	n := s.draws
	if s.draws++; n > s.repeat {
		n--
	}
	return copy(p, binary.BigEndian.AppendUint64(make([]byte, 8), n)), nil
}

// TestNoLaneTakesTheIDOfAnother: an attempt with an id that its job knows already is not begun, be
// it of another lane or of the lane's own, and the lane is placed with another one.
func TestNoLaneTakesTheIDOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, j := drawing(t, &repeating{repeat: 2}, 2) // the ids of two runs come first
		defer m.stop()
		m.wantPlaced(j)
	})
}

// drawing submits a job of several lanes to a scheduler that makes its ids of a source.
func drawing(t *testing.T, source io.Reader, lanes uint32) (*market, *scheduler.Job) {
	m := newMarket(t)
	m.stop()
	m.random = source
	m.start()
	m.ledger.MaxTotal = 100_000_000
	for n := byte(1); n <= 20; n++ {
		m.offer(n, 1000)
	}
	return m, m.submitSpec(replicas(lanes))
}

// wantPlaced tests that each lane has a lease of its own, of which it knows.
func (m *market) wantPlaced(j *scheduler.Job) {
	m.t.Helper()
	time.Sleep(time.Minute)
	seen := map[scheduler.AttemptID]bool{}
	for slot, run := range m.read(j.ID).Runs {
		a := run.Current()
		if a == nil || !a.Placed || a.Lease.ID != run.Lease || seen[a.ID] {
			m.t.Fatalf("lane %d is %s (%s), attempt %+v", slot, run.State, run.Reason, a)
		}
		seen[a.ID] = true
	}
	if open := m.ledger.Open(); open != len(seen) {
		m.t.Errorf("%d leases are open, want %d", open, len(seen))
	}
}
