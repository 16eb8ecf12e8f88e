package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	broker "github.com/united-containers/ucn/kit/broker/wire"
	"github.com/united-containers/ucn/kit/run"
	executor "github.com/united-containers/ucn/services/executor/wire"
	gateway "github.com/united-containers/ucn/services/gateway/wire"
	ledger "github.com/united-containers/ucn/services/ledger/wire"
	scheduler "github.com/united-containers/ucn/services/scheduler/wire"
	storage "github.com/united-containers/ucn/services/storage/wire"
)

// mains are the main functions of the services, the same that their own binaries have.
func mains() map[string]func(args []string) int {
	return map[string]func([]string) int{
		"broker": broker.Main, "executor": executor.Main, "gateway": gateway.Main,
		"scheduler": scheduler.Main, "storage": storage.Main,
		"ledger": func(args []string) int {
			ctx, stop := run.Signals(context.Background(), os.Exit)
			defer stop()
			if err := ledger.Main(ctx, args, os.Stdout); err != nil {
				fmt.Fprintln(os.Stderr, "ledger:", err)
				return 1
			}
			return 0
		},
	}
}

func runCommand() *cobra.Command {
	names := slices.Sorted(maps.Keys(mains()))
	return &cobra.Command{
		Use:   "run SERVICE -config FILE",
		Short: "Run one service of a network in this process",
		Long: "Run one service (" + strings.Join(names, ", ") + ") in this process, as an " +
			"operator who\nsplits services over machines does.\n\n" +
			"  -config FILE   the configuration (YAML)\n" +
			"  -check         check the configuration and exit\n" +
			"  -defaults      print the default configuration and exit",
		Example: "  ucn run scheduler -defaults > scheduler.yaml\n" +
			"  ucn run scheduler -config scheduler.yaml",
		DisableFlagParsing: true,
		ValidArgs:          names,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] == "-h" || args[0] == "--help" {
				return cmd.Help()
			}
			main, ok := mains()[args[0]]
			if !ok {
				return fmt.Errorf("no service %q: it is one of %s", args[0], strings.Join(names, ", "))
			}
			os.Exit(main(args[1:]))
			return nil
		},
	}
}
