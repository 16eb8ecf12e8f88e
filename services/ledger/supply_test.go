package ledger_test

import (
	"errors"
	"reflect"
	"strconv"
	"testing"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
)

// TestSuppliesAfterAStart: the sums of blocks that were not executed since the start are refused,
// never made up; those of the others are what they were.
func TestSuppliesAfterAStart(t *testing.T) {
	n := network(t, 1, 4)
	disk, newest := &ledgertest.Disk{}, &snapshots{}
	open := func(t *testing.T, from *snapshots) ledger.Deps {
		d := deps(n, disk.Open())
		d.Snapshots = from
		return d
	}
	was := map[uint64]block.ChainState{}
	run := func(from, to uint64) {
		c, stop := ledgertest.Start(t, config(), open(t, newest))
		for nonce := from; nonce < to; nonce++ {
			submit(t, c, n.Transfer(0, 1, nonce, 5))
			head := c.Tip().Header.Height
			sums, err := c.Supply(head)
			if err != nil || sums.AccountSum == 0 {
				t.Fatalf("the head's sums: %+v, %v", sums, err)
			}
			was[head] = sums
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	run(0, 3)
	earlier := &snapshots{height: newest.height, content: newest.content}
	run(3, 6)
	head := newest.height
	for name, test := range map[string]struct {
		from  *snapshots
		first uint64 // whose sums are kept
	}{
		"snapshot of the head":    {newest, head},
		"snapshot before it":      {earlier, earlier.height},
		"no snapshot":             {&snapshots{}, 0},
		"snapshot that is broken": {&snapshots{height: 3, content: newest.content[:40]}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := ledger.Open(t.Context(), config(), open(t, test.from))
			if err != nil {
				t.Fatal(err)
			}
			for h := uint64(1); h <= head; h++ {
				sums, err := c.Supply(h)
				if h >= test.first {
					if err != nil || !reflect.DeepEqual(sums, was[h]) {
						t.Errorf("block %d: %+v, %v; it was %+v", h, sums, err, was[h])
					}
					continue
				}
				first := strconv.FormatUint(test.first, 10)
				if !errors.Is(err, ledger.ReasonNotKept) || fault.From(err).Value("first") != first {
					t.Errorf("block %d: %+v, %v", h, sums, err)
				}
			}
			if sums, err := c.Supply(0); (err == nil) != (test.first == 0) {
				t.Errorf("block 0: %+v, %v", sums, err)
			}
		})
	}
}
