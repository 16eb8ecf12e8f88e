package state_test

import (
	"testing"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

func TestOpenEscrow(t *testing.T) {
	w := newWorld(t)
	before := w.balance(owner())
	open := openJob()
	open.Payees = []sig.AccountID{{1}, {2}}
	open.Renew, open.BurnRate = true, 5
	r := w.must(owner(), open)
	id := tx.EscrowID(r.Outcomes[0].Created)
	if id != tx.EscrowIDOf(r.Transaction, 0) {
		t.Errorf("escrow id is %v", id)
	}
	e, ok := w.s.Escrow(id)
	if !ok || e.Owner != owner().id || e.Balance != 5_000_000 || e.Lock != 2*lock ||
		e.Opened != w.s.Head().Accrual || !e.Renew || e.BurnRate != 5 || len(e.Payees) != 2 {
		t.Errorf("escrow is %+v", e)
	}
	if got := before - w.balance(owner()); got != 5_000_000+2*lock+r.Fee {
		t.Errorf("owner paid %d", got)
	}
}

func TestOpenEscrowRefused(t *testing.T) {
	key := acker().key.Public()
	for _, c := range []struct {
		name   string
		want   chainv1.Reason
		change func(*tx.OpenEscrow)
	}{
		{"no purpose", chainv1.Reason_REASON_PURPOSE_NOT_BUILT,
			func(o *tx.OpenEscrow) { o.Purpose = 0 }},
		{"name", chainv1.Reason_REASON_PURPOSE_NOT_BUILT,
			func(o *tx.OpenEscrow) { o.Purpose = chainv1.Purpose_PURPOSE_NAME }},
		{"file", chainv1.Reason_REASON_PURPOSE_NOT_BUILT,
			func(o *tx.OpenEscrow) { o.Purpose = chainv1.Purpose_PURPOSE_FILE }},
		{"bond with terms", chainv1.Reason_REASON_TERMS_INVALID,
			func(o *tx.OpenEscrow) { o.Purpose = chainv1.Purpose_PURPOSE_BOND }},
		{"guarantee with terms", chainv1.Reason_REASON_TERMS_INVALID,
			func(o *tx.OpenEscrow) { o.Purpose = chainv1.Purpose_PURPOSE_GUARANTEE }},
		{"name", chainv1.Reason_REASON_PURPOSE_NOT_BUILT,
			func(o *tx.OpenEscrow) { o.Purpose = chainv1.Purpose_PURPOSE_NAME }},
		{"unknown purpose", chainv1.Reason_REASON_PURPOSE_NOT_BUILT,
			func(o *tx.OpenEscrow) { o.Purpose = 77 }},
		{"payee_root", chainv1.Reason_REASON_FIELD_NOT_BUILT,
			func(o *tx.OpenEscrow) { o.PayeeRoot = tx.Hash{1} }},
		{"unbond", chainv1.Reason_REASON_FIELD_NOT_BUILT, func(o *tx.OpenEscrow) { o.Unbond = 1 }},
		{"no subject", chainv1.Reason_REASON_SUBJECT_INVALID,
			func(o *tx.OpenEscrow) { o.Subject = nil }},
		{"long subject", chainv1.Reason_REASON_SUBJECT_INVALID,
			func(o *tx.OpenEscrow) { o.Subject = make([]byte, 33) }},
		{"no amount", chainv1.Reason_REASON_AMOUNT_ZERO, func(o *tx.OpenEscrow) { o.Amount = 0 }},
		{"too much", chainv1.Reason_REASON_BALANCE_TOO_LOW,
			func(o *tx.OpenEscrow) { o.Amount = wealth }},
		{"overflow", chainv1.Reason_REASON_OVERFLOW,
			func(o *tx.OpenEscrow) { o.Amount = 1<<64 - 1 }},
		{"payees not ascending", chainv1.Reason_REASON_PAYEES_INVALID,
			func(o *tx.OpenEscrow) { o.Payees = []sig.AccountID{{2}, {1}} }},
		{"payee twice", chainv1.Reason_REASON_PAYEES_INVALID,
			func(o *tx.OpenEscrow) { o.Payees = []sig.AccountID{{2}, {2}} }},
		{"65 payees", chainv1.Reason_REASON_PAYEES_INVALID, func(o *tx.OpenEscrow) {
			for i := range 65 {
				o.Payees = append(o.Payees, sig.AccountID{byte(i + 1)})
			}
		}},
		{"no ack key", chainv1.Reason_REASON_TERMS_INVALID,
			func(o *tx.OpenEscrow) { o.Terms.AckKeys = nil }},
		{"ack key twice", chainv1.Reason_REASON_TERMS_INVALID,
			func(o *tx.OpenEscrow) { o.Terms.AckKeys = []sig.PublicKey{key, key} }},
		{"small-order ack key", chainv1.Reason_REASON_TERMS_INVALID,
			func(o *tx.OpenEscrow) { o.Terms.AckKeys = []sig.PublicKey{{1}} }},
		{"5 ack keys", chainv1.Reason_REASON_TERMS_INVALID, func(o *tx.OpenEscrow) {
			for i := range 4 {
				o.Terms.AckKeys = append(o.Terms.AckKeys, newPerson(i).key.Public())
			}
		}},
		{"no expires", chainv1.Reason_REASON_TERMS_INVALID,
			func(o *tx.OpenEscrow) { o.Terms.Expires = 0 }},
		{"expired", chainv1.Reason_REASON_TERMS_INVALID,
			func(o *tx.OpenEscrow) { o.Terms.Expires = genesisTime + second }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			open := openJob()
			c.change(open)
			w.refused(c.want, owner(), open)
		})
	}
}

func TestEscrowMoney(t *testing.T) {
	m := newMarket(t, nil)
	m.placed(nil)
	m.must(other(), &tx.TopUp{Escrow: m.escrow, Amount: 10})
	before := m.balance(owner())
	r := m.must(owner(), &tx.Withdraw{Escrow: m.escrow, Amount: 4_000_010})
	if got := m.balance(owner()) + r.Fee - before; got != 4_000_010 {
		t.Errorf("owner got %d", got)
	}
	unknown := tx.EscrowID{1}
	for _, c := range []struct {
		want chainv1.Reason
		by   person
		op   tx.Operation
	}{
		{chainv1.Reason_REASON_UNRESERVED_TOO_LOW, owner(),
			&tx.Withdraw{Escrow: m.escrow, Amount: 1}},
		{chainv1.Reason_REASON_NOT_OWNER, assigner(), &tx.Withdraw{Escrow: m.escrow, Amount: 1}},
		{chainv1.Reason_REASON_AMOUNT_ZERO, owner(), &tx.Withdraw{Escrow: m.escrow}},
		{chainv1.Reason_REASON_ESCROW_UNKNOWN, owner(), &tx.Withdraw{Escrow: unknown, Amount: 1}},
		{chainv1.Reason_REASON_AMOUNT_ZERO, other(), &tx.TopUp{Escrow: m.escrow}},
		{chainv1.Reason_REASON_ESCROW_UNKNOWN, other(), &tx.TopUp{Escrow: unknown, Amount: 1}},
		{chainv1.Reason_REASON_BALANCE_TOO_LOW, other(),
			&tx.TopUp{Escrow: m.escrow, Amount: 1<<64 - 1}},
		{chainv1.Reason_REASON_NOT_OWNER, assigner(),
			&tx.SetTerms{Escrow: m.escrow, Terms: terms()}},
		{chainv1.Reason_REASON_ESCROW_UNKNOWN, owner(),
			&tx.SetTerms{Escrow: unknown, Terms: terms()}},
		{chainv1.Reason_REASON_TERMS_INVALID, owner(), &tx.SetTerms{Escrow: m.escrow}},
		{chainv1.Reason_REASON_LEASES_LIVE, owner(), &tx.CloseEscrow{Escrow: m.escrow}},
		{chainv1.Reason_REASON_NOT_EXPIRED, other(), &tx.CloseEscrow{Escrow: m.escrow}},
		{chainv1.Reason_REASON_ESCROW_UNKNOWN, owner(), &tx.CloseEscrow{Escrow: unknown}},
	} {
		m.refused(c.want, c.by, c.op)
	}
}

func TestCloseEscrow(t *testing.T) {
	m := newMarket(t, nil)
	before := m.balance(owner())
	r := m.must(owner(), &tx.CloseEscrow{Escrow: m.escrow})
	if got := m.balance(owner()) + r.Fee - before; got != 5_000_000+2*lock {
		t.Errorf("owner got %d", got)
	}
	if _, ok := m.s.Escrow(m.escrow); ok {
		t.Error("the escrow stayed")
	}
	m.refused(chainv1.Reason_REASON_ESCROW_UNKNOWN, owner(), &tx.CloseEscrow{Escrow: m.escrow})
}

// TestCloseExpired: after expires, by the accrual clock, anyone returns the rest to the owner.
func TestCloseExpired(t *testing.T) {
	m := newMarket(t, func(o *tx.OpenEscrow) { o.Terms.Expires = genesisTime + hour })
	m.block(2 * hour) // a stopped chain: accrual goes on by a minute only
	m.refused(chainv1.Reason_REASON_NOT_EXPIRED, other(), &tx.CloseEscrow{Escrow: m.escrow})
	m.wait(hour)
	before := m.balance(owner())
	r := m.must(other(), &tx.CloseEscrow{Escrow: m.escrow})
	if got := m.balance(owner()) - before; got != 5_000_000+2*lock || r.Outcomes[0].Amount != got {
		t.Errorf("owner got %d, %+v", got, r)
	}
}

// TestBurn: an hour's rate burns in an hour of accrual, however often the escrow is touched, and
// never what is reserved.
func TestBurn(t *testing.T) {
	m := newMarket(t, func(o *tx.OpenEscrow) { o.BurnRate = 3_600_000 })
	opened := m.escrowNow().Opened
	for range 10 {
		m.must(other(), &tx.TopUp{Escrow: m.escrow, Amount: 1})
		m.wait(333)
	}
	burned := tx.Grains(m.s.Head().Accrual - opened)
	left := m.s.Unreserved(m.escrow, m.s.Head().Accrual)
	if left != 5_000_010-burned {
		t.Errorf("%d left, %d ms passed", left, burned)
	}
	if !m.s.Accruing() {
		t.Error("a burning escrow does not accrue")
	}
	m.placed(nil)
	m.wait(2 * hour)
	m.must(other(), &tx.TopUp{Escrow: m.escrow, Amount: 1})
	if e := m.escrowNow(); e.Balance-e.Reserved != 1 || e.Reserved != 1_000_000 {
		t.Errorf("escrow is %+v", e)
	}
	if got := m.s.Unreserved(m.escrow, m.s.Head().Accrual); got != 0 {
		t.Errorf("%d left of a burnt escrow", got)
	}
}
