package state_test

import (
	"testing"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

func TestPlaceLease(t *testing.T) {
	m := newMarket(t, nil)
	id := m.placed(nil)
	e, l := m.escrowNow(), m.leaseNow(id)
	if e.Reserved != 1_000_000 || e.Rate != 3_600_000 || e.Risk != 60_000 || e.Live != 1 {
		t.Errorf("escrow is %+v", e)
	}
	if l.From != m.now() || l.Budget != 1_000_000 {
		t.Errorf("lease is %+v", l)
	}
	if lane, ok := m.s.Lane(m.lane()); !ok || lane.Lease != id || lane.Epoch != 1 {
		t.Errorf("lane is %+v, %v", lane, ok)
	}
}

func TestPlaceLeaseRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		want   chainv1.Reason
		escrow func(*tx.OpenEscrow)
		lease  func(*tx.Lease)
	}{
		{"escrow too small", chainv1.Reason_REASON_UNRESERVED_TOO_LOW,
			func(o *tx.OpenEscrow) { o.Amount = 999_999 }, nil},
		{"below floor", chainv1.Reason_REASON_BELOW_FLOOR,
			func(o *tx.OpenEscrow) { o.Terms.Floor = 5_000_001 }, nil},
		{"above max_rate", chainv1.Reason_REASON_MAX_RATE,
			func(o *tx.OpenEscrow) { o.Terms.MaxRate = 3_599_999 }, nil},
		{"above max_total", chainv1.Reason_REASON_MAX_TOTAL,
			func(o *tx.OpenEscrow) { o.Terms.MaxTotal = 999_999 }, nil},
		{"above trust", chainv1.Reason_REASON_TRUST_EXCEEDED,
			func(o *tx.OpenEscrow) { o.Terms.Trust = 59_999 }, nil},
		{"escrow expires first", chainv1.Reason_REASON_ESCROW_EXPIRES_FIRST, nil,
			func(l *tx.Lease) { l.Until = genesisTime + 60*day }},
		{"until overflows", chainv1.Reason_REASON_ESCROW_EXPIRES_FIRST, nil,
			func(l *tx.Lease) { l.Until = 1<<64 - 1 }},
		{"unknown escrow", chainv1.Reason_REASON_ESCROW_UNKNOWN, nil,
			func(l *tx.Lease) { l.Escrow = tx.EscrowID{9} }},
		{"other subject", chainv1.Reason_REASON_SUBJECT_DIFFERS, nil,
			func(l *tx.Lease) { l.Subject = make([]byte, 32) }},
		{"other ack keys", chainv1.Reason_REASON_ACK_KEYS_DIFFER, nil,
			func(l *tx.Lease) { l.AckKeys = []sig.PublicKey{other().key.Public()} }},
		{"payee not listed", chainv1.Reason_REASON_PAYEE_NOT_ALLOWED,
			func(o *tx.OpenEscrow) { o.Payees = []sig.AccountID{other().id} }, nil},
		{"late", chainv1.Reason_REASON_LEASE_LATE, nil,
			func(l *tx.Lease) { l.PlaceBy = genesisTime + second }},
		{"place_by too far", chainv1.Reason_REASON_LEASE_INVALID, nil,
			func(l *tx.Lease) { l.PlaceBy += 10 * minute }},
		{"already over", chainv1.Reason_REASON_LEASE_INVALID, nil,
			func(l *tx.Lease) { l.Until = genesisTime + 2*second }},
		{"claim window short", chainv1.Reason_REASON_LEASE_INVALID, nil,
			func(l *tx.Lease) { l.ClaimWindow = day - 1 }},
		{"claim window long", chainv1.Reason_REASON_LEASE_INVALID, nil,
			func(l *tx.Lease) { l.ClaimWindow = 30*day + 1 }},
		{"no budget", chainv1.Reason_REASON_LEASE_INVALID, nil,
			func(l *tx.Lease) { l.Budget = 0 }},
		{"upfront above budget", chainv1.Reason_REASON_LEASE_INVALID, nil,
			func(l *tx.Lease) { l.Upfront = l.Budget + 1 }},
		{"holdback above budget", chainv1.Reason_REASON_LEASE_INVALID, nil,
			func(l *tx.Lease) { l.Holdback = l.Budget + 1 }},
		{"no price hash", chainv1.Reason_REASON_LEASE_INVALID, nil,
			func(l *tx.Lease) { l.PriceHash = tx.Hash{} }},
		{"agent acknowledges itself", chainv1.Reason_REASON_LEASE_INVALID,
			func(o *tx.OpenEscrow) {
				o.Terms.AckKeys = append(o.Terms.AckKeys, agent().key.Public())
			},
			func(l *tx.Lease) { l.AckKeys = append(l.AckKeys, agent().key.Public()) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMarket(t, c.escrow)
			m.refused(c.want, assigner(), m.place(m.lease(c.lease)))
			if e := m.escrowNow(); e.Reserved != 0 || e.Live != 0 {
				t.Errorf("a refused lease left %+v", e)
			}
		})
	}
}

func TestPlaceLeaseOverflow(t *testing.T) {
	for name, change := range map[string]func(*tx.Lease){
		"rate":   func(l *tx.Lease) { l.Rate, l.Slot = 1<<64-1, 2 },
		"budget": func(l *tx.Lease) { l.Budget, l.Slot = 1<<64-1, 2 },
		"trust":  func(l *tx.Lease) { l.Trust, l.Slot = 1<<64-1, 2 },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMarket(t, func(o *tx.OpenEscrow) {
				o.Terms.MaxRate, o.Terms.MaxTotal, o.Terms.Trust = 1<<64-1, 1<<64-1, 1<<64-1
			})
			m.placed(nil)
			m.refused(chainv1.Reason_REASON_OVERFLOW, assigner(), m.place(m.lease(change)))
		})
	}
}

func TestPlaceLeaseBy(t *testing.T) {
	m := newMarket(t, nil)
	l := m.lease(nil)
	m.refused(chainv1.Reason_REASON_NOT_ASSIGNER, other(), m.place(l))
	m.refused(chainv1.Reason_REASON_NOT_ASSIGNER, agent(), m.place(l))
	m.refused(chainv1.Reason_REASON_LEASE_SIGNATURE, assigner(), m.placeSigned(l, host()))
	m.must(owner(), m.place(l))
	m.refused(chainv1.Reason_REASON_LEASE_EXISTS, assigner(), m.place(l))
	again := m.lease(func(l *tx.Lease) { l.Budget-- })
	m.refused(chainv1.Reason_REASON_EPOCH_NOT_HIGHER, assigner(), m.place(again))
}

// TestPlaceTwiceInOneTransaction: nothing of a failed transaction stays.
func TestPlaceTwiceInOneTransaction(t *testing.T) {
	m := newMarket(t, nil)
	l := m.lease(nil)
	r := m.do(assigner(), m.place(l), m.place(l))
	if r.Reason != chainv1.Reason_REASON_LEASE_EXISTS || r.FailedOperation != 1 {
		t.Errorf("receipt is %+v", r)
	}
	if e := m.escrowNow(); e.Live != 0 || e.Reserved != 0 {
		t.Errorf("escrow is %+v", e)
	}
	if _, ok := m.s.Lane(m.lane()); ok {
		t.Error("the lane stayed")
	}
}

// TestHigherEpoch: the new lease ends the old one at its from, without notice.
func TestHigherEpoch(t *testing.T) {
	m := newMarket(t, func(o *tx.OpenEscrow) { o.Terms.MaxRate = 3_600_000 })
	old := m.placed(func(l *tx.Lease) { l.Notice = minute })
	m.block(10 * second)
	m.placed(func(l *tx.Lease) { l.Epoch, l.AgentKey = 5, agent().key.Public() })
	l, e := m.leaseNow(old), m.escrowNow()
	if l.End != m.now() || l.NoticeDue != 0 || !l.RateFreed {
		t.Errorf("old lease is %+v", l)
	}
	// 11 s of rate for the old, the whole budget for the new.
	if e.Reserved != 11_000+1_000_000 || e.Rate != 3_600_000 || e.Live != 2 {
		t.Errorf("escrow is %+v", e)
	}
	m.charged(m.acked(old, m.now()+hour, 60_000), 11_000, chainv1.Bound_BOUND_ENDED)
}

// TestStrangersEscrow: an escrow of someone else that names the same job touches no lane of ours.
func TestStrangersEscrow(t *testing.T) {
	m := newMarket(t, nil)
	id := m.placed(nil)
	open := openJob()
	open.Terms.Assigner = sig.AccountID{}
	r := m.must(other(), open)
	theirs := m.lease(func(l *tx.Lease) {
		l.Escrow, l.Epoch = tx.EscrowID(r.Outcomes[0].Created), 99
	})
	m.must(other(), m.place(theirs))
	if l := m.leaseNow(id); l.End != 0 {
		t.Errorf("a stranger ended the lease: %+v", l)
	}
}

func TestExtend(t *testing.T) {
	m := newMarket(t, nil)
	id := m.placed(nil)
	l := m.leaseNow(id)
	m.must(assigner(), &tx.Extend{Lease: id, Budget: 2_000_000, Until: l.Until + hour})
	m.must(assigner(), &tx.Extend{Lease: id, Budget: 2_000_000, Until: l.Until + hour})
	got, e := m.leaseNow(id), m.escrowNow()
	if got.Budget != 2_000_000 || got.Until != l.Until+hour || e.Reserved != 2_000_000 {
		t.Errorf("lease %+v, escrow %+v", got, e)
	}
}

func TestExtendRefused(t *testing.T) {
	more := func(budget tx.Grains, until tx.Millis) func(*market, tx.LeaseID) *tx.Extend {
		return func(m *market, id tx.LeaseID) *tx.Extend {
			l := m.leaseNow(id)
			return &tx.Extend{Lease: id, Budget: l.Budget + budget, Until: l.Until + until}
		}
	}
	for _, c := range []struct {
		name   string
		want   chainv1.Reason
		escrow func(*tx.OpenEscrow)
		by     person
		op     func(*market, tx.LeaseID) *tx.Extend
	}{
		{"unknown", chainv1.Reason_REASON_LEASE_UNKNOWN, nil, owner(),
			func(*market, tx.LeaseID) *tx.Extend { return &tx.Extend{Lease: tx.LeaseID{1}} }},
		{"stranger", chainv1.Reason_REASON_NOT_PARTY, nil, other(), more(1, 0)},
		{"payee", chainv1.Reason_REASON_NOT_PARTY, nil, host(), more(1, 0)},
		{"agent without renew", chainv1.Reason_REASON_RENEW_OFF, nil, agent(), more(1, 0)},
		{"agent, budget too far", chainv1.Reason_REASON_EXTEND_TOO_FAR, renewed, agent(),
			more(4_000_000, 0)},
		{"agent, until too far", chainv1.Reason_REASON_EXTEND_TOO_FAR, renewed, agent(),
			more(0, hour)},
		{"less budget", chainv1.Reason_REASON_EXTEND_SHRINKS, nil, owner(),
			func(m *market, id tx.LeaseID) *tx.Extend {
				return &tx.Extend{Lease: id, Budget: 1, Until: m.leaseNow(id).Until}
			}},
		{"less time", chainv1.Reason_REASON_EXTEND_SHRINKS, nil, owner(),
			func(m *market, id tx.LeaseID) *tx.Extend {
				return &tx.Extend{Lease: id, Budget: 1_000_000, Until: 1}
			}},
		{"overflow", chainv1.Reason_REASON_OVERFLOW, nil, owner(),
			func(m *market, id tx.LeaseID) *tx.Extend {
				m.placed(func(l *tx.Lease) { l.Slot = 2 })
				return &tx.Extend{Lease: id, Budget: 1<<64 - 1, Until: m.leaseNow(id).Until}
			}},
		{"beyond the balance", chainv1.Reason_REASON_UNRESERVED_TOO_LOW, nil, owner(),
			more(4_000_001, 0)},
		{"beyond max_total", chainv1.Reason_REASON_MAX_TOTAL,
			func(o *tx.OpenEscrow) { o.Terms.MaxTotal = 1_000_000 }, owner(), more(1, 0)},
		{"beyond expires", chainv1.Reason_REASON_ESCROW_EXPIRES_FIRST, nil, owner(),
			more(0, 60*day)},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMarket(t, c.escrow)
			id := m.placed(nil)
			m.refused(c.want, c.by, c.op(m, id))
			if l := m.leaseNow(id); l.Budget != 1_000_000 {
				t.Errorf("lease is %+v", l)
			}
		})
	}
}

// TestExpiresAfterARest: while a chain rests the accrual clock stands, by which escrows expire.
// What is opened afterwards has the life that it says, no more, and leases fit into it.
func TestExpiresAfterARest(t *testing.T) {
	m := newMarket(t, nil)
	m.block(40 * day)
	lag := m.now() - m.s.Head().Accrual
	if lag < 39*day {
		t.Fatalf("the accrual clock is %d ms behind", lag)
	}
	o := openJob()
	o.Terms.Expires = m.s.Head().Accrual + 3*day
	m.escrow = tx.EscrowID(m.must(owner(), o).Outcomes[0].Created)
	long := m.lease(func(l *tx.Lease) { l.Until = m.now() + 2*day + minute })
	m.refused(chainv1.Reason_REASON_ESCROW_EXPIRES_FIRST, assigner(), m.place(long))
	id := m.placed(func(l *tx.Lease) { l.Until = m.now() + day })
	m.refused(chainv1.Reason_REASON_ESCROW_EXPIRES_FIRST, owner(), &tx.Extend{
		Lease: id, Budget: 1_000_000, Until: m.now() + 2*day + minute})
	m.must(owner(), &tx.Extend{Lease: id, Budget: 1_000_000, Until: m.now() + 2*day - minute})
	m.refused(chainv1.Reason_REASON_NOT_EXPIRED, other(), &tx.CloseEscrow{Escrow: m.escrow})
	m.wait(3*day + minute)
	m.must(other(), &tx.Settle{Leases: []tx.LeaseID{id}}, &tx.CloseEscrow{Escrow: m.escrow})
}

func renewed(o *tx.OpenEscrow) { o.Renew = true }

// TestExtendByAgent: up to an hour of rate ahead of now, and what was agreed stays.
func TestExtendByAgent(t *testing.T) {
	m := newMarket(t, renewed)
	id := m.placed(func(l *tx.Lease) { l.Upfront = 7 })
	l := m.leaseNow(id)
	m.block(59 * second)
	// The operation is in a block one second later.
	ahead := m.now() + second + hour
	due := 7 + tx.Grains(ahead-l.From)
	m.must(agent(), &tx.Extend{Lease: id, Budget: due, Until: ahead})
	m.refused(chainv1.Reason_REASON_EXTEND_TOO_FAR, agent(),
		&tx.Extend{Lease: id, Budget: due + 1_001, Until: ahead})
}

// TestExtendUnderNewTerms: extensions obey the terms of today, running leases those they had.
func TestExtendUnderNewTerms(t *testing.T) {
	for want, change := range map[chainv1.Reason]func(*tx.Terms){
		chainv1.Reason_REASON_MAX_RATE:       func(t *tx.Terms) { t.MaxRate = 1 },
		chainv1.Reason_REASON_TRUST_EXCEEDED: func(t *tx.Terms) { t.Trust = 1 },
		chainv1.Reason_REASON_BELOW_FLOOR:    func(t *tx.Terms) { t.Floor = 4_000_001 },
	} {
		m := newMarket(t, nil)
		id := m.placed(nil)
		terms := terms()
		change(&terms)
		m.must(owner(), &tx.SetTerms{Escrow: m.escrow, Terms: terms})
		l := m.leaseNow(id)
		m.refused(want, owner(), &tx.Extend{Lease: id, Budget: l.Budget + 1, Until: l.Until})
		m.charged(m.acked(id, m.now(), 2_000), 2_000, unbound)
	}
}

func TestEnd(t *testing.T) {
	for _, c := range []struct {
		name   string
		by     person
		notice tx.Grains
	}{
		{"owner", owner(), 30_000}, {"assigner", assigner(), 30_000},
		{"agent", agent(), 0}, {"payee", host(), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMarket(t, nil)
			id := m.placed(func(l *tx.Lease) { l.Notice = 30 * second })
			m.block(9 * second)
			m.must(c.by, &tx.End{Lease: id})
			l, e := m.leaseNow(id), m.escrowNow()
			if l.End != m.now() || l.NoticeDue != c.notice {
				t.Errorf("lease is %+v", l)
			}
			if e.Reserved != 10_000+c.notice || e.Rate != 0 || e.Risk != e.Reserved {
				t.Errorf("escrow is %+v", e)
			}
			m.refused(chainv1.Reason_REASON_LEASE_ENDED, c.by, &tx.End{Lease: id})
			m.refused(chainv1.Reason_REASON_LEASE_ENDED, owner(),
				&tx.Extend{Lease: id, Budget: l.Budget, Until: l.Until})
			m.charged(m.acked(id, l.End, 10_000), 10_000+c.notice, unbound)
		})
	}
}

func TestEndRefused(t *testing.T) {
	m := newMarket(t, nil)
	id := m.placed(nil)
	m.refused(chainv1.Reason_REASON_LEASE_UNKNOWN, owner(), &tx.End{Lease: tx.LeaseID{1}})
	m.refused(chainv1.Reason_REASON_NOT_PARTY, other(), &tx.End{Lease: id})
	m.wait(hour)
	m.refused(chainv1.Reason_REASON_LEASE_ENDED, owner(), &tx.End{Lease: id})
}

// TestNoticeIsBounded: notice never takes more than budget, and pays within trust only.
func TestNoticeIsBounded(t *testing.T) {
	m := newMarket(t, nil)
	id := m.placed(func(l *tx.Lease) { l.Notice, l.Trust = 1<<63, 100 })
	m.must(owner(), &tx.End{Lease: id})
	if e := m.escrowNow(); e.Reserved != 1_000_000 {
		t.Errorf("escrow is %+v", e)
	}
	m.charged(m.acked(id, m.now(), 1_000), 1_100, chainv1.Bound_BOUND_TRUST)
}
