package state_test

import (
	"bytes"
	"testing"

	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

const week tx.Millis = 7 * 24 * 3_600_000

func openBond(p chainv1.Purpose) *tx.OpenEscrow {
	return &tx.OpenEscrow{Purpose: p, Subject: make([]byte, 32), Amount: 1_000, Unbond: week}
}

func TestBond(t *testing.T) {
	for _, purpose := range []chainv1.Purpose{
		chainv1.Purpose_PURPOSE_BOND, chainv1.Purpose_PURPOSE_GUARANTEE,
	} {
		w := newWorld(t)
		id := tx.EscrowID(w.must(owner(), openBond(purpose)).Outcomes[0].Created)
		w.refused(chainv1.Reason_REASON_NOTICE_TOO_LOW, owner(), &tx.Withdraw{Escrow: id, Amount: 1})
		w.refused(chainv1.Reason_REASON_NOTICE_TOO_LOW, owner(), &tx.CloseEscrow{Escrow: id})
		w.refused(chainv1.Reason_REASON_NOT_OWNER, other(), &tx.CloseEscrow{Escrow: id})
		w.refused(chainv1.Reason_REASON_NOT_OWNER, other(), &tx.Notice{Escrow: id, Amount: 1})
		w.refused(chainv1.Reason_REASON_PURPOSE_DIFFERS, owner(), &tx.SetTerms{Escrow: id})
		if w.s.Accruing() {
			t.Error("a bond that rests makes blocks")
		}
		w.must(owner(), &tx.Notice{Escrow: id, Amount: 600})
		if !w.s.Accruing() {
			t.Error("notice was given, and its delay would never pass without blocks")
		}
		w.refused(chainv1.Reason_REASON_NOTICE_NOT_DUE, owner(), &tx.Withdraw{Escrow: id, Amount: 1})
		// What is added after the notice is not covered by it.
		w.refused(chainv1.Reason_REASON_NOT_OWNER, other(), &tx.TopUp{Escrow: id, Amount: 1})
		w.must(owner(), &tx.TopUp{Escrow: id, Amount: 5_000})
		w.wait(week)
		if w.s.Accruing() {
			t.Error("a notice that is due and that nobody withdraws keeps blocks coming")
		}
		w.refused(chainv1.Reason_REASON_NOTICE_TOO_LOW, owner(),
			&tx.Withdraw{Escrow: id, Amount: 601})
		w.must(owner(), &tx.Withdraw{Escrow: id, Amount: 400})
		w.must(owner(), &tx.Withdraw{Escrow: id, Amount: 200})
		w.refused(chainv1.Reason_REASON_NOTICE_TOO_LOW, owner(), &tx.Withdraw{Escrow: id, Amount: 1})
		if e, _ := w.s.Escrow(id); e.Balance != 5_400 || e.Noticed != 0 || w.s.Accruing() {
			t.Errorf("bond is %+v", e)
		}
		w.s.Recount()
	}
}

// TestBondNotices: a second notice starts anew, one of 0 takes it back, and a bond closes when
// notice covers all of it.
func TestBondNotices(t *testing.T) {
	w := newWorld(t)
	id := tx.EscrowID(w.must(owner(),
		openBond(chainv1.Purpose_PURPOSE_BOND)).Outcomes[0].Created)
	w.refused(chainv1.Reason_REASON_BALANCE_TOO_LOW, owner(), &tx.Notice{Escrow: id, Amount: 1_001})
	w.refused(chainv1.Reason_REASON_BALANCE_TOO_LOW, owner(),
		&tx.Notice{Escrow: id, Amount: 1<<64 - 1})
	w.must(owner(), &tx.Notice{Escrow: id, Amount: 10})
	w.wait(week)
	w.must(owner(), &tx.Notice{Escrow: id, Amount: 1_000})
	w.refused(chainv1.Reason_REASON_NOTICE_NOT_DUE, owner(), &tx.Withdraw{Escrow: id, Amount: 10})
	w.must(owner(), &tx.Notice{Escrow: id})
	w.wait(week)
	w.refused(chainv1.Reason_REASON_NOTICE_TOO_LOW, owner(), &tx.CloseEscrow{Escrow: id})
	w.must(owner(), &tx.Notice{Escrow: id, Amount: 1_000})
	var snapshot bytes.Buffer
	if _, err := w.s.Freeze().WriteTo(&snapshot); err != nil {
		t.Fatal(err)
	}
	restored, err := state.Restore(&snapshot, genesis(owner(), assigner(), host(), agent(),
		proposer(), acker(), other()))
	if err != nil || (restored.Root() != w.s.Root() || !restored.Accruing()) {
		t.Fatalf("the restored state forgot the notice: %v", err)
	}
	w.wait(week)
	if r := w.must(owner(), &tx.CloseEscrow{Escrow: id}); r.Outcomes[0].Amount < 1_000 {
		t.Errorf("closing gave %d", r.Outcomes[0].Amount)
	}
	w.s.Recount()
}

func TestBondRefused(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		want   chainv1.Reason
		change func(*tx.OpenEscrow)
	}{
		{chainv1.Reason_REASON_UNBOND_INVALID, func(o *tx.OpenEscrow) { o.Unbond = week - 1 }},
		{chainv1.Reason_REASON_UNBOND_INVALID, func(o *tx.OpenEscrow) { o.Unbond = 1<<64 - 1 }},
		{chainv1.Reason_REASON_AMOUNT_ZERO, func(o *tx.OpenEscrow) { o.Amount = 0 }},
		{chainv1.Reason_REASON_SUBJECT_INVALID, func(o *tx.OpenEscrow) { o.Subject = nil }},
		{chainv1.Reason_REASON_TERMS_INVALID, func(o *tx.OpenEscrow) { o.Terms.Expires = 1 << 50 }},
		{chainv1.Reason_REASON_FIELD_NOT_BUILT, func(o *tx.OpenEscrow) { o.BurnRate = 1 }},
		{chainv1.Reason_REASON_OVERFLOW, func(o *tx.OpenEscrow) { o.Amount = 1<<64 - 1 }},
	} {
		o := openBond(chainv1.Purpose_PURPOSE_BOND)
		c.change(o)
		w.refused(c.want, owner(), o)
	}
	job := tx.EscrowID(w.must(owner(), openJob()).Outcomes[0].Created)
	w.refused(chainv1.Reason_REASON_PURPOSE_DIFFERS, owner(), &tx.Notice{Escrow: job, Amount: 1})
	w.refused(chainv1.Reason_REASON_ESCROW_UNKNOWN, owner(),
		&tx.Notice{Escrow: tx.EscrowID{9}, Amount: 1})
}

// TestNoticeLapses: an owner who gives notice in advance has a week to use it; then the bond
// secures all it holds, and leaving it takes the whole delay again.
func TestNoticeLapses(t *testing.T) {
	w := newWorld(t)
	id := tx.EscrowID(w.must(owner(), openBond(chainv1.Purpose_PURPOSE_BOND)).Outcomes[0].Created)
	secured := func(when string, want tx.Grains) {
		t.Helper()
		e, _ := w.s.Escrow(id)
		if got := state.Secured(&e, w.s.Head().Accrual); got != want {
			t.Errorf("%s it secures %d, want %d", when, got, want)
		}
	}
	secured("at first", 1_000)
	w.must(owner(), &tx.Notice{Escrow: id, Amount: 1_000})
	secured("after notice of all", 0)
	w.wait(week - second)
	w.must(owner(), &tx.Withdraw{Escrow: id, Amount: 100}) // the moment it is due
	w.wait(week - second)
	secured("as long as notice lasts", 0)
	w.must(owner(), &tx.Withdraw{Escrow: id, Amount: 100}) // the last moment
	w.refused(chainv1.Reason_REASON_NOTICE_LAPSED, owner(), &tx.Withdraw{Escrow: id, Amount: 100})
	w.refused(chainv1.Reason_REASON_NOTICE_LAPSED, owner(), &tx.CloseEscrow{Escrow: id})
	secured("after notice lapsed", 800)
	w.must(owner(), &tx.Notice{Escrow: id, Amount: 300})
	secured("after another notice", 500)
	w.refused(chainv1.Reason_REASON_NOTICE_NOT_DUE, owner(), &tx.Withdraw{Escrow: id, Amount: 300})
	w.wait(week)
	w.must(owner(), &tx.Withdraw{Escrow: id, Amount: 300})
	secured("in the end", 500)
	job := tx.EscrowID(w.must(owner(), openJob()).Outcomes[0].Created)
	if e, _ := w.s.Escrow(job); state.Secured(&e, w.s.Head().Accrual) != 0 {
		t.Error("a job's escrow secures something")
	}
	w.s.Recount()
}

// TestNoticesPass: of many notices, given again and again, the last one of each bond keeps blocks
// coming, until it is due and no longer.
func TestNoticesPass(t *testing.T) {
	w := newWorld(t)
	var bonds []tx.EscrowID
	for range 2 {
		bonds = append(bonds, tx.EscrowID(w.must(owner(),
			openBond(chainv1.Purpose_PURPOSE_BOND)).Outcomes[0].Created))
	}
	for range 100 {
		for _, id := range bonds {
			w.must(owner(), &tx.Notice{Escrow: id, Amount: 1})
		}
	}
	w.wait(week - second)
	w.must(owner(), &tx.Notice{Escrow: bonds[0]})
	if w.s.Accruing() {
		t.Error("both notices are due or taken back")
	}
	w.must(owner(), &tx.Notice{Escrow: bonds[0], Amount: 1})
	if !w.s.Accruing() {
		t.Error("a notice runs")
	}
}
