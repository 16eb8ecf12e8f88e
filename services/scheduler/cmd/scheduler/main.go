// Command scheduler runs the market alone, for an operator who splits services over machines.
package main

import (
	"os"

	"github.com/united-containers/ucn/services/scheduler/wire"
)

func main() { os.Exit(wire.Main(os.Args[1:])) }
