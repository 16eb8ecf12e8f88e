package wiring

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/chain/price"
	agent "github.com/united-containers/ucn/services/executor"
	executor "github.com/united-containers/ucn/services/executor/wire"
)

// addExecutors makes the hosts. They share one container engine, and so images, but nothing else.
func (n *Network) addExecutors(ctx context.Context) error {
	told, err := n.process.Service("executor")
	if err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	// Containers read their inputs as users that own nothing: they must be able to pass.
	const passable = 0o711
	dir := n.home.path("executors")
	if err := errors.Join(os.MkdirAll(dir, passable), os.Chmod(dir, passable)); err != nil {
		return fmt.Errorf("make the executors' folder: %w", err)
	}
	engine, err := executor.OpenEngine(executor.EngineConfig{
		Dir: n.home.path("engine"), MaxUnpacked: int64(n.cfg.Registries.MaxUnpacked),
	}, told.Log)
	if err != nil {
		return err
	}
	n.closers = append(n.closers, engine.Close)
	memory, err := shareOfMemory(len(n.cfg.Executors))
	if err != nil {
		return err
	}
	for _, e := range n.cfg.Executors {
		name := "executor-" + e.Name
		i, err := n.open(ctx, name, "executor", e.Operator)
		if err != nil {
			return err
		}
		cfg := executor.Default()
		cfg.Name, cfg.Dir = e.Name, n.home.path("executors", e.Name)
		cfg.Agent.Host = e.Name
		cfg.Agent.Prices = e.prices()
		cfg.Agent.Capacity.Memory = memory
		cfg.Registries = n.cfg.Registries
		cfg.Registries.MaxUnpacked = 0 // the engine's, which they share
		cfg.Driver = func(name string) (agent.Driver, error) { return engine.Driver(name) }
		s, err := executor.New(ctx, cfg, i)
		if err != nil {
			return fmt.Errorf("host %s: %w", e.Name, err)
		}
		r := room{name: name, operator: e.Operator, inst: i, service: s}
		err = n.add(r, "scheduler rpc", "storage rpc")
		if err != nil {
			return err
		}
	}
	return nil
}

func (e Executor) prices() agent.Prices {
	return agent.PricesOf(price.Prices{
		Model: price.Linear, CoreHour: e.CoreHour, MemoryGiBHour: e.MemoryGiBHour,
		DiskGiBHour: e.DiskGiBHour, GiBIn: e.GiB, GiBOut: e.GiB,
	})
}

// shareOfMemory is what each of n hosts on this machine sells: together they leave a quarter.
func shareOfMemory(n int) (uint64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("read the machine's memory: %w", err)
	}
	const part, of = 3, 4
	return info.Totalram * uint64(info.Unit) / of * part / uint64(n), nil
}
