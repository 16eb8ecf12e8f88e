// Command ucn is UCN for users and operators: a whole local network (`up`), one service of a
// larger one (`run`), and all client commands.
package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli"
)

// version is set by the linker.
var version = "development"

func main() {
	os.Exit(cli.Execute(context.Background(), root()))
}

// root is the command with all that stand below it.
func root() *cobra.Command {
	root := cli.New(version)
	root.AddCommand(upCommand(), downCommand(), runCommand())
	return root
}
