package ledger_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/clock"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/solo"
)

// market is a chain whose proposer's wall clock jumps, and who uses it: an owner (account 0) with
// an escrow that burns, an assigner (1), a host (2) with an agent (3).
type market struct {
	t      *testing.T
	n      *ledgertest.Network
	disk   ledgertest.Disk
	jump   atomic.Int64 // how far the proposer's wall clock is off, ns
	c      *ledger.Chain
	stop   func() error
	nonces [8]uint64
	escrow tx.EscrowID
	leases []tx.LeaseID
}

func newMarket(t *testing.T) *market {
	m := &market{t: t, n: network(t, 1, 8)}
	m.start()
	m.open()
	return m
}

// start starts a process: its clock begins with the wall clock, and the last block's time.
func (m *market) start() {
	began := time.Now()
	steady := clock.New(clock.Deps{
		Wall:    func() time.Time { return time.Now().Add(time.Duration(m.jump.Load())) },
		Elapsed: func() time.Duration { return time.Since(began) },
	})
	d := deps(m.n, m.disk.Open())
	d.Clock = steady.Now
	d.Orderer = func(head ledger.Header) (ledger.Orderer, error) {
		steady.Raise(time.UnixMilli(int64(head.Time)))
		return solo.New(solo.Default(), m.n.MaxStep(), solo.Deps{
			Key: m.n.Proposer, Head: head, Clock: steady.Now,
		})
	}
	m.c, m.stop = ledgertest.Start(m.t, config(), d)
}

// do has an account's operation committed at once: within a second of real time.
func (m *market) do(from int, o tx.Operation) tx.Receipt {
	m.t.Helper()
	body := m.n.Body(from, m.nonces[from], o)
	body.ValidUntil = tx.Millis(time.Now().Add(time.Minute).UnixMilli()) // by everybody else's clock
	m.nonces[from]++
	began := time.Now()
	r := submit(m.t, m.c, m.n.Sign(from, body))[0]
	if took := time.Since(began); took > time.Second {
		m.t.Errorf("%T was committed after %v", o, took)
	}
	receipt, err := tx.DecodeReceipt(r.Receipt)
	if err != nil || receipt.Status != chainv1.Status_STATUS_OK {
		m.t.Fatalf("%T: %+v, %v", o, receipt, err)
	}
	return receipt
}

const burnPerHour = 3_600_000

func (m *market) open() {
	r := m.do(0, &tx.OpenEscrow{
		Purpose: chainv1.Purpose_PURPOSE_JOB, Subject: make([]byte, 32), Amount: 2 * block.UCN,
		BurnRate: burnPerHour,
		Terms: tx.Terms{
			MaxRate: 1 << 40, MaxTotal: 2 * block.UCN, Trust: block.UCN, Assigner: m.n.Accounts[1],
			AckKeys: []sig.PublicKey{m.n.Keys[0].Public()},
			Expires: tx.Millis(time.Now().Add(60 * 24 * time.Hour).UnixMilli()),
		},
	})
	m.escrow = tx.EscrowID(r.Outcomes[0].Created)
}

const perSecond tx.Grains = 1000

// place places a lease of an hour, as by the clock of a scheduler elsewhere.
func (m *market) place() {
	m.t.Helper()
	m.placeWith(2, 3)
}

// placeWith places a lease with a host and its agent.
func (m *market) placeWith(host, agent int) {
	m.t.Helper()
	m.placeFor(m.n.Accounts[host], m.n.Keys[agent])
}

func (m *market) placeFor(host sig.AccountID, agent sig.PrivateKey) {
	m.t.Helper()
	l := tx.Lease{
		Escrow: m.escrow, Subject: make([]byte, 32), Slot: uint32(len(m.leases)), Epoch: 1,
		Payee: host, AgentKey: agent.Public(),
		Rate: tx.GrainsPerHour(perSecond * 3600), Budget: 4000 * perSecond, Trust: 60 * perSecond,
		AckKeys:     []sig.PublicKey{m.n.Keys[0].Public()},
		ClaimWindow: 24 * 3_600_000, PriceHash: tx.Hash{1}, OfferHash: tx.Hash{2},
		PlaceBy: tx.Millis(time.Now().Add(8 * time.Second).UnixMilli()),
		Until:   tx.Millis(time.Now().Add(time.Hour).UnixMilli()),
	}
	m.leases = append(m.leases, l.ID(m.n.Anchor))
	m.do(1, &tx.PlaceLease{Lease: l, Signature: agent.Sign(l.Preimage(m.n.Anchor))})
}

// charge charges for so much use of a lease so far and returns what was paid now.
func (m *market) charge(lease int, used time.Duration) tx.Grains {
	m.t.Helper()
	note := tx.Note{
		Lease: m.leases[lease], Revision: tx.Hash{3}, Upto: tx.Millis(time.Now().UnixMilli()),
		Cumulative: tx.Grains(used.Seconds()) * perSecond, UsageHash: tx.Hash{4},
	}
	c := &tx.Charge{Note: note, Signature: m.n.Keys[3].Sign(note.Preimage(m.n.Anchor))}
	c.Countersignature.Signature = m.n.Keys[0].Sign(note.AckPreimage(m.n.Anchor))
	return m.do(2, c).Outcomes[0].Amount
}

// TestTheProposersClockJumps: by hours, both ways, with leases and an escrow that burns. The chain
// goes on at once; what others sign by clocks that did not jump counts; no lease ends, nothing is
// paid twice, nothing burns for time that did not pass.
func TestTheProposersClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{3 * time.Hour, -3 * time.Hour, 30 * time.Hour} {
		for _, restart := range []bool{false, true} {
			if restart && jump > 0 {
				continue // a start follows the wall clock: whoever starts it says that it is right
			}
			t.Run(fmt.Sprintf("%v restart %v", jump, restart), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { clockJumps(t, jump, restart) })
			})
		}
	}
}

func clockJumps(t *testing.T, jump time.Duration, restart bool) {
	m := newMarket(t)
	began, accrued := time.Now(), m.c.Tip().Header.Accrual
	m.place()
	time.Sleep(2 * time.Minute)
	if got := m.charge(0, time.Minute); got != 60*perSecond {
		t.Errorf("%d paid for the first minute", got)
	}
	m.jump.Store(int64(jump))
	if restart {
		if err := m.stop(); err != nil {
			t.Fatal(err)
		}
		m.start()
	}
	m.do(0, &tx.Transfer{To: m.n.Accounts[1], Amount: 5})
	m.place()
	if got := m.charge(0, time.Minute); got != 0 {
		t.Errorf("%d paid for the first minute again", got)
	}
	const steps = 20
	for i := range steps {
		time.Sleep(time.Minute)
		used := time.Duration(i+2) * time.Minute
		// A slow clock has the chain see a little less time: what is due is paid a little later.
		if got := m.charge(0, used); got < 50*perSecond || got > 60*perSecond {
			t.Errorf("%d paid for minute %d", got, i+2)
		}
	}
	m.jump.Store(0) // somebody mends the clock
	time.Sleep(5 * time.Minute)
	for lease, used := range []time.Duration{(steps + 1) * time.Minute, steps * time.Minute} {
		m.charge(lease, used)
		state, ok := m.c.State().Lease(m.leases[lease])
		want := tx.Grains(used.Seconds()) * perSecond
		if !ok || state.Paid != want || state.Settled {
			t.Errorf("lease %d paid %d, it was used for %d", lease, state.Paid, want)
		}
	}
	m.verify(began, accrued)
}

// verify checks the chain's clocks against real time, and all its money.
func (m *market) verify(began time.Time, accrued tx.Millis) {
	m.t.Helper()
	passed := tx.Millis(time.Since(began).Milliseconds())
	tip := m.c.Tip().Header
	if a := tip.Accrual - accrued; a < passed*88/100 || a > passed*101/100 {
		m.t.Errorf("%d ms accrued in %d ms", a, passed)
	}
	e, _ := m.c.State().Escrow(m.escrow)
	if most := tx.Grains(passed * 102 / 100 * burnPerHour / 3_600_000); e.Burned > most {
		m.t.Errorf("%d burned, at most %d in that time", e.Burned, most)
	}
	for last, height := tx.Millis(0), uint64(0); height <= tip.Height; height++ {
		found, err := m.c.Block(m.t.Context(), height)
		if err != nil {
			m.t.Fatal(err)
		}
		if at := found.Block.Header.Time; at < last {
			m.t.Errorf("block %d is at %d, after one at %d", height, at, last)
		}
		last = found.Block.Header.Time
	}
	if err := ledgertest.Conserved(m.n, m.c, m.escrow); err != nil {
		m.t.Error(err)
	}
}
