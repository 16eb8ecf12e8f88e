// Command gateway runs the REST gateway alone, for an operator who splits services over machines.
package main

import (
	"os"

	"github.com/united-containers/ucn/services/gateway/wire"
)

func main() { os.Exit(wire.Main(os.Args[1:])) }
