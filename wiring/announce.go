package wiring

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/network"
)

// announce writes network.json while the network runs, so that clients find it.
func (n *Network) announce(ctx context.Context, ready func()) error {
	anchor := n.home.genesis.Anchor()
	path := network.Path(n.cfg.Data)
	err := network.Save(path, network.File{
		API: n.front.Addr().String(), REST: n.rest.URL(), Bus: n.broker.URL(),
		Chain: n.home.genesis.Chain, Anchor: hex.EncodeToString(anchor[:]),
		Operator: id.Bech32(id.Account, n.home.operator(Alpha)), Genesis: "genesis.bin",
		PID: os.Getpid(),
	})
	if err != nil {
		return fmt.Errorf("tell clients where the network is: %w", err)
	}
	ready()
	<-ctx.Done()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("tell clients that the network is gone: %w", err)
	}
	return nil
}

// Where tells how clients reach the network; valid once Run has called ready.
type Where struct {
	API, REST, Bus, Data string
	Operator, Chain      string
}

// Where tells how clients reach the network; valid once Run has called ready.
func (n *Network) Where() Where {
	return Where{
		API: n.front.Addr().String(), REST: n.rest.URL(), Bus: n.broker.URL(), Data: n.cfg.Data,
		Operator: id.Bech32(id.Account, n.home.operator(Alpha)), Chain: n.home.genesis.Chain,
	}
}
