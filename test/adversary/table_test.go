package adversary

import (
	"fmt"
	"os"
	"testing"
	"text/tabwriter"

	"github.com/united-containers/ucn/chain/tx"
)

// attack is somebody's try; play returns what it gained and what it may gain at most, in grains.
type attack struct {
	name  string
	named string // which bound it is
	play  func(*world) (gained, bound tx.Grains)
}

// TestAdversaries plays every attack on a chain of its own and prints the table.
func TestAdversaries(t *testing.T) {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "attack\tgained\tbound\tnamed by")
	for _, list := range [][]attack{
		byHosts, bySchedulers, byOwners, byReplay, byThieves, againstTheClient,
	} {
		for _, a := range list {
			t.Run(a.name, func(t *testing.T) {
				gained, bound := a.play(newWorld(t))
				fmt.Fprintf(table, "%s\t%d\t%d\t%s\n", a.name, gained, bound, a.named)
				if gained > bound {
					t.Errorf("gained %d grains, the bound (%s) is %d", gained, a.named, bound)
				}
			})
		}
	}
	for _, a := range byServices {
		t.Run(a.name, func(t *testing.T) {
			gained := playHouse(t, a.cheat, a.bound)
			fmt.Fprintf(table, "%s\t%d\t%d\t%s\n", a.name, gained, a.bound, a.named)
			if gained > a.bound {
				t.Errorf("gained %d grains, the bound (%s) is %d", gained, a.named, a.bound)
			}
		})
	}
	for _, a := range byResidents {
		t.Run(a.name, func(t *testing.T) {
			gained := playStreet(t, a.play)
			fmt.Fprintf(table, "%s\t%d\t%d\t%s\n", a.name, gained, a.bound, a.named)
			if gained > a.bound {
				t.Errorf("gained %d grains, the bound (%s) is %d", gained, a.named, a.bound)
			}
		})
	}
	for _, a := range byFriends {
		t.Run(a.name, func(t *testing.T) {
			gained, leases := playFriend(t, a)
			fmt.Fprintf(table, "%s\t%d\t%d\t%s\n", a.name, gained, a.bound, a.named)
			if gained > a.bound {
				t.Errorf("gained %d grains, the bound (%s) is %d", gained, a.named, a.bound)
			}
			if leases < a.leases || a.leases == 0 && leases > 0 {
				t.Errorf("%d leases were placed", leases)
			}
			if _, leases := playFriend(t, a.honest()); leases == 0 {
				t.Error("an honest host gets no lease either")
			}
		})
	}
	for _, a := range byTasks {
		t.Run(a.name, func(t *testing.T) {
			gained, leases := playDrain(t, a)
			fmt.Fprintf(table, "%s\t%d\t%d\t%s\n", a.name, gained, 0, nothing)
			if gained > 0 || leases < drainTasks {
				t.Errorf("the scheduler lost %d grains over %d leases, want none over %d", gained, leases,
					drainTasks)
			}
		})
	}
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
}
