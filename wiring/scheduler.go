package wiring

import (
	"context"
	"fmt"
	"os"

	scheduler "github.com/united-containers/ucn/services/scheduler/wire"
)

func (n *Network) addScheduler(ctx context.Context) error {
	i, err := n.open(ctx, "scheduler", "scheduler", Alpha)
	if err != nil {
		return err
	}
	cfg := scheduler.Default()
	cfg.Dir = n.home.path("scheduler")
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("make the scheduler's folder: %w", err)
	}
	s, err := scheduler.New(ctx, cfg, i)
	if err != nil {
		return err
	}
	return n.add(room{name: "scheduler", operator: Alpha, inst: i, service: s}, "funding", "broker")
}
