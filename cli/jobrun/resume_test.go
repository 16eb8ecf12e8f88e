package jobrun_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/clitest"
	"github.com/united-containers/ucn/cli/jobrun"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// late is a ledger in whose blocks an escrow comes only after it was asked for once.
type late struct {
	ledgerv1.LedgerServiceClient
	hide int
}

func (c *late) ListEscrows(
	ctx context.Context, r *ledgerv1.ListEscrowsRequest, o ...grpc.CallOption,
) (*ledgerv1.ListEscrowsResponse, error) {
	if c.hide > 0 {
		c.hide--
		return &ledgerv1.ListEscrowsResponse{}, nil
	}
	return c.LedgerServiceClient.ListEscrows(ctx, r, o...)
}

// left is what a command that was killed at an effect has left behind.
type left struct {
	*clitest.Network
	folder jobrun.Folder
	kept   jobrun.Kept
	at     int
}

// until runs commands that are killed at later and later effects, until what one left is wanted.
func until(
	t *testing.T, q jobrun.Request, from int, want func(*clitest.Network, []jobrun.Kept) bool,
) left {
	t.Helper()
	for k := from; k < 60; k++ {
		n, folder := clitest.Start(t, ownerKey(), host()), jobrun.Folder(t.TempDir())
		l := &life{killAt: k}
		first := runner(t, n, folder, l)
		l.atDeath(func() { go first.Session.Sender.Close() })
		_, _ = first.Run(t.Context(), q) // what it left is looked at
		list, _, err := folder.List()
		if err != nil {
			t.Fatal(err)
		}
		if want(n, list) {
			return left{n, folder, list[0], k}
		}
	}
	t.Fatal("no command was killed there")
	return left{}
}

// funded: the escrow is open and nobody knows the job.
func funded(n *clitest.Network, list []jobrun.Kept) bool {
	return n.Ledger.Escrows() == 1 && len(list) == 1 && n.Market.Jobs() == 0
}

func queued(n *clitest.Network, list []jobrun.Kept) bool {
	return n.Market.Jobs() == 1 && len(list) == 1
}

// TestResumeFindsALateEscrow: the escrow of the killed command took the money, and comes into sight
// only after another was asked for in vain.
func TestResumeFindsALateEscrow(t *testing.T) {
	q := request(t)
	q.File.Payment.MaxTotal = amount.Amount(6_000 * 1_000_000_000) // of 10,000 UCN
	was := until(t, q, 1, funded)
	again := runner(t, was.Network, was.folder, &life{})
	again.Session.Ledger = &late{again.Session.Ledger, 1}
	if r, err := again.Resume(t.Context(), was.kept, jobrun.Request{}); err != nil || !r.Completed() {
		t.Fatalf("%+v, %v", r, err)
	}
	if open := was.Ledger.Escrows(); open != 0 || was.Market.Jobs() != 1 {
		t.Errorf("%d escrows are open, %d jobs", open, was.Market.Jobs())
	}
}

// TestResumeKilledAnywhere kills the command that goes on at each of its effects, while the escrow
// of the first is out of its sight at first. The last one leaves no money behind.
func TestResumeKilledAnywhere(t *testing.T) {
	from := until(t, request(t), 1, funded).at
	for k := 1; ; k += 2 {
		was := until(t, request(t), from, funded)
		l := &life{killAt: k}
		second := runner(t, was.Network, was.folder, l)
		l.atDeath(func() { go second.Session.Sender.Close() })
		second.Session.Ledger = &late{second.Session.Ledger, 1}
		_, _ = second.Resume(t.Context(), was.kept, jobrun.Request{})
		list, _, err := was.folder.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range list { // the first may come late, the second knows all
			r, err := runner(t, was.Network, was.folder, &life{}).Resume(t.Context(), k, jobrun.Request{})
			if err != nil || !r.Completed() || r.Bill.Before == nil {
				t.Errorf("killed at an effect: %+v, %v", r, err)
			}
		}
		if open, jobs := was.Ledger.Escrows(), was.Market.Jobs(); open != 0 || jobs != 1 {
			t.Errorf("killed at effect %d: %d escrows are open, %d jobs", k, open, jobs)
		}
		if l.fate() == nil {
			return // it came to its end
		}
	}
}

// TestResumeDetached: the report names the job's escrow.
func TestResumeDetached(t *testing.T) {
	q := request(t)
	q.Detach = true
	was := until(t, q, 1, queued)
	again := runner(t, was.Network, was.folder, &life{})
	r, err := again.Resume(t.Context(), was.kept, jobrun.Request{})
	if err != nil || strings.HasPrefix(r.Escrow, "ucne1qqqqqqqq") {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestResumeDoesNotRunTwice: a scheduler that lost its memory says that it knows no such job; the
// escrow tells that it ran.
func TestResumeDoesNotRunTwice(t *testing.T) {
	was := until(t, request(t), 1, queued)
	was.Market.Forget()
	again := runner(t, was.Network, was.folder, &life{})
	_, err := again.Resume(t.Context(), was.kept, jobrun.Request{})
	if !errors.Is(err, jobrun.ErrRan) || was.Market.Jobs() != 0 {
		t.Errorf("%v; %d jobs", err, was.Market.Jobs())
	}
}
