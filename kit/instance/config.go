package instance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/clock"
	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/telemetry"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// Config is what the configuration file of every service's own process has in common.
type Config struct {
	// Key is the file of the instance's ed25519 key. Made when it is missing.
	Key string `yaml:"key"`
	// SealKey is the file of its X25519 key. Made when it is missing.
	SealKey string `yaml:"seal_key"`
	// Certificate is the PEM file in which the operator's account names this instance. Needed.
	Certificate string `yaml:"certificate"`
	// Genesis is the file of the chain's genesis, canonical bytes. Needed.
	Genesis string `yaml:"genesis"`
	// Epoch is the file that `ucn event epoch` wrote after this instance was restored from a backup.
	// It may stay. Default none.
	Epoch string `yaml:"epoch"`
	// Broker is the NATS address, such as "tls://broker.example:7622". Needed by services that
	// use the bus or events.
	Broker string `yaml:"broker"`
	// Operators names the operator account (ucn1...) of each peer service that is not our own
	// operator's.
	Operators map[string]string `yaml:"operators"`
	// Client says where the peers are.
	Client rpc.ClientConfig `yaml:"client"`
	// RPC is where this service listens.
	RPC rpc.ServerConfig `yaml:"rpc"`
	// Telemetry says where traces, metrics and logs go.
	Telemetry telemetry.Config `yaml:"telemetry"`
}

// Default returns the defaults; key, seal_key, certificate and genesis are still needed.
func Default() Config {
	return Config{
		Client: rpc.DefaultClient(), RPC: rpc.DefaultServer(), Telemetry: telemetry.Default(),
	}
}

// Validate names the field that is wrong.
func (c Config) Validate() error {
	for field, path := range map[string]string{
		"key": c.Key, "seal_key": c.SealKey, "certificate": c.Certificate, "genesis": c.Genesis,
	} {
		if path == "" {
			return config.Invalid(field, "name the file")
		}
	}
	if _, err := c.operators(); err != nil {
		return err
	}
	if err := c.Client.Validate(); err != nil {
		return config.Under("client", err)
	}
	if err := c.RPC.Validate(); err != nil {
		return config.Under("rpc", err)
	}
	return config.Under("telemetry", c.Telemetry.Validate())
}

func (c Config) operators() (map[string]sig.AccountID, error) {
	out := map[string]sig.AccountID{}
	for service, text := range c.Operators {
		account, err := id.ParseBech32(id.Account, text)
		if err != nil {
			return nil, config.Invalid("operators."+service, "%v", err)
		}
		out[service] = account
	}
	return out, nil
}

// LoadGenesis reads a genesis file and judges it.
func LoadGenesis(path string) (*block.Genesis, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read genesis: %w", err)
	}
	g, err := block.DecodeGenesis(raw)
	if err == nil {
		err = g.Validate()
	}
	if err != nil {
		return nil, fmt.Errorf("genesis %s: %w", path, err)
	}
	return g, nil
}

// LoadIdentity reads or makes an instance's keys and reads its certificate.
func LoadIdentity(c Config, service string) (bus.Identity, cert.Certificate, error) {
	out := bus.Identity{Service: service}
	var err error
	if out.Key, err = keys.LoadOrCreateSigning(c.Key); err != nil {
		return out, cert.Certificate{}, fmt.Errorf("instance key: %w", err)
	}
	if out.Seal, err = keys.LoadOrCreateSealing(c.SealKey); err != nil {
		return out, cert.Certificate{}, fmt.Errorf("seal key: %w", err)
	}
	text, err := os.ReadFile(c.Certificate)
	if err != nil {
		return out, cert.Certificate{}, fmt.Errorf(
			"read certificate (the operator issues it for key %s): %w", out.Key.Public(), err)
	}
	if out.Certificate, err = cert.ParseText(text); err != nil {
		return out, cert.Certificate{}, fmt.Errorf("certificate %s: %w", c.Certificate, err)
	}
	certificate, _, err := cert.Decode(out.Certificate)
	if err != nil {
		return out, cert.Certificate{}, fmt.Errorf("certificate %s: %w", c.Certificate, err)
	}
	switch {
	case certificate.InstanceKey != out.Key.Public() || certificate.SealKey != out.Seal.Public():
		err = fmt.Errorf("certificate %s is for other keys", c.Certificate)
	case !certificate.Covers(service):
		err = fmt.Errorf("certificate %s does not name the service %q", c.Certificate, service)
	}
	return out, certificate, err
}

// Open makes the Instance of a process of its own. It connects to nothing yet.
func Open(
	ctx context.Context, c Config, service string, process *telemetry.Telemetry,
) (*Instance, error) {
	identity, certificate, err := LoadIdentity(c, service)
	if err != nil {
		return nil, err
	}
	genesis, err := LoadGenesis(c.Genesis)
	if err != nil {
		return nil, err
	}
	told, err := process.Service(service)
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	operators, err := c.operators()
	if err != nil {
		return nil, err
	}
	dialer, err := rpc.NewDialer(c.Client, rpc.ClientDeps{
		Tracers: told.Tracers, Meters: told.Meters,
		Tokens:  NewTokens(identity.Key, genesis.Chain, certificate.Operator, operators),
		Origins: NewOrigins(identity, certificate.Operator, operators, time.Now),
	})
	if err != nil {
		return nil, fmt.Errorf("peers: %w", err)
	}
	i := &Instance{
		Service: service, Identity: identity, Certificate: certificate, Chain: genesis.Chain,
		Anchor: genesis.Anchor(), Dialer: dialer, Telemetry: told, Now: time.Now,
		Steady: clock.New(clock.Deps{Log: told.Log}),
	}
	i.Connect = func(name string) (*nats.Conn, error) {
		login, err := bus.InstanceLogin(identity.Key, identity.Certificate)
		if err != nil {
			return nil, err
		}
		return bus.Connect(c.Broker, name, login, told.Log)
	}
	if _, has := c.Client.Peers["ledger"]; has {
		conn, err := dialer.Dial(ctx, "ledger")
		if err != nil {
			return nil, fmt.Errorf("ledger: %w", err)
		}
		i.Sets = LedgerSets{Ledger: ledgerv1.NewLedgerServiceClient(conn)}
	}
	if c.Epoch != "" {
		if i.Epoch, err = os.ReadFile(c.Epoch); err != nil {
			return nil, fmt.Errorf("epoch: %w", err)
		}
		if err := i.judgeEpoch(ctx); err != nil {
			return nil, fmt.Errorf("epoch %s: %w", c.Epoch, err)
		}
	}
	if err := i.judgeOwn(ctx); err != nil {
		return nil, fmt.Errorf("certificate %s: %w", c.Certificate, err)
	}
	return i, nil
}

// judgeTimeout bounds asking the ledger for the operator's key set at the start.
const judgeTimeout = 5 * time.Second

// judgeEpoch holds the operator's word of a restore against the instance. A ledger that is away is
// no reason not to start: peers judge for themselves.
func (i *Instance) judgeEpoch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, judgeTimeout)
	defer cancel()
	e, err := event.VerifyEpoch(ctx, i.Epoch, i.Sets)
	switch {
	case errors.Is(err, keys.ErrLookup):
		return nil
	case err != nil:
		return err
	case e.Instance != i.Identity.Key.Public() || e.Operator != i.Operator():
		return fmt.Errorf("%w: it is of another instance", event.ErrEpochInvalid)
	}
	return nil
}

// judgeOwn judges the instance's own certificate, so that a wrong one is told here and not by
// peers. A ledger that is away is no reason not to start: peers judge for themselves.
func (i *Instance) judgeOwn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, judgeTimeout)
	defer cancel()
	_, _, err := i.Judge().Verify(ctx, i.Identity.Certificate)
	if errors.Is(err, keys.ErrLookup) {
		i.Telemetry.Log.WarnContext(ctx, "cannot judge the own certificate now", "error", err)
		return nil
	}
	return err
}
