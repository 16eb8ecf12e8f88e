package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/trace"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/cli/session"
	"github.com/united-containers/ucn/cli/wallet"
	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/network"
	"github.com/united-containers/ucn/kit/telemetry"
)

// settings is <data>/client.yaml, what a user does not want to say each time. Flags and environment
// come first.
type settings struct {
	// API is the gRPC address of the operator.
	API string `yaml:"api"`
	// Wallet that acts.
	Wallet string `yaml:"wallet"`
	// Network is the path of the operator's network file.
	Network string `yaml:"network"`
}

// first returns the first text that is not empty.
func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

func (a *app) data() string { return a.flags.data }

func (a *app) settings() (settings, error) {
	var s settings
	err := config.Load(filepath.Join(a.data(), "client.yaml"), &s)
	if errors.Is(err, fs.ErrNotExist) {
		return settings{}, nil
	}
	return s, err
}

func (a *app) wallets() wallet.Folder { return wallet.In(a.data()) }

// walletName is the name of the wallet that acts.
func (a *app) walletName() (string, error) {
	s, err := a.settings()
	return first(a.flags.wallet, a.Env("UCN_WALLET"), s.Wallet, "default"), err
}

// network finds and reads the network file.
func (a *app) network() (network.File, error) {
	s, err := a.settings()
	if err != nil {
		return network.File{}, err
	}
	path := first(a.flags.network, a.Env("UCN_NETWORK"), s.Network, network.Path(a.data()))
	f, err := network.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, unreachable(fmt.Errorf("no network is known: there is no file %s", path))
	}
	if err != nil {
		return f, err
	}
	if api := first(a.flags.api, a.Env("UCN_API"), s.API); api != "" {
		f.API = api
	}
	return f, nil
}

// link is a session together with the command's span and telemetry. Close it.
type link struct {
	*session.Session
	span      trace.Span
	telemetry *telemetry.Telemetry
}

// Whether a command needs the wallet's key.
const (
	withKey    = true
	withoutKey = false
)

// connect opens a session for a command. The context carries the command's root span.
func (a *app) connect(cmd *cobra.Command, needsKey bool) (context.Context, *link, error) {
	ctx := cmd.Context()
	file, err := a.network()
	if err != nil {
		return nil, nil, err
	}
	var key sig.PrivateKey
	if needsKey {
		if key, err = a.openWallet(); err != nil {
			return nil, nil, err
		}
	}
	t, service, err := a.observe(ctx)
	if err != nil {
		return nil, nil, err
	}
	s, err := a.Open(ctx, session.Config{
		Network: file, Key: key, For: a.flags.asDelegate.account,
		Signer: a.flags.asDelegate.number, Now: a.Now, Telemetry: service, Log: service.Log,
	})
	if err != nil {
		return nil, nil, errors.Join(err, t.Shutdown(ctx))
	}
	s.Ledger = &warning{LedgerServiceClient: s.Ledger, to: a.Err}
	ctx, span := s.Tracer().Start(ctx, cmd.CommandPath())
	return ctx, &link{s, span, t}, nil
}

func (a *app) openWallet() (sig.PrivateKey, error) {
	name, err := a.walletName()
	if err != nil {
		return sig.PrivateKey{}, err
	}
	return a.wallets().Open(name, a.passphrase(name))
}

// observe sets up traces; where they go is said by OpenTelemetry's usual variable.
func (a *app) observe(ctx context.Context) (*telemetry.Telemetry, *telemetry.Service, error) {
	cfg := telemetry.Default()
	cfg.LogLevel = slog.LevelError
	endpoint := a.Env("OTEL_EXPORTER_OTLP_ENDPOINT")
	plain, insecure := strings.CutPrefix(endpoint, "http://")
	cfg.Endpoint = strings.TrimSuffix(strings.TrimPrefix(plain, "https://"), "/")
	cfg.Insecure = insecure
	t, err := telemetry.New(ctx, cfg, telemetry.Options{LogWriter: a.Err, Version: a.Version})
	if err != nil {
		return nil, nil, err
	}
	service, err := t.Service("cli")
	return t, service, err
}

// flushTime is how long a command's end may wait for the collector.
const flushTime = 2 * time.Second

// Close ends span and session and sends the last spans.
func (l *link) Close() {
	l.span.End()
	_ = l.Session.Close() // the work is done; a connection that does not close changes nothing
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	_ = l.telemetry.Shutdown(ctx) // the same
}

// TraceID is that of the command's span.
func (l *link) TraceID() string {
	if c := l.span.SpanContext(); c.HasTraceID() {
		return c.TraceID().String()
	}
	return ""
}

// task is the body of a command that uses a session.
type task func(ctx context.Context, l *link, args []string) error

// session makes a command's RunE of a task that ends within --timeout.
func (a *app) session(needsKey bool, do task) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, l, err := a.connect(cmd, needsKey)
		if err != nil {
			return err
		}
		defer l.Close()
		defer a.closeLeft(ctx, l)
		ctx, cancel := context.WithTimeout(ctx, a.flags.timeout)
		defer cancel()
		return do(ctx, l, args)
	}
}

// following is session for commands that last as long as what they follow.
func (a *app) following(needsKey bool, do task) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, l, err := a.connect(cmd, needsKey)
		if err != nil {
			return err
		}
		defer l.Close()
		defer a.closeLeft(ctx, l)
		return do(ctx, l, args)
	}
}
