package instance

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/run"
	"github.com/united-containers/ucn/kit/telemetry"
)

// Service is what a wire package builds.
type Service interface {
	run.Component
	Register(grpc.ServiceRegistrar)
	// PublicMethods need no token.
	PublicMethods() []string
}

// FileConfig is a service's whole configuration file: Common gives the part of this package.
type FileConfig interface {
	Common() Config
	Validate() error
}

// Build makes the service of a process.
type Build func(ctx context.Context, i *Instance) (Service, error)

// exitUsage is the exit status of a wrong command line, as shells do.
const exitUsage = 2

// Main is the main function of a service's own process: `-config FILE` runs it, `-check` only
// checks the file, `-defaults` prints the defaults. args are without the program's name. It
// returns the exit code.
func Main(service string, args []string, into FileConfig, build Build) int {
	flags := flag.NewFlagSet(service, flag.ContinueOnError)
	path := flags.String("config", "", "configuration file (YAML)")
	check := flags.Bool("check", false, "check the configuration and exit")
	defaults := flags.Bool("defaults", false, "print the default configuration and exit")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return exitUsage
	}
	ctx, stop := run.Signals(context.Background(), os.Exit)
	defer stop()
	var err error
	switch {
	case *defaults:
		err = config.Write(os.Stdout, into)
	case *path == "":
		flags.Usage()
		return exitUsage
	default:
		if err = config.Load(*path, into); err == nil && !*check {
			err = Serve(ctx, service, into.Common(), build, os.Stderr)
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", service, err)
		return 1
	}
	return 0
}

// Serve runs one service in this process until ctx ends.
func Serve(ctx context.Context, service string, c Config, build Build, logs io.Writer) error {
	process, err := telemetry.New(ctx, c.Telemetry, telemetry.Options{LogWriter: logs})
	if err != nil {
		return err
	}
	i, err := Open(ctx, c, service, process)
	if err != nil {
		return err
	}
	s, err := build(ctx, i)
	if err != nil {
		return err
	}
	server, err := rpc.NewServer(c.RPC, rpc.ServerDeps{
		Log: i.Telemetry.Log, Tracers: i.Telemetry.Tracers, Meters: i.Telemetry.Meters,
		Auth: i.Tokens(), Origins: i.Origins(), Public: s.PublicMethods(),
	})
	if err != nil {
		return err
	}
	s.Register(server)
	group := run.Group{Log: i.Telemetry.Log}
	group.Add("telemetry", process)
	group.Add(service, s, "telemetry")
	group.Add("rpc", server, service)
	return group.Run(ctx, func() {})
}
