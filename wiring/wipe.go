package wiring

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	executor "github.com/united-containers/ucn/services/executor/wire"
)

// Wipe deletes a network that is down: its containers and images, its chain, and all keys and
// wallets in its data folder. ErrInUse: it runs.
func Wipe(ctx context.Context, data string) error {
	if _, err := os.Stat(filepath.Join(data, "lock")); err != nil {
		return fmt.Errorf("%s holds no network: %w", data, err)
	}
	h := &home{dir: data}
	if err := h.takeLock(); err != nil {
		return err
	}
	err := executor.WipeEngine(ctx, executor.EngineConfig{Dir: h.path("engine")})
	if err == nil {
		err = os.RemoveAll(data)
	}
	return errors.Join(err, h.close())
}
