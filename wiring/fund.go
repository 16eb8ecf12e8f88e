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
// line of nonces and none holds an operator's key. Their operators keep them between these.
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

func (n *Network) fund(ctx context.Context, ledgerInstance *instance.Instance) (err error) {
	client, done, err := ledgerClient(ctx, ledgerInstance)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	wants := map[string][]string{Alpha: {"scheduler"}}
	for _, e := range n.cfg.Executors {
		wants[e.Operator] = append(wants[e.Operator], "executor-"+e.Name)
	}
	for operator, names := range wants {
		var operations []tx.Operation
		for _, name := range names {
			i, err := n.open(ctx, name, "executor", operator)
			if name == "scheduler" {
				i, err = n.open(ctx, name, "scheduler", operator)
			}
			if err != nil {
				return err
			}
			id := i.Account()
			r, err := client.GetAccount(ctx, &ledgerv1.GetAccountRequest{
				Chain: n.home.genesis.Chain, Account: id[:],
			})
			if err != nil {
				return err
			}
			if r.GetAccount().GetBalance() < uint64(fundBelow) {
				operations = append(operations, &tx.Transfer{To: id, Amount: fundTo})
			}
		}
		if len(operations) == 0 {
			continue
		}
		sender := submit.New(submit.Config{
			Ledger: client, Key: n.home.operators[operator], Chain: n.home.genesis.Chain,
			Anchor: n.home.genesis.Anchor(), Now: n.now,
		})
		if _, err := sender.SendMemo(ctx, []byte("fees"), operations...); err != nil {
			return fmt.Errorf("operator %s: %w", operator, err)
		}
	}
	return nil
}
