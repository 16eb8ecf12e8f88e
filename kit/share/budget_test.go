package share_test

import (
	"strconv"
	"testing"

	"github.com/united-containers/ucn/kit/share"
)

// TestBudgetLeavesSome: who takes all he can leaves half, and the next half of that.
func TestBudgetLeavesSome(t *testing.T) {
	b := share.NewBudget(1000)
	greedy := func(who string) (n int) {
		for b.Take(who, 1) {
			n++
		}
		return n
	}
	if got := greedy("a"); got != 500 {
		t.Errorf("the first takes %d of 1000", got)
	}
	if got := greedy("b"); got != 250 {
		t.Errorf("the second takes %d of 500", got)
	}
	b.Give("a", 500)
	if got := greedy("c"); got != 375 {
		t.Errorf("the third takes %d of 750", got)
	}
	if b.Take("d", 376) || !b.Take("d", 375) {
		t.Error("a first piece is not taken wherever there is room for it, or without room")
	}
	b.Add("d", 1) // more than there is
	if b.Take("e", 1) {
		t.Error("a byte beyond all is given")
	}
	b.Add("d", -376)
	if !b.Take("e", 1) || b.Most() != 1000 {
		t.Error("what was given back is not there")
	}
}

// TestBudgetForgets who has nothing any more.
func TestBudgetForgets(t *testing.T) {
	b := share.NewBudget(10)
	for i := range 100 {
		if who := strconv.Itoa(i); !b.Take(who, 10) {
			t.Fatalf("%s finds no room", who)
		} else {
			b.Give(who, 10)
		}
	}
}
