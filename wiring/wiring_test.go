package wiring_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/united-containers/ucn/kit/network"
	"github.com/united-containers/ucn/wiring"
)

// local is a network in a folder of its own, on free ports. Nothing of it outlives the test.
func local(t *testing.T) wiring.Config {
	t.Helper()
	cfg := wiring.Default()
	cfg.Data = filepath.Join(t.TempDir(), "data")
	cfg.API, cfg.REST, cfg.Bus = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	t.Cleanup(func() {
		err := wiring.Wipe(context.Background(), cfg.Data)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("wipe: %v", err)
		}
	})
	return cfg
}

// up runs a network until the returned function is called, which returns what Run ended with.
func up(t *testing.T, cfg wiring.Config) (*wiring.Network, func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	n, err := wiring.New(ctx, cfg, wiring.Options{Logs: t.Output()})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- n.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		cancel()
		t.Fatalf("the network did not come up: %v", err)
	}
	return n, func() error { cancel(); return <-done }
}

func TestUpTwice(t *testing.T) {
	cfg := local(t)
	cfg.CORSOrigins = []string{"http://localhost:*"}
	n, down := up(t, cfg)
	preflight(t, n.Where().REST)
	first, err := network.Load(network.Path(cfg.Data))
	if err != nil {
		t.Fatal(err)
	}
	if where := n.Where(); first.API != where.API || first.REST != where.REST ||
		first.PID != os.Getpid() || first.Chain != "main" {
		t.Errorf("network.json says %+v, the network %+v", first, where)
	}
	if err := down(); err != nil {
		t.Fatalf("down: %v", err)
	}
	if _, err := os.Stat(network.Path(cfg.Data)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("network.json after the end: %v, want none", err)
	}
	_, down = up(t, cfg)
	second, err := network.Load(network.Path(cfg.Data))
	if err != nil {
		t.Fatal(err)
	}
	if second.Anchor != first.Anchor || second.Operator != first.Operator {
		t.Error("the second start founded another network")
	}
	if err := down(); err != nil {
		t.Fatalf("down again: %v", err)
	}
}

// preflight asks as a browser does for a page of an origin that is allowed.
func preflight(t *testing.T, rest string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, rest+"/v1/jobs", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", "http://localhost:5173")
	r.Header.Set("Access-Control-Request-Method", "POST")
	got, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if allowed := got.Header.Get("Access-Control-Allow-Origin"); allowed != r.Header.Get("Origin") {
		t.Errorf("a page of %s may read %q: %s", r.Header.Get("Origin"), allowed, got.Status)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	cfg := local(t)
	_, down := up(t, cfg)
	_, err := wiring.New(context.Background(), cfg, wiring.Options{})
	if !errors.Is(err, wiring.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("a second network on the same folder: %v, want ErrInUse with our pid", err)
	}
	if err := wiring.Wipe(context.Background(), cfg.Data); !errors.Is(err, wiring.ErrInUse) {
		t.Errorf("Wipe while it runs: %v, want ErrInUse", err)
	}
	if err := down(); err != nil {
		t.Fatal(err)
	}
}

// TestFoundingIsTakenUp breaks a founding off before its last step.
func TestFoundingIsTakenUp(t *testing.T) {
	cfg := local(t)
	n, err := wiring.New(context.Background(), cfg, wiring.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	wallet := filepath.Join(cfg.Data, "wallets", "default.key")
	before, err := os.ReadFile(wallet)
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"genesis.bin", "ledger", "instances/scheduler/certificate.pem"} {
		if err := os.RemoveAll(filepath.Join(cfg.Data, gone)); err != nil {
			t.Fatal(err)
		}
	}
	_, down := up(t, cfg)
	if err := down(); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(wallet); err != nil || string(after) != string(before) {
		t.Errorf("the wallet was made anew (%v)", err)
	}
}

func TestKeysAreTheirOwnersOnly(t *testing.T) {
	cfg := local(t)
	n, err := wiring.New(context.Background(), cfg, wiring.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	found := 0
	err = filepath.WalkDir(cfg.Data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".key" {
			return err
		}
		found++
		info, err := d.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		return err
	})
	if err != nil || found < 10 {
		t.Errorf("found %d keys, %v", found, err)
	}
}

func TestConfigValidate(t *testing.T) {
	tests := map[string]struct {
		spoil func(*wiring.Config)
		want  string
	}{
		"relative data": {func(c *wiring.Config) { c.Data = "data" }, "data"},
		"no executors":  {func(c *wiring.Config) { c.Executors = nil }, "executors"},
		"same name":     {func(c *wiring.Config) { c.Executors[1].Name = "alpha-1" }, "executors.name"},
		"bad name":      {func(c *wiring.Config) { c.Executors[0].Name = "../x" }, "executors.name"},
		"unknown operator": {
			func(c *wiring.Config) { c.Executors[0].Operator = "gamma" }, "executors.operator",
		},
		"bad sample ratio": {func(c *wiring.Config) { c.Telemetry.SampleRatio = 2 }, "telemetry"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := wiring.Default()
			cfg.Data = "/nowhere"
			tt.spoil(&cfg)
			if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Validate = %v, want an error that names %s", err, tt.want)
			}
		})
	}
	cfg := wiring.Default()
	cfg.Data = "/nowhere"
	if err := cfg.Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}

func TestWipeOfNothing(t *testing.T) {
	err := wiring.Wipe(context.Background(), filepath.Join(t.TempDir(), "none"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Wipe = %v, want ErrNotExist", err)
	}
}
