package wiring

import (
	"context"
	"fmt"
	"os"

	"github.com/united-containers/ucn/kit/instance"
	ledgerserver "github.com/united-containers/ucn/services/ledger/server"
	ledger "github.com/united-containers/ucn/services/ledger/wire"
)

// ledgerRoom fits the ledger's wire to what all rooms look like.
type ledgerRoom struct{ *ledger.Ledger }

// PublicMethods need no token.
func (ledgerRoom) PublicMethods() []string { return ledgerserver.Public() }

var _ instance.Service = ledgerRoom{}

func (n *Network) addLedger(ctx context.Context) error {
	i, err := n.open(ctx, "ledger", "ledger", Alpha)
	if err != nil {
		return err
	}
	files := n.home.instance("ledger")
	cfg := ledger.Default()
	cfg.Dir = n.home.path("ledger")
	cfg.Chains = []ledger.ChainConfig{{
		Genesis: files.Genesis, ProposerKey: files.Key, FaucetKey: n.home.path("faucet.key"),
	}}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("make the ledger's folder: %w", err)
	}
	l, err := ledger.New(ctx, cfg, ledger.Deps{
		Telemetry: i.Telemetry,
		Health:    func(service string, serving bool) { n.front.SetServing(service, serving) },
	})
	if err != nil {
		return err
	}
	n.common.Sets = l.Sets()
	i.Sets = n.common.Sets
	return n.add(room{name: "ledger", operator: Alpha, inst: i, service: ledgerRoom{l}}, "broker")
}
