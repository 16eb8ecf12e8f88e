package stage

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/wiring"
)

const (
	private         = 0o700
	certificateLife = 24 * time.Hour
)

// files names an instance's files in a data folder.
func files(dir, name string) instance.Config {
	own := filepath.Join(dir, "instances", name)
	c := instance.Default()
	c.Key, c.SealKey = filepath.Join(own, "instance.key"), filepath.Join(own, "seal.key")
	c.Certificate = filepath.Join(own, "certificate.pem")
	c.Genesis = filepath.Join(dir, "genesis.bin")
	return c
}

// certify makes an instance's keys and has its operator certify them.
func certify(dir, name, service string, operator sig.PrivateKey) (bus.Identity, error) {
	c := files(dir, name)
	out := bus.Identity{Service: service}
	if err := os.MkdirAll(filepath.Dir(c.Key), private); err != nil {
		return out, fmt.Errorf("make an instance's folder: %w", err)
	}
	var err error
	if out.Key, err = keys.LoadOrCreateSigning(c.Key); err != nil {
		return out, fmt.Errorf("instance %s: %w", name, err)
	}
	if out.Seal, err = keys.LoadOrCreateSealing(c.SealKey); err != nil {
		return out, fmt.Errorf("instance %s: %w", name, err)
	}
	now := time.Now()
	out.Certificate, err = cert.Issue(keys.SingleSigner(operator), cert.Certificate{
		Chain: block.Main, InstanceKey: out.Key.Public(), SealKey: out.Seal.Public(),
		Services: []string{service}, NotBefore: now.Add(-time.Minute),
		NotAfter: now.Add(certificateLife), Serial: uint64(now.UnixNano()),
	})
	if err != nil {
		return out, fmt.Errorf("certify %s: %w", name, err)
	}
	if err := os.WriteFile(c.Certificate, cert.Text(out.Certificate), 0o600); err != nil {
		return out, fmt.Errorf("certify %s: %w", name, err)
	}
	return out, nil
}

// found makes operators, wallets and the genesis of a network in a folder.
func found(dir string) (*block.Genesis, map[string]sig.PrivateKey, error) {
	for _, sub := range []string{"operators", "wallets", "instances", "logs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), private); err != nil {
			return nil, nil, fmt.Errorf("found a network: %w", err)
		}
	}
	made := map[string]sig.PrivateKey{}
	var all []error
	for name, path := range map[string]string{
		wiring.Alpha: "operators/alpha.key", wiring.Beta: "operators/beta.key",
		"faucet": "faucet.key", "wallet": "wallets/default.key",
	} {
		key, err := keys.LoadOrCreateSigning(filepath.Join(dir, path))
		made[name] = key
		all = append(all, err)
	}
	if err := errors.Join(all...); err != nil {
		return nil, nil, fmt.Errorf("found a network: %w", err)
	}
	ledger, err := certify(dir, "ledger", "ledger", made[wiring.Alpha])
	if err != nil {
		return nil, nil, err
	}
	account := func(name string) sig.AccountID { return sig.AccountOfKey(made[name].Public()) }
	var nonce [32]byte
	_, _ = rand.Read(nonce[:]) // never fails: crypto/rand ends the process instead
	genesis, err := block.Local(nonce, tx.Millis(time.Now().UnixMilli()), ledger.Key.Public(),
		block.LocalAccounts{
			Faucet: account("faucet"), Wallet: account("wallet"),
			Operators: [2]sig.AccountID{account(wiring.Alpha), account(wiring.Beta)},
		})
	if err != nil {
		return nil, nil, fmt.Errorf("found a network: %w", err)
	}
	path := filepath.Join(dir, "genesis.bin")
	if err := os.WriteFile(path, genesis.Append(nil), 0o600); err != nil {
		return nil, nil, fmt.Errorf("found a network: %w", err)
	}
	return genesis, made, nil
}
