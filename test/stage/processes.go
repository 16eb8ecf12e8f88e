package stage

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	brokerwire "github.com/united-containers/ucn/kit/broker/wire"
	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/kit/network"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/submit"
	executorwire "github.com/united-containers/ucn/services/executor/wire"
	gatewaywire "github.com/united-containers/ucn/services/gateway/wire"
	ledgerwire "github.com/united-containers/ucn/services/ledger/wire"
	schedulerwire "github.com/united-containers/ucn/services/scheduler/wire"
	storagewire "github.com/united-containers/ucn/services/storage/wire"
	"github.com/united-containers/ucn/wiring"
)

// Program is the package of the binary that users and operators have.
const Program = "github.com/united-containers/ucn/cmd/ucn"

// Build builds the binary into a folder.
func Build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "ucn")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, Program)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return path, nil
}

// The services of a network of processes, in the order in which they start.
const (
	Ledger    = "ledger"
	Broker    = "broker"
	Storage   = "storage"
	Scheduler = "scheduler"
	HostAlpha = "alpha-1"
	HostBeta  = "beta-1"
	Gateway   = "gateway"
)

// feeMoney is what each instance that submits gets for fees.
const feeMoney = 100 * UCN

// plan is a network of processes before it runs.
type plan struct {
	*Network
	binary  string
	genesis *block.Genesis
	alpha   sig.AccountID
	addrs   map[string]string // of services, and "bus"
}

// Processes founds a network and runs every service in a process of the binary.
func Processes(ctx context.Context, binary string) (_ *Network, err error) {
	spans, err := newSpans(ctx)
	if err != nil {
		return nil, err
	}
	n := &Network{Spans: spans, Services: map[string]*Service{}}
	n.closers = append(n.closers, spans.close)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.Dir, err = NewDir(); err != nil {
		return nil, err
	}
	p := &plan{Network: n, binary: binary, addrs: map[string]string{}}
	if p.genesis, n.Operators, err = found(n.Dir); err != nil {
		return nil, err
	}
	p.alpha = sig.AccountOfKey(n.Operators[wiring.Alpha].Public())
	if err := p.prepare(); err != nil {
		return nil, err
	}
	return n, p.run(ctx)
}

// prepare writes every service's configuration.
func (p *plan) prepare() error {
	err := p.findPorts(Ledger, Broker, "bus", Storage, Scheduler, HostAlpha, HostBeta, Gateway, "rest")
	if err != nil {
		return err
	}
	steps := []func() error{
		p.ledger, p.broker, p.storage, p.scheduler, p.gateway,
		func() error { return p.executor(HostAlpha, wiring.Alpha, UCN) },
		func() error { return p.executor(HostBeta, wiring.Beta, UCN*12/10) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	anchor := p.genesis.Anchor()
	p.File = network.File{
		API: p.addrs[Ledger], REST: "http://" + p.addrs["rest"], Bus: "nats://" + p.addrs["bus"],
		Chain:    p.genesis.Chain,
		Services: map[string]string{Storage: p.addrs[Storage], Scheduler: p.addrs[Scheduler]},
		Anchor:   hex.EncodeToString(anchor[:]), Operator: id.Bech32(id.Account, p.alpha),
		Genesis: filepath.Join(p.Dir, "genesis.bin"),
	}
	return network.Save(network.Path(p.Dir), p.File)
}

// findPorts finds a port for each name. All are held until all are found: one that was let go may
// be given out again.
func (p *plan) findPorts(names ...string) (err error) {
	for _, name := range names {
		listener, bad := net.Listen("tcp", anyPort)
		if bad != nil {
			return fmt.Errorf("find a port: %w", bad)
		}
		defer func() { err = errors.Join(err, listener.Close()) }()
		p.addrs[name] = listener.Addr().String()
	}
	return nil
}

// run starts the services, each when those it needs are there.
func (p *plan) run(ctx context.Context) error {
	p.closers = append(p.closers, p.stop)
	if err := p.Services[Ledger].Start(ctx); err != nil {
		return err
	}
	if err := p.openBank(ctx); err != nil {
		return err
	}
	if err := p.fund(ctx); err != nil {
		return err
	}
	for _, name := range []string{Broker, Storage, Scheduler, HostAlpha, HostBeta, Gateway} {
		if err := p.Services[name].Start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stop ends the services, those first that need others.
func (p *plan) stop() error {
	var all []error
	for _, name := range []string{Gateway, HostBeta, HostAlpha, Scheduler, Storage, Broker, Ledger} {
		if s := p.Services[name]; s != nil {
			all = append(all, s.Stop())
		}
	}
	return errors.Join(all...)
}

// fund gives instances that submit transactions something to pay fees with.
func (p *plan) fund(ctx context.Context) error {
	for operator, names := range map[string][]string{
		wiring.Alpha: {Scheduler, HostAlpha}, wiring.Beta: {HostBeta},
	} {
		var operations []tx.Operation
		for _, name := range names {
			i, _, err := instance.LoadIdentity(files(p.Dir, name), serviceOf(name))
			if err != nil {
				return err
			}
			operations = append(operations,
				&tx.Transfer{To: sig.AccountOfKey(i.Key.Public()), Amount: feeMoney})
		}
		sender := submit.New(submit.Config{
			Ledger: p.bank.Ledger, Key: p.Operators[operator], Chain: p.genesis.Chain,
			Anchor: p.genesis.Anchor(), Now: p.bank.Now,
		})
		_, err := sender.Send(ctx, operations...)
		sender.Close()
		if err != nil {
			return fmt.Errorf("fund the instances of %s: %w", operator, err)
		}
	}
	return nil
}

func serviceOf(name string) string {
	if name == HostAlpha || name == HostBeta {
		return "executor"
	}
	return name
}

// instance certifies an instance and says where everything is.
func (p *plan) instance(name, operator string, peers ...string) (instance.Config, error) {
	c := files(p.Dir, name)
	if _, err := certify(p.Dir, name, serviceOf(name), p.Operators[operator]); err != nil {
		return c, err
	}
	c.Broker = "nats://" + p.addrs["bus"]
	c.RPC.Addr = p.addrs[name]
	c.Telemetry.Endpoint = p.Spans.Endpoint
	c.Client.Peers = map[string]rpc.Peer{}
	c.Operators = map[string]string{}
	for _, peer := range peers {
		c.Client.Peers[peer] = rpc.Peer{Addr: p.addrs[peer]}
		c.Operators[peer] = id.Bech32(id.Account, p.alpha)
	}
	return c, nil
}

// write writes a configuration and adds the service.
func (p *plan) write(name string, cfg any) error {
	path := filepath.Join(p.Dir, "instances", name, "config.yaml")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("configure %s: %w", name, err)
	}
	if err := errors.Join(config.Write(file, cfg), file.Close()); err != nil {
		return fmt.Errorf("configure %s: %w", name, err)
	}
	p.Services[name] = &Service{
		Name: name, Addr: p.addrs[name], binary: p.binary, config: path, service: serviceOf(name),
		log: filepath.Join(p.Dir, "logs", name+".log"), healthy: serving,
	}
	return nil
}

// dir makes a service's folder.
func (p *plan) dir(name string) (string, error) {
	path := filepath.Join(p.Dir, "data", name)
	if err := os.MkdirAll(path, passable); err != nil {
		return "", fmt.Errorf("make the folder of %s: %w", name, err)
	}
	return path, nil
}

func (p *plan) ledger() error {
	c := ledgerwire.Default()
	var err error
	if c.Dir, err = p.dir(Ledger); err != nil {
		return err
	}
	own := files(p.Dir, Ledger)
	c.Operator = id.Bech32(id.Account, p.alpha)
	c.Chains = []ledgerwire.ChainConfig{{
		Genesis: own.Genesis, ProposerKey: own.Key, FaucetKey: filepath.Join(p.Dir, "faucet.key"),
	}}
	c.RPC.Addr = p.addrs[Ledger]
	c.Telemetry.Endpoint = p.Spans.Endpoint
	return p.write(Ledger, c)
}

func (p *plan) broker() error {
	c := brokerwire.Default()
	var err error
	if c.Instance, err = p.instance(Broker, wiring.Alpha, Ledger); err != nil {
		return err
	}
	c.Listen = p.addrs["bus"]
	beta := sig.AccountOfKey(p.Operators[wiring.Beta].Public())
	c.Operators = []string{id.Bech32(id.Account, beta)}
	if c.Dir, err = p.dir(Broker); err != nil {
		return err
	}
	return p.write(Broker, c)
}

func (p *plan) storage() error {
	c := storagewire.Default()
	var err error
	if c.Instance, err = p.instance(Storage, wiring.Alpha, Ledger); err != nil {
		return err
	}
	if c.Dir, err = p.dir(Storage); err != nil {
		return err
	}
	p.StorageDir = c.Dir
	return p.write(Storage, storagewire.File{Config: c})
}

func (p *plan) scheduler() error {
	c := schedulerwire.Default()
	var err error
	if c.Instance, err = p.instance(Scheduler, wiring.Alpha, Ledger); err != nil {
		return err
	}
	if c.Dir, err = p.dir(Scheduler); err != nil {
		return err
	}
	return p.write(Scheduler, schedulerwire.File{Config: c})
}

func (p *plan) gateway() error {
	c := gatewaywire.Default()
	var err error
	if c.Instance, err = p.instance(Gateway, wiring.Alpha, Ledger, Storage, Scheduler); err != nil {
		return err
	}
	c.HTTP.Addr = p.addrs["rest"]
	return p.write(Gateway, gatewaywire.File{Config: c})
}

func (p *plan) executor(name, operator string, core tx.Grains) error {
	c := executorwire.Default()
	var err error
	if c.Instance, err = p.instance(name, operator, Ledger, Storage); err != nil {
		return err
	}
	if c.Dir, err = p.dir(name); err != nil {
		return err
	}
	c.Name, c.Agent.Host = name, name
	c.Engine.Dir = filepath.Join(c.Dir, "engine")
	p.Engines = append(p.Engines, c.Engine.Dir)
	c.Agent.Prices.CoreHour = uint64(core)
	c.Agent.Capacity.Memory = hostMemory
	return p.write(name, executorwire.File{Config: c})
}

// hostMemory is what each host sells.
const hostMemory = 2 << 30
