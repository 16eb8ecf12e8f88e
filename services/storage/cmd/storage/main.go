// Command storage runs a storage service alone, for an operator who splits services over machines.
package main

import (
	"context"
	"os"

	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/services/storage/wire"
)

func main() {
	file := &wire.File{Config: wire.Default()}
	os.Exit(instance.Main("storage", os.Args[1:], file,
		func(ctx context.Context, i *instance.Instance) (instance.Service, error) {
			return wire.New(ctx, file.Config, i)
		}))
}
