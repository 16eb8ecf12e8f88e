// Command scheduler runs the market alone, for an operator who splits services over machines.
package main

import (
	"context"
	"os"

	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/services/scheduler/wire"
)

func main() {
	file := &wire.File{Config: wire.Default()}
	os.Exit(instance.Main("scheduler", file,
		func(ctx context.Context, i *instance.Instance) (instance.Service, error) {
			return wire.New(ctx, file.Config, i)
		}))
}
