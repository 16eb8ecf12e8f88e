package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/session"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/network"
)

// passable is the mode of folders that containers must get through to their inputs.
const passable = 0o711

// Network is a network that runs. Close it.
type Network struct {
	// Dir is its data folder: network.json, genesis.bin, wallets/default.key, instances/<name>.
	Dir  string
	File network.File
	// Spans are what the services, and clients with its telemetry, have traced.
	Spans *Spans
	// Operators are the accounts of alpha, which runs all services, and beta, which hosts.
	Operators map[string]sig.PrivateKey
	// Services in processes of their own by name; nil when all are in this one.
	Services map[string]*Service
	// StorageDir is where the storage keeps its blobs.
	StorageDir string
	// Engines are the folders of the hosts' container engines.
	Engines []string

	bank    *session.Session // of the default wallet
	closers []func() error

	mu     sync.Mutex // guards owners
	owners int
}

// Bank is the session of the default wallet, which has 10,000 UCN.
func (n *Network) Bank() *session.Session { return n.bank }

// Owner makes a wallet with some money and its own data folder, as a user of the network has.
func (n *Network) Owner(ctx context.Context, amount tx.Grains) (*Owner, error) {
	n.mu.Lock()
	n.owners++
	dir := filepath.Join(n.Dir, "owners", fmt.Sprint(n.owners))
	n.mu.Unlock()
	if err := os.MkdirAll(filepath.Join(dir, "wallets"), 0o700); err != nil {
		return nil, fmt.Errorf("make an owner's folder: %w", err)
	}
	key, err := keys.LoadOrCreateSigning(filepath.Join(dir, "wallets", "default.key"))
	if err != nil {
		return nil, fmt.Errorf("make an owner: %w", err)
	}
	if err := network.Save(network.Path(dir), n.File); err != nil {
		return nil, err
	}
	account := sig.AccountOfKey(key.Public())
	if amount > 0 {
		_, err := n.bank.Sender.Send(ctx, &tx.Transfer{To: account, Amount: amount})
		if err != nil {
			return nil, fmt.Errorf("fund an owner: %w", err)
		}
	}
	s, err := n.Session(ctx, key)
	if err != nil {
		return nil, err
	}
	return &Owner{Session: s, Key: key, Account: account, Dir: dir}, nil
}

// Owner is a user of a network. Close its session.
type Owner struct {
	*session.Session
	Key     sig.PrivateKey
	Account sig.AccountID
	// Dir is a data folder for the command line: network.json and wallets/default.key.
	Dir string
}

// Session connects a key to the network.
func (n *Network) Session(ctx context.Context, key sig.PrivateKey) (*session.Session, error) {
	told, err := n.Spans.telemetry.Service("cli")
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	s, err := session.Open(ctx, session.Config{Network: n.File, Key: key, Telemetry: told})
	if err != nil {
		return nil, fmt.Errorf("connect to the network: %w", err)
	}
	return s, nil
}

// Identity is an instance's keys and its certificate by one of the network's operators, made anew.
func (n *Network) Identity(name, service, operator string) (bus.Identity, error) {
	return certify(n.Dir, name, service, n.Operators[operator])
}

// Target tells where an instance of the network is asked. Only for networks of processes.
func (n *Network) Target(name, service string) (bus.Target, error) {
	text, err := os.ReadFile(filepath.Join(n.Dir, "instances", name, "certificate.pem"))
	if err != nil {
		return bus.Target{}, fmt.Errorf("read a certificate: %w", err)
	}
	raw, err := cert.ParseText(text)
	if err != nil {
		return bus.Target{}, err
	}
	c, _, err := cert.Decode(raw)
	if err != nil {
		return bus.Target{}, err
	}
	return bus.TargetOf(c, service)
}

// Close ends everything and removes the folder. Errors tell what could not be cleaned up.
func (n *Network) Close() error {
	var all []error
	for i := len(n.closers) - 1; i >= 0; i-- {
		all = append(all, n.closers[i]())
	}
	n.closers = nil
	for _, dir := range n.Engines {
		all = append(all, Wipe(dir))
	}
	return errors.Join(append(all, os.RemoveAll(n.Dir))...)
}

// openBank connects the default wallet.
func (n *Network) openBank(ctx context.Context) error {
	key, err := keys.LoadOrCreateSigning(filepath.Join(n.Dir, "wallets", "default.key"))
	if err != nil {
		return fmt.Errorf("default wallet: %w", err)
	}
	if n.bank, err = n.Session(ctx, key); err != nil {
		return err
	}
	n.closers = append(n.closers, n.bank.Close)
	return nil
}

// NewDir makes a data folder that containers can pass through.
func NewDir() (string, error) {
	dir, err := os.MkdirTemp("", "ucn-stage-")
	if err != nil {
		return "", fmt.Errorf("make a data folder: %w", err)
	}
	return dir, errors.Join(os.Chmod(dir, passable))
}

// UCN as a number of grains.
const UCN = tx.Grains(block.UCN)
