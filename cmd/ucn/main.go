// Command ucn is UCN for users and operators: a whole local network (`up`), one service of a
// larger one (`run`), and all client commands.
package main

import (
	"context"
	"os"

	"github.com/united-containers/ucn/cli"
)

// version is set by the linker.
var version = "development"

func main() {
	root := cli.New(version)
	root.AddCommand(upCommand(), downCommand(), runCommand())
	os.Exit(cli.Execute(context.Background(), root))
}
