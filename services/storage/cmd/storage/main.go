// Command storage runs a storage service alone, for an operator who splits services over machines.
package main

import (
	"os"

	"github.com/united-containers/ucn/services/storage/wire"
)

func main() { os.Exit(wire.Main(os.Args[1:])) }
