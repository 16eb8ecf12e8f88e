package wiring

import (
	"context"
	"fmt"
	"os"

	storage "github.com/united-containers/ucn/services/storage/wire"
)

func (n *Network) addStorage(ctx context.Context) error {
	i, err := n.open(ctx, "storage", "storage", Alpha)
	if err != nil {
		return err
	}
	cfg := storage.Default()
	cfg.Dir, cfg.Quota = n.home.path("storage"), n.cfg.StorageQuota
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("make the storage's folder: %w", err)
	}
	s, err := storage.New(ctx, cfg, i)
	if err != nil {
		return err
	}
	return n.add(room{name: "storage", operator: Alpha, inst: i, service: s}, "ledger rpc")
}
