package scheduler_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

const fee uint64 = 50_000

// fees is what the job's escrow paid for its leases.
func (m *market) fees(j *scheduler.Job) uint64 {
	m.t.Helper()
	s, err := m.ledger.Escrow(m.t.Context(), j.Escrow)
	if err != nil {
		m.t.Fatal(err)
	}
	return s.LeaseFees
}

// TestLeaseFee: each lease pays the scheduler once, whoever's fault it is that another is needed,
// and what the host may charge and the fee are within what the job may cost.
func TestLeaseFee(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarketFor(t, fee)
		defer m.stop()
		m.ledger.MaxTotal = 1_000_000
		m.offer(1, 1000)
		j := m.submitSpec(func(s *scheduler.Spec) { s.Retries = 1 })
		first := m.wantLane(j.ID, 0, scheduler.Leased, "host-1")
		if got := uint64(first.Lease.Lease.Budget); got != 1_000_000-fee || m.fees(j) != fee {
			t.Errorf("the lease has %d grains, and %d were taken for it", got, m.fees(j))
		}
		m.offer(2, 900)
		m.tell(j.ID, 0, scheduler.Ended, scheduler.HostLost)
		time.Sleep(time.Minute)
		m.offer(2, 900)
		second := m.wantLane(j.ID, 0, scheduler.Leased, "host-2")
		if got := uint64(second.Lease.Lease.Budget); got < 1_000_000-2*fee-10_000 ||
			got > 1_000_000-2*fee || m.fees(j) != 2*fee || m.ledger.Refused() != 0 {
			t.Errorf("the second has %d grains, %d were taken, the chain refused %d", got, m.fees(j),
				m.ledger.Refused())
		}
	})
}

// TestLeaseFeeIsGranted: a job whose escrow grants less than the scheduler takes, for a lease or in
// all, is refused, and the refusal names what is granted and what is taken.
func TestLeaseFeeIsGranted(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*scheduler.Escrow)
		want   error
	}{
		"enough": {func(s *scheduler.Escrow) { s.LeaseFee, s.LeaseFeeTotal = fee, fee }, nil},
		"too little": {func(s *scheduler.Escrow) { s.LeaseFee = fee - 1 },
			scheduler.ErrLeaseFee},
		"none": {func(s *scheduler.Escrow) { s.LeaseFee = 0 }, scheduler.ErrLeaseFee},
		"too little in all": {func(s *scheduler.Escrow) { s.LeaseFeeTotal = fee - 1 },
			scheduler.ErrLeaseFee},
		"all taken": {func(s *scheduler.Escrow) { s.LeaseFees = s.LeaseFeeTotal - fee + 1 },
			scheduler.ErrLeaseFee},
		"nothing beside it": {func(s *scheduler.Escrow) { s.Unreserved = fee }, scheduler.ErrEscrow},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarketFor(t, fee)
				defer m.stop()
				j := schedulertest.NewJob(1, 1)
				j.Runs = nil
				m.ledger.Fund(j)
				m.ledger.Change(j.Escrow, tt.change)
				_, err := m.engine.Submit(t.Context(), j)
				if !errors.Is(err, tt.want) || tt.want != nil && !errors.Is(err, scheduler.ErrEscrow) {
					t.Fatalf("Submit = %v, want %v", err, tt.want)
				}
				if errors.Is(tt.want, scheduler.ErrLeaseFee) &&
					!strings.Contains(err.Error(), "takes 50000") {
					t.Errorf("%q does not say what is taken", err)
				}
			})
		})
	}
}

// TestLeaseFeesUsedUp: when the owner grants no more in fees, the scheduler places nothing at its
// own expense; the job says so and goes on when more is granted.
func TestLeaseFeesUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarketFor(t, fee)
		defer m.stop()
		m.ledger.Fees = 2*fee + fee - 1
		m.offer(1, 1000)
		j := m.submitSpec(array(4, 1))
		for range 2 {
			m.wantLane(j.ID, 0, scheduler.Leased, "host-1")
			m.tell(j.ID, 0, scheduler.Ended, scheduler.Completed)
			m.offer(1, 1000)
		}
		time.Sleep(10 * time.Minute)
		m.offer(1, 1000)
		time.Sleep(2 * time.Minute)
		m.want(j.ID, scheduler.Pending, 0, "of 149999 in all of which 100000 are taken; "+
			"this scheduler takes 50000")
		if m.ledger.Placed() != 2 || m.ledger.Refused() != 0 || m.fees(j) != 2*fee {
			t.Errorf("%d leases were placed and %d refused, %d was taken", m.ledger.Placed(),
				m.ledger.Refused(), m.fees(j))
		}
		m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) { s.LeaseFeeTotal++ })
		time.Sleep(90 * time.Second)
		m.wantLane(j.ID, 0, scheduler.Leased, "host-1")
	})
}

// TestLeaseFeesAreCounted: lanes that are placed at the same time keep within what is granted in
// all together, without the chain's refusal, which would cost the scheduler.
func TestLeaseFeesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarketFor(t, fee)
		defer m.stop()
		m.ledger.Fees = 2 * fee
		m.hosts.Hook(func() {
			m.hosts.OnAsk = func(scheduler.Host, scheduler.Ask, *tx.Lease) error {
				time.Sleep(time.Second)
				return nil
			}
		})
		j := m.submitSpec(replicas(3))
		for n := range byte(3) {
			m.offer(n+1, 1000)
		}
		time.Sleep(30 * time.Second)
		if m.ledger.Placed() != 2 || m.ledger.Refused() != 0 || m.fees(j) != 2*fee {
			t.Errorf("%d leases were placed and %d refused, %d was taken", m.ledger.Placed(),
				m.ledger.Refused(), m.fees(j))
		}
	})
}

// TestLastMoneyIsNotForFees: the last of an array's money begins no task with less than a minute's
// worth, or than the fee if that is less: else most of it would be fees.
func TestLastMoneyIsNotForFees(t *testing.T) {
	for name, tt := range map[string]struct {
		coreHour, left uint64
		runs           bool
	}{
		"too little of a dear host":    {60_000_000, 2*fee - 1, false},
		"as much as the fee":           {60_000_000, 2 * fee, true},
		"less than a minute":           {6000, fee + 99, false},
		"a minute of a cheap host":     {6000, fee + 100, true},
		"nothing beside the fee":       {6000, fee, false},
		"far more than a minute needs": {6000, 10 * fee, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarketFor(t, fee)
				defer m.stop()
				m.ledger.MaxTotal = 1_000_000_000
				m.hosts.Hook(func() {
					m.hosts.OnAsk = func(_ scheduler.Host, _ scheduler.Ask, l *tx.Lease) error {
						l.Rate = tx.GrainsPerHour(tt.coreHour)
						return nil
					}
				})
				m.offer(1, tt.coreHour)
				j := m.submitSpec(func(s *scheduler.Spec) {
					s.Tasks, s.Lanes, s.MaxTotal, s.Cap = 3, 1, 1_000_000_000, nil
					s.Resources.CPUMilli, s.Resources.Memory, s.Resources.Disk = 1000, 0, 0
				})
				m.wantLane(j.ID, 0, scheduler.Leased, "host-1")
				m.spend(j, 0, tt.left)
				m.ledger.Change(j.Escrow, func(s *scheduler.Escrow) { s.MaxRate = 1 << 60 })
				for range 5 {
					m.offer(1, tt.coreHour)
					time.Sleep(time.Minute)
				}
				if runs := m.ledger.Placed() == 2; runs != tt.runs {
					t.Errorf("%d leases were placed; it %s", m.ledger.Placed(), m.read(j.ID).Runs[0].Reason)
				}
			})
		})
	}
}
