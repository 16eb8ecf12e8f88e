package cli

import (
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/tx"
)

// A decision that cannot be taken back is about the leases that are named and no others.
func TestOnlyTheNamedLeasesAreDecided(t *testing.T) {
	now := time.Now()
	until := now.Add(time.Hour)
	held := []heldLease{
		{Lease: "a", State: "waits", Until: &until, id: tx.LeaseID{1}},
		{Lease: "b", State: "waits", Until: &until, id: tx.LeaseID{2}},
		{Lease: "c", State: "running", id: tx.LeaseID{3}},
	}
	for named, want := range map[byte]int{1: 1, 2: 1, 3: 1, 0: 2} {
		wanted := map[tx.LeaseID]bool{}
		if named > 0 {
			wanted[tx.LeaseID{named}] = true
		}
		open, err := decidable(held, wanted, now)
		if err != nil || len(open) != want || named > 0 && open[0].id != (tx.LeaseID{named}) {
			t.Errorf("naming %d decides %v, %v", named, open, err)
		}
	}
	if _, err := decidable(held, map[tx.LeaseID]bool{{9}: true}, now); err == nil {
		t.Error("a lease of another job is decided")
	}
}
