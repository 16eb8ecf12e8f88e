package instance_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/token"
)

const service = "storage"

// desk is an operator with a folder of what an instance needs.
type desk struct {
	dir      string
	operator keys.Signer
	cfg      instance.Config
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	dir := t.TempDir()
	d := &desk{
		dir: dir, operator: keys.SingleSigner(sig.FromSeed([32]byte{1})), cfg: instance.Default(),
	}
	d.cfg.Key, d.cfg.SealKey = filepath.Join(dir, "key"), filepath.Join(dir, "seal")
	d.cfg.Certificate = filepath.Join(dir, "certificate")
	d.cfg.Genesis = filepath.Join(dir, "genesis")
	g, err := block.Local([32]byte{5}, 1_800_000_000_000, sig.FromSeed([32]byte{2}).Public(),
		block.LocalAccounts{
			Faucet: sig.AccountID{9}, Wallet: sig.AccountID{3},
			Operators: [2]sig.AccountID{{7}, {1}},
		})
	if err != nil {
		t.Fatal(err)
	}
	d.write(t, d.cfg.Genesis, g.Append(nil))
	d.issue(t, nil)
	return d
}

func (d *desk) write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue writes the instance's certificate, spoilt.
func (d *desk) issue(t *testing.T, spoil func(*cert.Certificate)) {
	t.Helper()
	key, err := keys.LoadOrCreateSigning(d.cfg.Key)
	if err != nil {
		t.Fatal(err)
	}
	seal, err := keys.LoadOrCreateSealing(d.cfg.SealKey)
	if err != nil {
		t.Fatal(err)
	}
	c := cert.Certificate{
		Chain: "main", InstanceKey: key.Public(), SealKey: seal.Public(),
		Services: []string{service}, Serial: 1,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if spoil != nil {
		spoil(&c)
	}
	raw, err := cert.Issue(d.operator, c)
	if err != nil {
		t.Fatal(err)
	}
	d.write(t, d.cfg.Certificate, cert.Text(raw))
}

func (d *desk) open(t *testing.T) (*instance.Instance, error) {
	t.Helper()
	telemetry := kittest.NewTelemetry(t, kittest.NewLog(t))
	return instance.Open(t.Context(), d.cfg, service, telemetry.Telemetry)
}

func TestOpen(t *testing.T) {
	d := newDesk(t)
	i, err := d.open(t)
	if err != nil {
		t.Fatal(err)
	}
	if i.Operator() != d.operator.Account || i.Chain != "main" || i.Anchor == (sig.Anchor{}) ||
		i.Account() != sig.AccountOfKey(i.Identity.Key.Public()) {
		t.Errorf("instance %+v", i)
	}
	if _, err := i.EventSigner(); err != nil {
		t.Error(err)
	}
	if _, err := i.Dialer.Dial(t.Context(), "scheduler"); err == nil {
		t.Error("a peer that is not configured was dialled")
	}
	d.cfg.Client.Peers = map[string]rpc.Peer{"ledger": {Addr: "127.0.0.1:1"}}
	if i, err = d.open(t); err != nil || i.Sets == nil {
		t.Errorf("with a ledger that is away: %v, want it to start", err)
	}
}

// epoch puts a file in the place of the operator's word.
func (d *desk) epoch(t *testing.T, raw []byte) {
	t.Helper()
	d.cfg.Epoch = filepath.Join(d.dir, "epoch")
	d.write(t, d.cfg.Epoch, raw)
}

func TestOpenRefuses(t *testing.T) {
	other := sig.FromSeed([32]byte{8}).Public()
	tests := map[string]struct {
		spoil func(t *testing.T, d *desk)
		is    error
		words string
	}{
		"no certificate": {func(t *testing.T, d *desk) {
			if err := os.Remove(d.cfg.Certificate); err != nil {
				t.Fatal(err)
			}
		}, fs.ErrNotExist, "the operator issues it for key"},
		"garbage": {func(t *testing.T, d *desk) {
			d.write(t, d.cfg.Certificate, []byte("garbage"))
		}, cert.ErrMalformed, "certificate"},
		"of another key": {func(t *testing.T, d *desk) {
			d.issue(t, func(c *cert.Certificate) { c.InstanceKey = other })
		}, nil, "is for other keys"},
		"of another seal key": {func(t *testing.T, d *desk) {
			d.issue(t, func(c *cert.Certificate) { c.SealKey[3] ^= 1 })
		}, nil, "is for other keys"},
		"of another service": {func(t *testing.T, d *desk) {
			d.issue(t, func(c *cert.Certificate) { c.Services = []string{"executor"} })
		}, nil, `does not name the service "storage"`},
		"of another chain": {func(t *testing.T, d *desk) {
			d.issue(t, func(c *cert.Certificate) { c.Chain = "side" })
		}, cert.ErrChain, ""},
		"expired": {func(t *testing.T, d *desk) {
			d.issue(t, func(c *cert.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
		}, cert.ErrExpired, ""},
		"not valid yet": {func(t *testing.T, d *desk) {
			d.issue(t, func(c *cert.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })
		}, cert.ErrNotYetValid, ""},
		"no genesis": {func(_ *testing.T, d *desk) { d.cfg.Genesis += "x" }, fs.ErrNotExist, "genesis"},
		"genesis is garbage": {func(t *testing.T, d *desk) {
			d.write(t, d.cfg.Genesis, []byte("garbage"))
		}, nil, "genesis"},
		"no epoch": {func(_ *testing.T, d *desk) { d.cfg.Epoch = "/nowhere" }, fs.ErrNotExist, "epoch"},
		"epoch is garbage": {func(t *testing.T, d *desk) {
			d.epoch(t, []byte("garbage"))
		}, event.ErrEpochInvalid, "epoch"},
		"epoch of another instance": {func(t *testing.T, d *desk) {
			notice, err := event.IssueEpoch(d.operator, event.Epoch{
				Chain: "main", Instance: other, Number: 2, Time: time.Now(),
			})
			if err != nil {
				t.Fatal(err)
			}
			d.epoch(t, notice)
		}, event.ErrEpochInvalid, "another instance"},
		"key others can read": {func(t *testing.T, d *desk) {
			if err := os.Chmod(d.cfg.Key, 0o644); err != nil {
				t.Fatal(err)
			}
		}, nil, "instance key"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			tt.spoil(t, d)
			_, err := d.open(t)
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) ||
				!strings.Contains(err.Error(), tt.words) {
				t.Errorf("Open = %v, want %v with %q", err, tt.is, tt.words)
			}
		})
	}
}

// TestTokens: what one instance shows its peer's operator, that one believes, and no other.
func TestTokens(t *testing.T) {
	key, own, other := sig.FromSeed([32]byte{4}), sig.AccountID{1}, sig.AccountID{2}
	source := instance.NewTokens(key, "main", own, map[string]sig.AccountID{"ledger": other})
	for peer, operator := range map[string]sig.AccountID{"storage": own, "ledger": other} {
		text, err := source.Token(t.Context(), peer)
		if err != nil {
			t.Fatal(err)
		}
		for _, audience := range []sig.AccountID{own, other} {
			v := &token.Verifier{Audience: audience, Chains: []string{"main"}}
			caller, err := v.Authenticate(t.Context(), text)
			if (err == nil) != (audience == operator) {
				t.Errorf("token for %s at %x: %v", peer, audience[0], err)
			}
			if err == nil && (caller.Account != sig.AccountOfKey(key.Public()) ||
				!caller.HasScope("ledger:submit") || caller.HasScope("admin")) {
				t.Errorf("caller %+v", caller)
			}
		}
	}
}

// echo is the smallest service: health alone.
type echo struct{}

func (echo) Register(grpc.ServiceRegistrar) {}

func (echo) PublicMethods() []string { return nil }

func (echo) Run(ctx context.Context, ready func()) error {
	ready()
	<-ctx.Done()
	return nil
}

// file is a configuration file with the common part alone.
type file struct {
	Instance instance.Config `yaml:"instance"`
}

func (f *file) Common() instance.Config { return f.Instance }

func (f *file) Validate() error { return config.Under("instance", f.Instance.Validate()) }

// mainEnv makes this test binary the main of a service.
const mainEnv = "UCN_TEST_INSTANCE_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) == "" {
		os.Exit(m.Run())
	}
	os.Exit(instance.Main(service, os.Args[1:], &file{instance.Default()},
		func(context.Context, *instance.Instance) (instance.Service, error) { return echo{}, nil }))
}

// command is a process of its own.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0], args...)
	c.Env = append(os.Environ(), mainEnv+"=1")
	return c
}

func (d *desk) file(t *testing.T, addr string) string {
	t.Helper()
	var text bytes.Buffer
	d.cfg.RPC.Addr = addr
	if err := config.Write(&text, &file{d.cfg}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.dir, "config.yaml")
	d.write(t, path, text.Bytes())
	return path
}

func TestFlags(t *testing.T) {
	d := newDesk(t)
	good := d.file(t, "127.0.0.1:0")
	open := d.file(t, "0.0.0.0:0") + ".open"
	if err := os.Rename(good, open); err != nil {
		t.Fatal(err)
	}
	d.file(t, "127.0.0.1:0")
	bad := filepath.Join(d.dir, "bad.yaml")
	d.write(t, bad, []byte("instance:\n  kez: x\n"))
	tests := map[string]struct {
		args  []string
		code  int
		words string
	}{
		"check":             {[]string{"-check", "-config", good}, 0, ""},
		"defaults":          {[]string{"-defaults"}, 0, "seal_key:"},
		"help":              {[]string{"-h"}, 0, "-config"},
		"no file named":     {nil, 2, "-config"},
		"unknown flag":      {[]string{"-x"}, 2, "-x"},
		"file is missing":   {[]string{"-config", good + "x"}, 1, "no such file"},
		"unknown field":     {[]string{"-check", "-config", bad}, 1, "bad.yaml:2: instance.kez"},
		"open without TLS":  {[]string{"-check", "-config", open}, 1, "instance.rpc.addr"},
		"serve without TLS": {[]string{"-config", open}, 1, "has no TLS"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := command(t, tt.args...)
			out, err := c.CombinedOutput()
			if code := c.ProcessState.ExitCode(); code != tt.code ||
				!strings.Contains(string(out), tt.words) {
				t.Errorf("%v: exit %d, %v, want %d with %q:\n%s", tt.args, code, err, tt.code,
					tt.words, out)
			}
		})
	}
}

// TestServes runs a whole process on loopback without TLS until it is told to stop.
func TestServes(t *testing.T) {
	c := command(t, "-config", newDesk(t).file(t, "127.0.0.1:0"))
	logs, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(30*time.Second, func() { _ = c.Process.Kill() }).Stop() // ends all below
	lines, addr := bufio.NewScanner(logs), ""
	var seen []string
	for addr == "" && lines.Scan() {
		seen = append(seen, lines.Text())
		if _, rest, found := strings.Cut(lines.Text(), " addr="); found {
			addr, _, _ = strings.Cut(rest, " ")
		}
	}
	if addr == "" {
		t.Fatalf("it does not say where it serves:\n%s", strings.Join(seen, "\n"))
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{},
		grpc.WaitForReady(true))
	if err != nil || r.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health %v, %v", r, err)
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(logs)
	if err := errors.Join(err, c.Wait()); err != nil {
		t.Errorf("stopped with %v:\n%s", err, rest)
	}
}

// TestLoginAndTarget: what Open makes is good for the bus.
func TestLoginAndTarget(t *testing.T) {
	i, err := newDesk(t).open(t)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Identity.Target(); err != nil {
		t.Error(err)
	}
	if _, err := bus.InstanceLogin(i.Identity.Key, i.Identity.Certificate); err != nil {
		t.Error(err)
	}
}
