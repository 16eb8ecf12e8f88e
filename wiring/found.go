package wiring

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/space"
)

// certificateLife is how long the certificates of a local network hold; they are renewed at each
// start that finds less than half of it left.
const certificateLife = 365 * 24 * time.Hour

// ErrInUse: another process runs on the same data folder.
var ErrInUse = errors.New("the data folder is in use")

// home is the data folder of a network that this process holds.
type home struct {
	dir  string
	lock *os.File

	genesis   *block.Genesis
	operators map[string]sig.PrivateKey
	faucet    sig.PrivateKey
}

// openHome locks the folder and reads the network in it, founding it first if there is none.
func openHome(dir string, now time.Time) (*home, error) {
	// Inputs of containers lie below: others must be able to pass, not to look.
	const passable = 0o711
	if err := errors.Join(os.MkdirAll(dir, passable), os.Chmod(dir, passable)); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	if err := CheckRoom(dir); err != nil {
		return nil, err
	}
	for _, sub := range []string{"operators", "wallets", "instances"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("make the data folder: %w", err)
		}
	}
	h := &home{dir: dir, operators: map[string]sig.PrivateKey{}}
	if err := h.takeLock(); err != nil {
		return nil, err
	}
	if err := h.found(now); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// CheckRoom refuses to start on a disk that is full: stores that find no room while they open end
// the process, or try again without end. The folder must exist.
func CheckRoom(dir string) error {
	if err := (space.Guard{Dir: dir}).Check(); err != nil {
		return fmt.Errorf("the disk is full; make room, or use another folder (--data): %w", err)
	}
	return nil
}

func (h *home) path(parts ...string) string {
	return filepath.Join(append([]string{h.dir}, parts...)...)
}

// takeLock makes sure that one process uses the folder, and says which one does.
func (h *home) takeLock() error {
	file, err := os.OpenFile(h.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open the lock: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder := make([]byte, 32)
		n, _ := file.ReadAt(holder, 0)
		file.Close()
		return fmt.Errorf("%w: process %s runs on %s; stop it (`ucn down`) or use another "+
			"folder (--data)", ErrInUse, holder[:n], h.dir)
	}
	text := fmt.Sprint(os.Getpid())
	if err := errors.Join(file.Truncate(0), writeAt(file, text)); err != nil {
		file.Close()
		return fmt.Errorf("write the lock: %w", err)
	}
	h.lock = file
	return nil
}

func writeAt(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text), 0)
	return err
}

func (h *home) close() error { return h.lock.Close() }

// found reads keys and genesis, making what is missing. The genesis is written last: without it
// the folder holds no network yet, and a start that was broken off goes on where it stopped.
func (h *home) found(now time.Time) error {
	var err error
	for _, name := range []string{Alpha, Beta} {
		path := h.path("operators", name+".key")
		if h.operators[name], err = keys.LoadOrCreateSigning(path); err != nil {
			return fmt.Errorf("operator %s: %w", name, err)
		}
	}
	if h.faucet, err = keys.LoadOrCreateSigning(h.path("faucet.key")); err != nil {
		return fmt.Errorf("faucet: %w", err)
	}
	wallet, err := keys.LoadOrCreateSigning(h.path("wallets", "default.key"))
	if err != nil {
		return fmt.Errorf("default wallet: %w", err)
	}
	path := h.path("genesis.bin")
	h.genesis, err = instance.LoadGenesis(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	proposer, err := keys.LoadOrCreateSigning(h.instance("ledger").Key)
	if err != nil {
		return fmt.Errorf("proposer: %w", err)
	}
	var nonce [32]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return fmt.Errorf("draw the genesis nonce: %w", err)
	}
	h.genesis, err = block.Local(nonce, tx.Millis(now.UnixMilli()), proposer.Public(),
		block.LocalAccounts{
			Faucet: account(h.faucet), Wallet: account(wallet),
			Operators: [2]sig.AccountID{h.operator(Alpha), h.operator(Beta)},
		})
	if err != nil {
		return fmt.Errorf("make the genesis: %w", err)
	}
	if err := replaceFile(path, h.genesis.Append(nil)); err != nil {
		return fmt.Errorf("write the genesis: %w", err)
	}
	return nil
}

// replaceFile puts a file in place as a whole, durably.
func replaceFile(path string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // fails once it has its name
	_, err = temp.Write(data)
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func account(key sig.PrivateKey) sig.AccountID { return sig.AccountOfKey(key.Public()) }

func (h *home) operator(name string) sig.AccountID { return account(h.operators[name]) }

// instance says where an instance's keys and certificate are.
func (h *home) instance(name string) instance.Config {
	dir := h.path("instances", name)
	_ = os.MkdirAll(dir, 0o700) // what fails here fails again, with a reason, when it is used
	c := instance.Default()
	c.Key, c.SealKey = filepath.Join(dir, "instance.key"), filepath.Join(dir, "seal.key")
	c.Certificate, c.Genesis = filepath.Join(dir, "certificate.pem"), h.path("genesis.bin")
	return c
}

// certify reads an instance's identity and renews its certificate when it is missing, old, or not
// of this network.
func (h *home) certify(
	name, service, operator string, now time.Time,
) (bus.Identity, cert.Certificate, error) {
	c := h.instance(name)
	identity, certificate, err := instance.LoadIdentity(c, service)
	fresh := err == nil && certificate.Operator == h.operator(operator) &&
		certificate.NotAfter.Sub(now) > certificateLife/2
	if fresh {
		return identity, certificate, nil
	}
	key, err := keys.LoadOrCreateSigning(c.Key)
	if err != nil {
		return bus.Identity{}, cert.Certificate{}, fmt.Errorf("instance %s: %w", name, err)
	}
	seal, err := keys.LoadOrCreateSealing(c.SealKey)
	if err != nil {
		return bus.Identity{}, cert.Certificate{}, fmt.Errorf("instance %s: %w", name, err)
	}
	raw, err := cert.Issue(keys.SingleSigner(h.operators[operator]), cert.Certificate{
		Chain: h.genesis.Chain, InstanceKey: key.Public(), SealKey: seal.Public(),
		Services: []string{service}, NotBefore: now.Add(-time.Hour),
		NotAfter: now.Add(certificateLife), Serial: uint64(now.UnixNano()),
	})
	if err != nil {
		return bus.Identity{}, cert.Certificate{}, fmt.Errorf("certify %s: %w", name, err)
	}
	if err := replaceFile(c.Certificate, cert.Text(raw)); err != nil {
		return bus.Identity{}, cert.Certificate{}, fmt.Errorf("certify %s: %w", name, err)
	}
	return instance.LoadIdentity(c, service)
}

// open makes an Instance of the network for a service. What is common to all comes from the caller.
func (h *home) open(
	ctx context.Context, name, service, operator string, from *instance.Instance,
) (*instance.Instance, error) {
	identity, certificate, err := h.certify(name, service, operator, from.Now())
	if err != nil {
		return nil, err
	}
	judge := cert.Verifier{Chains: []string{h.genesis.Chain}, Now: from.Now}
	if _, _, err := judge.Verify(ctx, identity.Certificate); err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", name, err)
	}
	i := *from
	i.Service, i.Identity, i.Certificate = service, identity, certificate
	i.Chain, i.Anchor = h.genesis.Chain, h.genesis.Anchor()
	return &i, nil
}
