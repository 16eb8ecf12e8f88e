package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/network"
	"github.com/united-containers/ucn/wiring"
)

// Bounds of waiting for a network in the background.
const (
	upWithin   = 90 * time.Second
	downWithin = 90 * time.Second
	pollEvery  = 50 * time.Millisecond
	logTail    = 4 << 10
	logMost    = 64 << 20 // a longer log is put aside at the next start, as ucn.log.1
)

// upFlags are what `ucn up` can be told; the rest is in the configuration file.
type upFlags struct {
	file           string
	detach         bool
	api, rest, bus string
	otlp           string
	cors           []string
	verbose        bool
	defaults       bool
}

func upCommand() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run a whole local network in this process",
		Long: "Run a whole local network in this process: one chain, a market, storage, a gateway,\n" +
			"and three hosts of two operators with different prices. Everything it keeps is in\n" +
			"the data folder (--data). Ctrl-C stops it; containers that run go on and are taken\n" +
			"up again by the next `ucn up`.\n\n" +
			"Hosts, prices, quotas, registries and more are fields of a configuration file:\n" +
			"--defaults prints all of them.",
		Example: "  ucn up\n  ucn up --detach && ucn wallet balance\n  ucn down\n" +
			"  ucn up --cors 'http://localhost:*'\n" +
			"  ucn up --defaults > net.yaml && ucn up --config net.yaml",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.config(cmd)
			if err != nil {
				return err
			}
			if f.defaults {
				return config.Write(cmd.OutOrStdout(), cfg)
			}
			if f.detach {
				return detach(cmd, cfg)
			}
			return up(cmd.Context(), cfg, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.file, "config", "", "configuration of the network (YAML)")
	flags.BoolVarP(&f.detach, "detach", "d", false, "run in the background; stop it by ucn down")
	flags.StringVar(&f.api, "listen-api", "", "gRPC address (default 127.0.0.1:7600)")
	flags.StringVar(&f.rest, "listen-rest", "", "REST address (default 127.0.0.1:7680)")
	flags.StringVar(&f.bus, "listen-bus", "", "NATS address (default 127.0.0.1:7622)")
	flags.StringArrayVar(&f.cors, "cors", nil,
		"web origin whose pages may use REST, like http://localhost:* (can be repeated)")
	flags.BoolVar(&f.defaults, "defaults", false,
		"print the configuration that counts, with every field, and start nothing")
	flags.StringVar(&f.otlp, "otlp", os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"),
		"host:port of an OpenTelemetry collector, such as Jaeger's 127.0.0.1:4317")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log what the services do")
	return cmd
}

// config reads the file, if any, and lays the flags over it.
func (f *upFlags) config(cmd *cobra.Command) (wiring.Config, error) {
	cfg := wiring.Default()
	data := cmd.Flag("data") // its default is UCN_DATA's
	if data != nil {
		abs, err := filepath.Abs(data.Value.String())
		if err != nil {
			return cfg, fmt.Errorf("data folder: %w", err)
		}
		cfg.Data = abs
	}
	named := cfg.Data
	if f.file != "" {
		if err := config.Load(f.file, &cfg); err != nil {
			return cfg, err
		}
	}
	if data != nil && data.Changed { // else the file's counts, if it names one
		cfg.Data = named
	}
	for to, from := range map[*string]string{&cfg.API: f.api, &cfg.REST: f.rest, &cfg.Bus: f.bus} {
		if from != "" {
			*to = from
		}
	}
	if len(f.cors) > 0 {
		cfg.CORSOrigins = f.cors
	}
	if f.otlp != "" {
		cfg.Telemetry.Endpoint = strings.TrimPrefix(f.otlp, "http://")
	}
	if !f.verbose {
		const warn = 4
		cfg.Telemetry.LogLevel = warn
	}
	return cfg, cfg.Validate()
}

func up(ctx context.Context, cfg wiring.Config, out, logs io.Writer) error {
	began := time.Now()
	n, err := wiring.New(ctx, cfg, wiring.Options{Logs: logs, Version: version})
	if err != nil {
		return err
	}
	return n.Run(ctx, func() { greet(out, n.Where(), time.Since(began)) })
}

func greet(out io.Writer, w wiring.Where, took time.Duration) {
	fmt.Fprintf(out, `The network is up (%.1f s).

  gRPC   %s
  REST   %s
  bus    %s
  data   %s

Try next:
  ucn wallet balance                    what the default wallet holds
  ucn market                            what the hosts offer
  ucn image push docker-archive.tar     bring an image (an archive, or a local podman/docker image)
  ucn job run IMAGE_CID -- args         run it, paid by the second
  ucn job ls
  curl %s/v1/offers
  ucn down                              stop the network
`, took.Seconds(), w.API, w.REST, w.Bus, w.Data, w.REST)
}

// detach starts the same command in the background and waits until it is ready.
func detach(cmd *cobra.Command, cfg wiring.Config) error {
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	if err := wiring.CheckRoom(cfg.Data); err != nil {
		return err // the log would not hold it
	}
	path := filepath.Join(cfg.Data, "ucn.log")
	log, from, err := openLog(path)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer log.Close()
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	var args []string
	for _, arg := range os.Args[1:] {
		if arg != "--detach" && arg != "-d" {
			args = append(args, arg)
		}
	}
	child := exec.Command(program, args...)
	child.Stdout, child.Stderr = log, log
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return fmt.Errorf("start the network: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }() // ends with the child, or with this process
	if err := awaitReady(cmd.Context(), cfg.Data, child.Process.Pid, ended); err != nil {
		return fmt.Errorf("%w\n%s", err, strings.TrimSpace(tail(path, from)))
	}
	if asJSON(cmd) {
		file, err := network.Load(network.Path(cfg.Data))
		if err != nil {
			return err
		}
		return json.NewEncoder(cmd.OutOrStdout()).Encode(file)
	}
	_, err = io.WriteString(cmd.OutOrStdout(), tail(path, from))
	return err
}

// openLog opens the log of a network that runs in the background, to go on where it ends: what an
// earlier one said before it crashed is asked for just when it has been started again. A long one
// is put aside first. from is where the new network's words begin.
func openLog(path string) (log *os.File, from int64, err error) {
	if now, err := os.Stat(path); err == nil && now.Size() > logMost {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, 0, err
		}
	}
	log, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, 0, err
	}
	from, err = log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, 0, errors.Join(err, log.Close())
	}
	return log, from, nil
}

// awaitReady waits for the network file of the process.
func awaitReady(ctx context.Context, data string, pid int, ended <-chan error) error {
	deadline := time.NewTimer(upWithin)
	defer deadline.Stop()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		select {
		case err := <-ended:
			return fmt.Errorf("the network did not come up: %w", errors.Join(err))
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return fmt.Errorf("the network did not come up within %s", upWithin)
		case <-poll.C:
			if file, err := network.Load(network.Path(data)); err == nil && file.PID == pid {
				return nil
			}
		}
	}
}

// asJSON reports whether the answer is for a program.
func asJSON(cmd *cobra.Command) bool { return cmd.Flag("json").Value.String() == "true" }

// tail returns the last that was written to a log since a place in it.
func tail(path string, from int64) string {
	log, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer log.Close()
	end, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	from = max(from, end-logTail)
	raw, err := io.ReadAll(io.NewSectionReader(log, from, end-from))
	if err != nil {
		return ""
	}
	return string(raw)
}
