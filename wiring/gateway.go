package wiring

import (
	"context"

	gateway "github.com/united-containers/ucn/services/gateway/wire"
)

func (n *Network) addGateway(ctx context.Context) error {
	i, err := n.open(ctx, "gateway", "gateway", Alpha)
	if err != nil {
		return err
	}
	cfg := gateway.Default()
	cfg.HTTP.Addr, cfg.Metrics = n.cfg.REST, n.process.Handler()
	cfg.HTTP.CORSOrigins = n.cfg.CORSOrigins
	g, err := gateway.New(ctx, cfg, i)
	if err != nil {
		return err
	}
	n.rest = g
	n.rooms = append(n.rooms, room{name: "gateway", operator: Alpha, inst: i, service: g})
	n.group.Add("gateway", g, "front")
	return nil
}
