package adversary

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/scheduler"
)

// TestEvictedOnARealChain: real hosts, scheduler and ledger, and an escrow that has nothing free
// beside the first lease. The replacement is there long before the end that was told.
func TestEvictedOnARealChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStreet(t)
		defer s.h.close()
		first := s.run(scheduler.KeepReplacement)
		s.pass(2 * time.Minute)
		at, err := s.of(first).agent.Evict(t.Context(), idOf(first), 20*time.Minute, "a new fan")
		if err != nil {
			t.Fatal(err)
		}
		second := s.await(2)
		if second.Host.Name == first.Host.Name || time.Until(at) < 19*time.Minute {
			t.Errorf("%v before the end it runs on %s", time.Until(at), second.Host.Name)
		}
		s.h.settledIn(s.of(first).journal, idOf(first))
		if time.Until(at) < 18*time.Minute {
			t.Errorf("the first host goes %v before its time only", time.Until(at))
		}
		o := s.of(first).journal.Record(idOf(first)).Outcome
		if o.Reason != executor.EndEvicted || !strings.Contains(o.Message, "a new fan") {
			t.Errorf("the first host says %s: %s", o.Reason, o.Message)
		}
		if beyond := s.handedOver(first, second); beyond != 0 {
			t.Errorf("%d grains were paid for time that was not its own", beyond)
		}
	})
}

// TestBestOnARealChain: the silent host's lease reserves all that there is, and is superseded.
func TestBestOnARealChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStreet(t)
		defer s.h.close()
		first := s.run(scheduler.KeepBest)
		s.pass(2 * time.Minute)
		s.of(first).setGone(true)
		second := s.await(2)
		s.of(first).setGone(false)
		s.h.settledIn(s.of(first).journal, idOf(first))
		if again := s.await(2); again.ID != second.ID {
			t.Errorf("it goes on as %+v", again)
		}
		if beyond := s.handedOver(first, second); beyond != 0 {
			t.Errorf("%d grains were paid for time that was not its own", beyond)
		}
	})
}

// TestOriginalOnARealChain is the row "superseded, then continued" of the refunds: the silent host
// is paid until its replacement's lease, that one until the original's new lease, and the original
// again from then on. Its program is the one that began first; nobody is paid for what it did in
// between.
func TestOriginalOnARealChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStreet(t)
		defer s.h.close()
		first := s.run(scheduler.KeepOriginal)
		s.pass(2 * time.Minute)
		s.of(first).setGone(true)
		second := s.await(2)
		s.pass(time.Minute)
		s.of(first).setGone(false)
		third := s.await(3)
		if third.Host.Name != first.Host.Name || third.Continues != first.ID {
			t.Fatalf("it goes on as %+v", third)
		}
		s.h.settledIn(s.of(first).journal, idOf(first))
		s.h.settledIn(s.of(second).journal, idOf(second)) // it was told, though it keeps originals
		s.pass(10 * time.Minute)
		if r := s.of(third).journal.Record(idOf(third)); r.Container != idOf(first) || r.Outcome != nil {
			t.Errorf("what goes on runs the container of %q, outcome %+v", r.Container, r.Outcome)
		}
		for _, pair := range [][2]scheduler.Attempt{{first, second}, {second, third}} {
			if beyond := s.handedOver(pair[0], pair[1]); beyond != 0 {
				t.Errorf("%d grains were paid for time that was not its own", beyond)
			}
		}
		if _, err := s.engine().Cancel(t.Context(), s.job(), "enough"); err != nil {
			t.Fatal(err)
		}
		s.h.settledIn(s.of(third).journal, idOf(third))
		list := s.rentals()
		if s.checkLanes(list); len(list) != 3 || !s.idle() {
			t.Errorf("%d leases, and the escrow promises something: %v", len(list), !s.idle())
		}
		if paid := list[2].paid; paid < 55*tenSeconds || paid > 65*tenSeconds {
			t.Errorf("the original is paid %d for ten minutes after its return", paid)
		}
	})
}

// TestDrainedOnARealChain: a host is drained on which all lanes of a job run. They move at the same
// time, to one host, each against the money of its own last lease.
func TestDrainedOnARealChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStreet(t)
		defer s.h.close()
		other := s.hosts[s.h.n.Keys[neighbour].Public()]
		other.setGone(true)
		const lanes = 3
		s.submit(func(spec *scheduler.Spec) { spec.Lanes = lanes })
		before := s.lanes(lanes, s.h.n.Keys[agentKey].Public())
		s.pass(2 * time.Minute)
		other.setGone(false)
		s.pass(6 * time.Second) // it has told its offer
		if _, err := s.h.agent.Drain(t.Context(), "moving", 20*time.Minute); err != nil {
			t.Fatal(err)
		}
		drained := time.Now()
		after := s.lanes(lanes, other.offer.Host.Executor)
		if took := time.Since(drained); took > time.Minute {
			t.Errorf("all run elsewhere after %v", took)
		}
		for i := range before {
			s.h.settledIn(s.h.journal, idOf(before[i]))
			if beyond := s.handedOver(before[i], after[i]); beyond != 0 {
				t.Errorf("lane %d: %d grains were paid for time that was not its own", i, beyond)
			}
		}
	})
}

// TestToppedUpOnARealChain: an always job uses up what its escrow may pay, waits, and goes on when
// its owner adds money and lets the escrow pay it.
func TestToppedUpOnARealChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStreet(t)
		defer s.h.close()
		e, _ := s.h.chain.State().Escrow(s.h.escrow)
		terms := e.Terms
		terms.MaxTotal = 180 * fromHost // what it uses in a quarter of an hour
		s.h.do(owner, &tx.SetTerms{Escrow: s.h.escrow, Terms: terms})
		s.submit(func(spec *scheduler.Spec) {})
		first := s.await(1)
		s.pass(40 * time.Minute)
		j, err := s.engine().Job(t.Context(), s.h.n.Accounts[owner], subject)
		if err != nil {
			t.Fatal(err)
		}
		r := j.Current()
		if r.State != scheduler.Pending || !strings.Contains(r.Reason, "exhausted: ") {
			t.Errorf("without money it is %s: %s", r.State, r.Reason)
		}
		leases := len(r.Attempts)
		terms.MaxTotal *= 2
		s.h.do(owner, &tx.TopUp{Escrow: s.h.escrow, Amount: block.UCN})
		s.h.do(owner, &tx.SetTerms{Escrow: s.h.escrow, Terms: terms})
		added := time.Now()
		if a := s.await(leases + 1); a.ID == first.ID || time.Since(added) > 2*time.Minute {
			t.Errorf("after %v it runs as %s", time.Since(added), a.Host.Name)
		}
		if e, _ = s.h.chain.State().Escrow(s.h.escrow); e.Paid+e.Reserved > terms.MaxTotal {
			t.Errorf("%d are paid and %d reserved, the terms say %d", e.Paid, e.Reserved, terms.MaxTotal)
		}
	})
}

// byResidents are played in a street of real hosts, on the real chain.
var byResidents = []struct {
	name, named string
	bound       tx.Grains
	play        func(*street) tx.Grains
}{
	{"host announces an eviction, goes on and charges on", "rate of the lease until its end", 0,
		(*street).cryWolf},
	{"host feigns silence and returns with its program", "rate of each lease until the next", 0,
		(*street).feign},
	{"owner takes his own lane away again and again", "one hold, and a tenth of what he paid",
		8 * 60 * fromHost, (*street).rideFree},
	{"scheduler names superseded leases falsely", "what the escrow can place", 0,
		(*street).nameFalsely},
}

func playStreet(t *testing.T, play func(*street) tx.Grains) (gained tx.Grains) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newStreet(t)
		defer s.h.close()
		gained = play(s)
	})
	return gained
}

// cryWolf has the first host announce an end, hear no word of its replacement, and charge for half
// an hour more with the key that it has. It returns what it was paid beyond its lease's time.
func (s *street) cryWolf() tx.Grains {
	first := s.run(scheduler.KeepReplacement)
	s.pass(2 * time.Minute)
	r := s.of(first)
	if _, err := r.agent.Evict(s.ctx, idOf(first), time.Minute, ""); err != nil {
		s.h.t.Fatal(err)
	}
	s.pass(200 * time.Millisecond) // the word gets through, and then nothing does
	r.setGone(true)
	second := s.await(2)
	for range 30 {
		s.pass(time.Minute)
		n := tx.Note{
			Lease: first.Lease.ID, Revision: tx.Hash{3}, Upto: tx.Millis(time.Now().UnixMilli()),
			Cumulative: escrowAmount, UsageHash: tx.Hash{4},
		}
		s.h.nonces[host] = s.nonce(host)
		s.h.do(host, &tx.Charge{Note: n, Signature: s.h.n.Keys[agentKey].Sign(
			n.Preimage(s.h.n.Anchor))})
	}
	return s.handedOver(first, second)
}

// feign has the first host be silent until it is replaced, return with the program that it kept,
// and so on. It returns what any lease of the lane was paid beyond its time.
func (s *street) feign() (gained tx.Grains) {
	first := s.run(scheduler.KeepOriginal)
	lane := []scheduler.Attempt{first}
	for n := range 3 {
		s.pass(2 * time.Minute)
		s.of(first).setGone(true)
		lane = append(lane, s.await(2*n+2))
		s.pass(time.Minute)
		s.of(first).setGone(false)
		lane = append(lane, s.await(2*n+3))
	}
	s.pass(2 * time.Minute)
	for i := range len(lane) - 1 {
		gained += s.handedOver(lane[i], lane[i+1])
	}
	if last := lane[len(lane)-1]; last.Origin != 1 {
		s.h.t.Errorf("it does not go on with its program, so nothing is shown: %+v", last)
	}
	return gained
}

func (s *street) nonce(of int) uint64 {
	a, _ := s.h.chain.State().Account(s.h.n.Accounts[of])
	return a.Nonce
}

// nameFalsely asks the second host in every way for capacity against the first one's lease. It
// returns the grains of all that it promised beyond the one lease that can be placed.
func (s *street) nameFalsely() (gained tx.Grains) {
	first := s.run(scheduler.KeepReplacement)
	s.pass(time.Minute)
	var target *resident
	for key, r := range s.hosts {
		if key != first.Host.Executor {
			target = r
		}
	}
	state, _ := s.h.chain.State().Lease(first.Lease.ID)
	place := tx.Millis(time.Now().Add(time.Minute).UnixMilli())
	placeable := price.Freed(&state, place)
	for n := range 40 {
		t := executor.Terms{
			Escrow: executor.EscrowID(s.h.escrow), Subject: subject, Slot: uint32(n % 4),
			Epoch: uint64(1 + n%5), Budget: uint64(placeable) * 9 / 10, Trust: uint64(escrowAmount),
			AckKeys: first.Lease.Lease.AckKeys, PlaceBy: uint64(place),
			Until: uint64(place) + 3_600_000, Supersedes: executor.LeaseID(first.Lease.ID),
		}
		if n%10 == 9 {
			t.Supersedes[0] ^= 1
		}
		answer, err := target.agent.Ask(s.ctx, s.h.question("01", fmt.Sprintf("%02x", n),
			offerIn(s.h.t, target.journal), t))
		if err != nil {
			s.h.t.Fatal(err)
		}
		if answer.Lease != nil {
			gained += tx.Grains(answer.Lease.Lease.Budget)
		}
	}
	if gained == 0 {
		s.h.t.Error("nothing is promised, so nothing is shown")
	}
	return gain(placeable, gained)
}
