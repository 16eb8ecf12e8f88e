package state

import (
	"fmt"
	"maps"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/tx"
)

// check panics unless money is conserved.
func (c *chainRecord) check(fees tx.Grains) {
	if err := c.conserved(fees); err != nil {
		panic(err.Error())
	}
}

// conserved wants accounts + escrows + lockboxes + locks + burned = genesis + minted, with the
// fees in flight on the left.
func (c *chainRecord) conserved(fees tx.Grains) error {
	have := c.burned
	for _, part := range []tx.Grains{c.sums.accounts, c.sums.escrows, c.sums.locks,
		c.sums.lockboxes, fees} {
		have = plus(have, part)
	}
	if have == plus(c.minted, c.genesisSupply) {
		return nil
	}
	return fmt.Errorf("state: money is not conserved: accounts %d + escrows %d + locks %d + "+
		"lockboxes %d + fees %d + burned %v is not genesis %d + minted %v",
		c.sums.accounts, c.sums.escrows, c.sums.locks, c.sums.lockboxes, fees, c.burned,
		c.genesisSupply, c.minted)
}

// Recount adds up every committed record and panics unless the sums of the chain's leaf, of every
// escrow and the counters are what comes out. It costs a pass over the state: for starts and
// tests.
func (s *State) Recount() {
	if err := s.recount(); err != nil {
		panic(err.Error())
	}
}

func (s *State) recount() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var sum sums
	var count counters
	waits := map[tx.Millis]int{}
	for _, a := range s.accounts.base {
		sum.accounts += a.Balance
		sum.locks += a.Lock
	}
	if err := s.recountSigners(waits); err != nil {
		return err
	}
	perEscrow := s.recountLeases(&count, waits)
	for id, e := range s.escrows.base {
		sum.escrows += e.Balance
		sum.locks += e.Lock
		count.burning += btoi(burns(&e))
		if due := noticeDue(&e); due > s.head.Accrual {
			waits[due]++
		}
		got := perEscrow[id]
		if e.Balance < e.Reserved || e.Balance < e.Noticed ||
			e.Reserved != got.reserved || e.Rate != got.rate ||
			e.Live != got.live || e.Risk < got.risk {
			return fmt.Errorf("state: escrow %v holds %+v, its leases say %+v", id, e, got)
		}
		delete(perEscrow, id)
	}
	if len(perEscrow) > 0 {
		return fmt.Errorf("state: %d escrows of leases do not exist", len(perEscrow))
	}
	if sum != s.chain.sums || count != s.counts || !maps.Equal(waits, s.dues.count) {
		return fmt.Errorf("state: sums are %+v %+v %v, records say %+v %+v %v",
			s.chain.sums, s.counts, s.dues.count, sum, count, waits)
	}
	return s.chain.conserved(0)
}

// recountSigners wants every leaf of signers to be of an account and to hold at most MaxDelegates,
// ascending and of numbers that were given out, and adds when pending recoveries are due.
func (s *State) recountSigners(waits map[tx.Millis]int) error {
	for id, a := range s.signers.base {
		if due := a.Recovery.Due; due > s.head.Accrual {
			waits[due]++
		}
		last, ok := uint32(0), len(a.Delegates) <= tx.MaxDelegates
		for _, d := range a.Delegates {
			ok = ok && d.Number > last && d.Number <= a.Last
			last = d.Number
		}
		ok = ok && (a.Recovery.Due == 0) == a.Recovery.Pending.IsZero()
		if _, live := s.accounts.base[id]; !ok || !live {
			return fmt.Errorf("state: signers of account %x are %+v", id, a)
		}
	}
	return nil
}

// recounted is what the leases of an escrow add up to.
type recounted struct {
	claims
	live uint32
}

func (s *State) recountLeases(
	count *counters, waits map[tx.Millis]int,
) map[tx.EscrowID]recounted {
	out := map[tx.EscrowID]recounted{}
	for _, l := range s.leases.base {
		c, r := claimsOf(&l), out[l.Lease.Escrow]
		r.reserved += c.reserved
		r.rate += c.rate
		r.risk += c.risk
		r.live++
		out[l.Lease.Escrow] = r
		count.unsettled += btoi(!l.Settled)
		if due := holdbackDue(&l, true); due > s.head.Accrual {
			waits[due]++
		}
	}
	return out
}

// plus adds to a 128-bit counter, which no amount of blocks can overflow.
func plus(c block.Counter, amount tx.Grains) block.Counter {
	sum, ok := c.Add(amount)
	if !ok {
		panic("state: 128-bit counter overflows")
	}
	return sum
}

// leaf returns the chain's own leaf.
func (r *rules) leaf(c *chainRecord) block.ChainState {
	return block.ChainState{
		Minted: c.minted, Burned: c.burned,
		OperationFee: c.prices.Operation, ByteFee: c.prices.Byte,
		Params: r.params, Validators: r.validators, GenesisSupply: c.genesisSupply,
		AccountSum: c.sums.accounts, EscrowSum: c.sums.escrows, LockSum: c.sums.locks,
		LockboxSum: c.sums.lockboxes,
	}
}

// appendChain appends the canonical bytes of the chain's own leaf.
func (r *rules) appendChain(dst []byte, c *chainRecord) []byte {
	leaf := r.leaf(c)
	return leaf.Append(dst)
}
