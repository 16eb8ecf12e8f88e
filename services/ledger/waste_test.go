package ledger_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	"github.com/united-containers/ucn/services/ledger"
)

// wasteBound is how many signatures, or operations, an account may waste at once: a limit of 2048
// and the transaction that reaches it.
const wasteBound = 2048 + wasteful

// wasteful is how many operations each of the attackers' transactions has.
const wasteful = 500

// charges are so many charges of a lease that pay nothing.
func (m *market) charges(lease, agent int, good bool) []tx.Operation {
	note := tx.Note{Lease: m.leases[lease], Revision: tx.Hash{3}, Upto: 1, UsageHash: tx.Hash{4}}
	signature := m.n.Keys[agent].Sign(note.Preimage(m.n.Anchor))
	if !good {
		signature[3]++
	}
	all := make([]tx.Operation, wasteful)
	for i := range all {
		all[i] = &tx.Charge{Note: note, Signature: signature}
	}
	return all
}

// attack submits an account's operations as often as it is let, and returns how many operations
// came through to the execution.
func (m *market) attack(ctx context.Context, from int, operations []tx.Operation) (through int) {
	m.t.Helper()
	return len(operations) * m.rounds(ctx, from, func(int) []tx.Operation { return operations })
}

// rounds submits what an account does in each round until it is refused for waste, and returns in
// how many it was not.
func (m *market) rounds(ctx context.Context, from int, next func(round int) []tx.Operation) int {
	m.t.Helper()
	const most = 20
	for round := range most {
		raw := m.n.Sign(from, m.n.Body(from, m.nonces[from], next(round)...))
		results, _, err := m.c.Submit(ctx, [][]byte{raw}, ledger.Committed)
		switch {
		case errors.Is(err, ledger.ReasonWaste):
			return round
		case err != nil:
			m.t.Fatal(err)
		case results[0].Err == nil:
			m.nonces[from]++
		case results[0].Err.Reason() == ledger.ReasonWaste:
			return round
		case results[0].Err.Reason() != ledger.ReasonCannotPay:
			m.t.Fatal(results[0].Err)
		}
	}
	m.t.Errorf("account %d was let in %d times", from, most)
	return most
}

// empty gives all that an account has to another.
func (m *market) empty(from, to int) {
	m.t.Helper()
	account, _ := m.c.State().Account(m.n.Accounts[from])
	for account.Balance > m.n.Fee {
		m.do(from, &tx.Transfer{To: m.n.Accounts[to], Amount: account.Balance - m.n.Fee})
		before := account.Balance
		account, _ = m.c.State().Account(m.n.Accounts[from])
		if account.Balance == before {
			break
		}
	}
	// What is left is less than the fee cap; a fee's worth of it goes with a last transfer.
	for {
		raw := m.n.Sign(from, m.n.Body(from, m.nonces[from],
			&tx.Transfer{To: m.n.Accounts[to], Amount: account.Balance - account.Balance/8}))
		results, _, err := m.c.Submit(m.t.Context(), [][]byte{raw}, ledger.Committed)
		if err != nil {
			m.t.Fatal(err)
		}
		if results[0].Err != nil {
			return
		}
		m.nonces[from]++
		account, _ = m.c.State().Account(m.n.Accounts[from])
	}
}

// TestBadSignaturesInsideOperationsAreLimited: the execution verifies them one by one, and the fee
// is that of good ones. An honest host beside the attacker is not touched, nor what else the
// attacker does.
func TestBadSignaturesInsideOperationsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		m.place()
		m.placeWith(4, 5)
		time.Sleep(2 * time.Minute)
		bad := m.charges(1, 5, false)
		began := time.Now()
		n := m.attack(t.Context(), 4, bad)
		if most := wasteBound + int(100*time.Since(began)/time.Second); n == 0 || n > most {
			t.Errorf("%d bad signatures came to the execution, the bound is %d", n, most)
		}
		if got := m.charge(0, time.Minute); got != 60*perSecond {
			t.Errorf("%d paid to the honest host for a minute", got)
		}
		m.do(4, &tx.Transfer{To: m.n.Accounts[1], Amount: 5})
		time.Sleep(10 * time.Second)
		if n := m.attack(t.Context(), 4, bad); n > 1000+wasteful {
			t.Errorf("%d bad signatures came to the execution in the 10 s after", n)
		}
		time.Sleep(time.Minute)
		if n := m.attack(t.Context(), 4, bad); n == 0 {
			t.Error("a debt never passes")
		}
	})
}

// budget opens a budget of the market's job and returns it.
func (m *market) budget() tx.EscrowID {
	m.t.Helper()
	r := m.do(0, &tx.OpenEscrow{
		Purpose: chainv1.Purpose_PURPOSE_BUDGET, Subject: make([]byte, 32), Amount: 1_000_000,
		Terms: tx.Terms{MaxRate: 1 << 40, MaxTotal: 1_000_000,
			Expires: tx.Millis(time.Now().Add(24 * time.Hour).UnixMilli())},
	})
	return tx.EscrowID(r.Outcomes[0].Created)
}

// paying is a lease in a slot whose session key is account 6's, signed by agent 5.
func (m *market) paying(slot int) (tx.LeaseID, *tx.PlaceLease) {
	first, _ := m.c.State().Lease(m.leases[1])
	l := first.Lease
	l.Slot, l.SessionKey, l.Budget = uint32(slot), m.n.Keys[6].Public(), 1000
	l.PlaceBy = tx.Millis(time.Now().Add(time.Minute).UnixMilli())
	return l.ID(m.n.Anchor), &tx.PlaceLease{
		Lease: l, Signature: m.n.Keys[5].Sign(l.Preimage(m.n.Anchor))}
}

// spends are so many spends from a budget, rightly signed.
func (m *market) spends(budget tx.EscrowID, lease tx.LeaseID, n int) []tx.Operation {
	all := make([]tx.Operation, n)
	for i := range all {
		order := tx.SpendOrder{Escrow: budget, Lease: lease, To: sig.AccountID(m.n.Accounts[1]),
			Amount: 1, Sequence: uint64(i)}
		all[i] = &tx.Spend{Order: order, Signature: m.n.Keys[6].Sign(order.Preimage(m.n.Anchor))}
	}
	return all
}

// recoveries name a recovery set of n keys that differs from round to round, and begin and cancel
// a recovery with it, rightly signed, some times.
func (m *market) recoveries(account, round, n, times int) []tx.Operation {
	keys, public := make([]sig.PrivateKey, n), make([]sig.PublicKey, n)
	for i := range keys {
		keys[i] = sig.FromSeed([32]byte{byte(round), byte(i), 1})
		public[i] = keys[i].Public()
	}
	set, err := sig.NewKeySet(uint32(n), public...)
	if err != nil {
		m.t.Fatal(err)
	}
	signers, _ := m.c.State().Signers(m.n.Accounts[account])
	counter := signers.Recovery.Counter + 1
	all := []tx.Operation{&tx.SetRecovery{Keys: set, Delay: 24 * 3_600_000}}
	for range times {
		o := &tx.Recover{Intent: tx.RecoveryIntent{Account: m.n.Accounts[account], Keys: set,
			Counter: counter}}
		s, err := sig.SignAccount(set, keys, false, o.Intent.Preimage(m.n.Anchor))
		if err != nil {
			m.t.Fatal(err)
		}
		o.Signatures = s.Signatures
		all, counter = append(all, o, &tx.CancelRecovery{}), counter+1
	}
	return all
}

// TestNothingHidesLoneSignatures: what the execution has to verify one by one counts, whatever
// stands beside it and whether it is good or bad.
func TestNothingHidesLoneSignatures(t *testing.T) {
	const recoverySigners, recoveryTimes = 16, 30
	tests := map[string]struct {
		lone int // signatures verified one by one in each round
		from int
		next func(m *market) func(round int) []tx.Operation
	}{
		"bad charges beside good spends": {300, 4, func(m *market) func(int) []tx.Operation {
			id, place := m.paying(77)
			m.do(1, place)
			all := append(m.charges(1, 5, false)[:300], m.spends(m.budget(), id, 300)...)
			return func(int) []tx.Operation { return all }
		}},
		"spends of leases just placed": {wasteful, 1, func(m *market) func(int) []tx.Operation {
			budget := m.budget()
			return func(round int) []tx.Operation {
				id, place := m.paying(100 + round)
				return append([]tx.Operation{place}, m.spends(budget, id, wasteful)...)
			}
		}},
		"recoveries by a set just named": {recoverySigners * recoveryTimes, 4,
			func(m *market) func(int) []tx.Operation {
				return func(round int) []tx.Operation {
					return m.recoveries(4, round, recoverySigners, recoveryTimes)
				}
			}},
		"bad charges beside recoveries": {300, 4, func(m *market) func(int) []tx.Operation {
			bad := m.charges(1, 5, false)[:300]
			m.do(4, m.recoveries(4, 0, 1, 0)[0])
			return func(int) []tx.Operation { return append(m.recoveries(4, 0, 1, 200), bad...) }
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMarket(t)
				m.place()
				m.placeWith(4, 5)
				next, began := test.next(m), time.Now()
				through := test.lone * m.rounds(t.Context(), test.from, next)
				most := 2048 + test.lone + int(100*time.Since(began)/time.Second)
				if through == 0 || through > most {
					t.Errorf("%d signatures were verified one by one, the bound is %d", through,
						most)
				}
			})
		})
	}
}

// TestChargesThatPayNothingAreLimited: an account without money may charge on trust, since the
// charge may pay the fee. One that never does keeps the executor busy for nothing.
func TestChargesThatPayNothingAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		m.place()
		m.placeWith(4, 5)
		time.Sleep(2 * time.Minute)
		m.empty(4, 1)
		m.empty(2, 1) // the honest host has no money either
		nothing := m.charges(1, 5, true)
		began, through := time.Now(), 0
		for range 4 {
			through += m.attack(t.Context(), 4, nothing)
		}
		// A debt passes at 100 a second while the attack lasts.
		most := wasteBound + int(100*time.Since(began)/time.Second)
		if through == 0 || through > most {
			t.Errorf("%d operations were executed for nothing, the bound is %d", through, most)
		}
		if got := m.charge(0, time.Minute); got != 60*perSecond {
			t.Errorf("%d paid to the honest host for a minute", got)
		}
	})
}

// spoilt are transfers by account 6, none of which it signed.
func (m *market) spoilt(n int) [][]byte {
	m.t.Helper()
	all := make([][]byte, n)
	for i := range all {
		t, err := tx.Decode(m.n.Transfer(6, 1, uint64(i), 5))
		if err != nil {
			m.t.Fatal(err)
		}
		t.Signature.Signatures[0].Signature[3]++
		all[i] = t.Append(nil)
	}
	return all
}

// TestPeersAnswerForBadSignatures: whoever submits others' bad signatures is refused before any
// of them is looked at, whatever accounts they name. The accounts that were named do not suffer.
func TestPeersAnswerForBadSignatures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		spoilt := m.spoilt(ledger.MaxSubmit)
		attacker := ledger.WithPeer(t.Context(), ledger.Peer{Account: ledger.Hash(m.n.Accounts[5])})
		judged := 0
		for range 3 {
			results, _, err := m.c.Submit(attacker, spoilt, ledger.Committed)
			if errors.Is(err, ledger.ReasonWaste) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range results {
				if r.Err == nil {
					t.Fatal("a bad signature was taken")
				}
				if r.Err.Reason() == ledger.ReasonBadSignature {
					judged++
				}
			}
		}
		// Each worker may have a batch in hand when the limit comes.
		if most := 2048 + 16*256; judged == 0 || judged > most {
			t.Errorf("%d bad signatures were judged, the bound is %d", judged, most)
		}
		good := [][]byte{m.n.Transfer(6, 1, 0, 5)}
		if _, _, err := m.c.Submit(attacker, good, ledger.Committed); !errors.Is(err,
			ledger.ReasonWaste) {
			t.Errorf("the peer is answered %v", err)
		}
		honest := ledger.WithPeer(t.Context(), ledger.Peer{Account: ledger.Hash(m.n.Accounts[6])})
		results, _, err := m.c.Submit(honest, good, ledger.Committed)
		if err != nil || results[0].Err != nil {
			t.Errorf("the account that was named: %v, %v", results, err)
		}
		time.Sleep(time.Minute)
		results, _, err = m.c.Submit(attacker, [][]byte{m.n.Transfer(5, 1, 0, 5)}, ledger.Committed)
		if err != nil || results[0].Err != nil {
			t.Errorf("after a minute: %v, %v", results, err)
		}
	})
}

// stranger is a peer without an account on the chain: a new key for each, at an address.
func stranger(ctx context.Context, n byte, origin string) context.Context {
	return ledger.WithPeer(ctx, ledger.Peer{Account: ledger.Hash{1, n}, Origin: origin})
}

// TestStrangersWasteByAddress: a peer without an account on the chain costs nothing to make, so a
// new one for each call gains nothing at the same address; other addresses are not refused until
// all of them together waste too much.
func TestStrangersWasteByAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		spoilt := m.spoilt(1024)
		refused := func(n byte, origin string) bool {
			t.Helper()
			_, _, err := m.c.Submit(stranger(t.Context(), n, origin), spoilt, ledger.Committed)
			return errors.Is(err, ledger.ReasonWaste)
		}
		for n := range byte(4) {
			if got := refused(n, "a"); got != (n == 3) {
				t.Errorf("stranger %d of one address is refused: %v", n, got)
			}
		}
		if refused(4, "b") {
			t.Error("one address keeps strangers of another out")
		}
		addresses := 0
		for ; addresses < 20 && !refused(5, string(rune('c'+addresses))); addresses++ {
		}
		if addresses < 4 || addresses > 6 { // of 8,192, three and one are gone
			t.Errorf("%d more addresses were let in", addresses)
		}
	})
}

// TestVouchedStrangers: whoever acts for an account on the chain, or is owed by a lease, needs no
// account of his own to get in while strangers have wasted too much, and answers for what he
// wastes himself.
func TestVouchedStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		m.place()
		robot, heir := sig.FromSeed([32]byte{0xde}), sig.FromSeed([32]byte{0xdf})
		m.do(6, &tx.SetDelegate{Key: robot.Public(), Bounds: tx.Bounds{
			Operations: tx.OperationsOf(tx.KindTransfer), Limit: 1 << 40, Period: 3_600_000,
			Until: tx.Millis(time.Now().Add(time.Hour).UnixMilli()),
		}})
		m.do(7, &tx.SetKeys{Keys: sig.SingleKey(heir.Public())})
		spoilt := m.spoilt(1024)
		for n := range byte(4) {
			_, _, _ = m.c.Submit(stranger(t.Context(), n, ""), spoilt, ledger.Committed)
		}
		as := func(key sig.PrivateKey, account int, number uint32, nonce uint64) error {
			t.Helper()
			body := m.n.Body(account, nonce, &tx.Transfer{To: m.n.Accounts[1], Amount: 5})
			body.Signer = number
			signed, err := tx.Sign(body, m.n.Anchor, sig.SingleKey(key.Public()), false, key)
			if err != nil {
				t.Fatal(err)
			}
			peer := ledger.Peer{Account: ledger.Hash(sig.AccountOfKey(key.Public()))}
			results, _, err := m.c.Submit(ledger.WithPeer(t.Context(), peer),
				[][]byte{signed.Append(nil)}, ledger.Committed)
			if err == nil && results[0].Err != nil {
				err = results[0].Err
			}
			return err
		}
		if err := as(robot, 6, 1, 0); err != nil {
			t.Errorf("a delegate: %v", err)
		}
		if err := as(heir, 7, 0, 1); err != nil {
			t.Errorf("who has the new keys: %v", err)
		}
		if err := as(heir, 6, 1, 1); !errors.Is(err, ledger.ReasonWaste) {
			t.Errorf("a stranger in a delegate's name: %v", err)
		}
		// He is let in by a good one, and then wastes.
		bad := ledger.WithPeer(t.Context(), ledger.Peer{
			Account: ledger.Hash(sig.AccountOfKey(robot.Public())),
		})
		first := m.n.Body(6, 1, &tx.Transfer{To: m.n.Accounts[1], Amount: 5})
		first.Signer = 1
		signed, err := tx.Sign(first, m.n.Anchor, sig.SingleKey(robot.Public()), false, robot)
		if err != nil {
			t.Fatal(err)
		}
		many := append([][]byte{signed.Append(nil)}, m.spoilt(ledger.MaxSubmit-1)...)
		if _, _, err := m.c.Submit(bad, many, ledger.Committed); err != nil {
			t.Error(err)
		}
		if err := as(robot, 6, 1, 2); !errors.Is(err, ledger.ReasonWaste) {
			t.Errorf("a delegate who wasted: %v", err)
		}
		m.do(6, &tx.RemoveDelegate{Number: 1})
	})
}

// TestHostsWithoutAnAccount: the first charge of a lease may create the payee's account; while
// strangers have wasted too much, who is named in the lease is let in all the same.
func TestHostsWithoutAnAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		agent := sig.FromSeed([32]byte{0xda})
		m.placeFor(m.n.Accounts[2], agent)
		m.placeFor(sig.AccountOfKey(agent.Public()), m.n.Keys[3])
		spoilt := m.spoilt(1024)
		for n := range byte(4) {
			_, _, _ = m.c.Submit(stranger(t.Context(), n, ""), spoilt, ledger.Committed)
		}
		note := tx.Note{Lease: m.leases[0], Revision: tx.Hash{3}, Upto: 1, UsageHash: tx.Hash{4}}
		for lease, known := range map[int]bool{0: true, 1: true, 2: false} {
			note.Lease = tx.LeaseID{9}
			if lease < 2 {
				note.Lease = m.leases[lease]
			}
			body := m.n.Body(2, 0, &tx.Charge{
				Note: note, Signature: agent.Sign(note.Preimage(m.n.Anchor)),
			})
			body.Account = sig.AccountOfKey(agent.Public())
			signed, err := tx.Sign(body, m.n.Anchor, sig.SingleKey(agent.Public()), true, agent)
			if err != nil {
				t.Fatal(err)
			}
			peer := ledger.WithPeer(t.Context(), ledger.Peer{Account: ledger.Hash(body.Account)})
			_, _, err = m.c.Submit(peer, [][]byte{signed.Append(nil)}, ledger.Committed)
			if errors.Is(err, ledger.ReasonWaste) == known {
				t.Errorf("lease %d: %v", lease, err)
			}
		}
	})
}

// TestWhatThePoolRefusesWastesNothing: transactions that never come to the execution do not use up
// what all accounts may waste together.
func TestWhatThePoolRefusesWastesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		m.place()
		m.do(4, &tx.Transfer{To: m.n.Accounts[1], Amount: 5}) // its keys are known from now on
		bad := m.charges(0, 3, false)
		early := m.n.Sign(4, m.n.Body(4, m.nonces[4]+7, bad...))
		for range 40 { // 20,000 signatures
			results, _, err := m.c.Submit(t.Context(), [][]byte{early}, ledger.Committed)
			if err != nil || results[0].Err.Reason() != ledger.ReasonNonceFuture {
				t.Fatalf("%v, %v", results, err)
			}
		}
		results, _, err := m.c.Submit(t.Context(),
			[][]byte{m.n.Sign(5, m.n.Body(5, m.nonces[5], bad...))}, ledger.Committed)
		if err != nil || results[0].Err != nil {
			t.Errorf("another account's: %v, %v", results, err)
		}
	})
}
