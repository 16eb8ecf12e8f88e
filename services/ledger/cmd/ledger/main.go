// Command ledger runs a ledger alone.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/united-containers/ucn/kit/run"
	"github.com/united-containers/ucn/services/ledger/wire"
)

func main() {
	ctx, stop := run.Signals(context.Background(), os.Exit)
	defer stop()
	if err := wire.Main(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "ledger:", err)
		os.Exit(1)
	}
}
