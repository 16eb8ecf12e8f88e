// Command executor runs the agent of one host alone, for an operator who sells a machine.
package main

import (
	"os"

	"github.com/united-containers/ucn/services/executor/wire"
)

func main() { os.Exit(wire.Main(os.Args[1:])) }
