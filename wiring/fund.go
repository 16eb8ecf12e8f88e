package wiring

import (
	"context"
	"errors"
	"fmt"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/kit/run"
	"github.com/united-containers/ucn/kit/submit"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// Instances pay the fees of what they submit from accounts of their own, so that each has its own
// line of nonces and none holds an operator's key. A start of the network brings who has less than
// fundBelow to fundTo; while it runs nobody does.
const (
	fundTo    = 100 * block.UCN
	fundBelow = 10 * block.UCN
)

// addFunding gives the instances that submit transactions something to pay fees with.
func (n *Network) addFunding(ctx context.Context) error {
	i, err := n.open(ctx, "ledger", "ledger", Alpha)
	if err != nil {
		return err
	}
	n.group.Add("funding", run.Func(func(ctx context.Context, ready func()) error {
		if err := n.fund(ctx, i); err != nil {
			return fmt.Errorf("fund the instances: %w", err)
		}
		ready()
		<-ctx.Done()
		return nil
	}), "ledger rpc")
	return nil
}

// fund brings the instances of every operator up to fundTo.
func (n *Network) fund(ctx context.Context, from *instance.Instance) (err error) {
	client, done, err := ledgerClient(ctx, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	payers := map[string][]*instance.Instance{}
	for _, r := range n.rooms {
		if s := r.inst.Service; s == "scheduler" || s == "executor" {
			payers[r.operator] = append(payers[r.operator], r.inst)
		}
	}
	for operator, instances := range payers {
		if err := n.fundBy(ctx, client, operator, instances); err != nil {
			return fmt.Errorf("operator %s: %w", operator, err)
		}
	}
	return nil
}

// fundBy lets one operator give its instances what they lack, in one transaction.
func (n *Network) fundBy(
	ctx context.Context, client ledgerv1.LedgerServiceClient, operator string,
	instances []*instance.Instance,
) error {
	var operations []tx.Operation
	for _, i := range instances {
		id := i.Account()
		r, err := client.GetAccount(ctx, &ledgerv1.GetAccountRequest{
			Chain: n.home.genesis.Chain, Account: id[:],
		})
		if err != nil {
			return fmt.Errorf("read the account of %s: %w", i.Service, err)
		}
		if r.GetAccount().GetBalance() < uint64(fundBelow) {
			operations = append(operations, &tx.Transfer{To: id, Amount: fundTo})
		}
	}
	if len(operations) == 0 {
		return nil
	}
	sender := submit.New(submit.Config{
		Ledger: client, Key: n.home.operators[operator], Chain: n.home.genesis.Chain,
		Anchor: n.home.genesis.Anchor(), Now: n.now,
	})
	defer sender.Close()
	_, err := sender.SendMemo(ctx, []byte("fees"), operations...)
	return err
}
