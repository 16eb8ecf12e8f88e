package wire

import (
	"context"
	"flag"
	"fmt"
	"io"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/origin"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/run"
	"github.com/united-containers/ucn/kit/telemetry"
	"github.com/united-containers/ucn/kit/token"
	"github.com/united-containers/ucn/services/ledger/server"
)

// Main runs a ledger alone until ctx ends: `ledger -config file [-check]`. Without a file it prints
// the defaults to out.
func Main(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("ledger", flag.ContinueOnError)
	flags.SetOutput(out)
	path := flags.String("config", "", "configuration file; without one the defaults are printed")
	check := flags.Bool("check", false, "validate the configuration and exit")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("read the command line: %w", err)
	}
	c := Default()
	if *path == "" {
		return config.Write(out, c)
	}
	if err := config.Load(*path, &c); err != nil {
		return err
	}
	if err := c.Validate(); err != nil || *check {
		return err
	}
	return c.run(ctx)
}

// run is the process of a ledger that runs alone.
func (c Config) run(ctx context.Context) error {
	operator, err := id.ParseBech32(id.Account, c.Operator)
	if err != nil {
		return config.Invalid("operator", "%v", err)
	}
	all, err := telemetry.New(ctx, c.Telemetry, telemetry.Options{})
	if err != nil {
		return err
	}
	own, err := all.Service("ledger")
	if err != nil {
		return err
	}
	var front *rpc.Server // chains run, and may stop, only once it is there
	l, err := New(ctx, c, Deps{
		Telemetry: own,
		Health:    func(service string, serving bool) { front.SetServing(service, serving) },
	})
	if err != nil {
		return err
	}
	verifier := &token.Verifier{Audience: sig.AccountID(operator), Sets: l.Sets()}
	for _, o := range l.chains {
		verifier.Chains = append(verifier.Chains, o.chain.Name())
	}
	front, err = rpc.NewServer(c.RPC, rpc.ServerDeps{
		Log: own.Log, Tracers: own.Tracers, Meters: own.Meters, Auth: verifier,
		Origins: &origin.Judge{Operator: verifier.Audience, Certificates: cert.Verifier{
			Chains: verifier.Chains, Sets: l.Sets(),
		}},
		Public: server.Public(),
	})
	if err != nil {
		return err
	}
	l.Register(front)
	var group run.Group
	group.Log = own.Log
	group.Add("telemetry", all)
	group.Add("ledger", l, "telemetry")
	group.Add("rpc", front, "ledger")
	return group.Run(ctx, func() {})
}
