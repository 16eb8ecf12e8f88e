package ledgertest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/ledger"
)

// Each is what every account of a Network begins with.
const Each = 8 * block.UCN

// Network is a genesis whose keys are known: an operator that proposes, a faucet, and accounts.
type Network struct {
	Genesis  *block.Genesis
	Anchor   sig.Anchor
	Proposer sig.PrivateKey
	Faucet   sig.PrivateKey
	Keys     []sig.PrivateKey
	Accounts []sig.AccountID
	// Fee is the cap of every transaction, ValidFor how long it is valid from Now.
	Fee      tx.Grains
	ValidFor time.Duration
	Now      func() time.Time
}

// NewNetwork makes one with so many accounts. The same seed makes the same keys; networks with
// different seeds share no signature although both chains are called main.
func NewNetwork(seed uint64, accounts int) (*Network, error) {
	n := &Network{
		Proposer: seededKey(seed, "proposer", 0), Faucet: seededKey(seed, "faucet", 0),
		Fee: block.UCN / 100, ValidFor: time.Hour, Now: time.Now,
	}
	operator := sig.AccountOfKey(n.Proposer.Public())
	faucet := sig.AccountOfKey(n.Faucet.Public())
	g := &block.Genesis{
		Chain: block.Main, Nonce: sha256.Sum256(seedBytes(seed, "nonce", 0)),
		Time:   tx.Millis(n.Now().Add(-time.Second).UnixMilli()),
		Params: block.LocalParams(), RulesVersion: block.RulesVersion,
		Orderer: block.OrdererSolo, Faucet: faucet, FaucetAmount: block.UCN,
		Allocations: []block.Allocation{{Account: operator, Amount: Each},
			{Account: faucet, Amount: Each}},
		Validators: block.ValidatorSet{Validators: []block.Validator{
			{Key: n.Proposer.Public(), Account: operator, Operator: operator},
		}},
	}
	for i := range accounts {
		key := seededKey(seed, "account", uint64(i))
		account := sig.AccountOfKey(key.Public())
		n.Keys, n.Accounts = append(n.Keys, key), append(n.Accounts, account)
		g.Allocations = append(g.Allocations, block.Allocation{Account: account, Amount: Each})
	}
	slices.SortFunc(g.Allocations, func(a, b block.Allocation) int {
		return bytes.Compare(a.Account[:], b.Account[:])
	})
	if err := g.Validate(); err != nil {
		return nil, fmt.Errorf("network of %d accounts: %w", accounts, err)
	}
	n.Genesis, n.Anchor = g, g.Anchor()
	return n, nil
}

func seedBytes(seed uint64, what string, i uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte("ucn/ledgertest/"+what), seed)
	return binary.BigEndian.AppendUint64(b, i)
}

func seededKey(seed uint64, what string, i uint64) sig.PrivateKey {
	return sig.FromSeed(sha256.Sum256(seedBytes(seed, what, i)))
}

// Transfer returns the bytes of a signed transfer between two accounts.
func (n *Network) Transfer(from, to int, nonce uint64, amount tx.Grains) []byte {
	return n.Sign(from, n.Body(from, nonce, &tx.Transfer{To: n.Accounts[to], Amount: amount}))
}

// Body returns a body of operations by an account, to be changed before it is signed.
func (n *Network) Body(from int, nonce uint64, operations ...tx.Operation) tx.Body {
	return tx.Body{
		Chain: block.Main, Account: n.Accounts[from], Nonce: nonce, Fee: n.Fee,
		ValidUntil: tx.Millis(n.Now().Add(n.ValidFor).UnixMilli()), Operations: operations,
	}
}

// Sign returns the bytes of a body signed by an account's key; it panics if the body cannot be
// signed. The key set goes along with nonce 0.
func (n *Network) Sign(from int, body tx.Body) []byte {
	key := n.Keys[from]
	t, err := tx.Sign(body, n.Anchor, sig.SingleKey(key.Public()), body.Nonce == 0, key)
	if err != nil {
		panic("ledgertest: " + err.Error())
	}
	return t.Append(nil)
}

// MaxStep is the chain's max_step, which an orderer's heartbeat follows from.
func (n *Network) MaxStep() time.Duration {
	return time.Duration(n.Genesis.Params.MaxStep) * time.Millisecond
}

// Start opens a chain and runs it until the test ends or stop is called, which returns Run's
// error.
func Start(t testing.TB, config ledger.Config, deps ledger.Deps) (*ledger.Chain, func() error) {
	t.Helper()
	chain, err := ledger.Open(t.Context(), config, deps)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- chain.Run(ctx, func() { close(ready) }) }()
	<-ready
	var ended bool
	stop := func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { _ = stop() })
	return chain, stop
}

// Conserved checks that what accounts and escrows hold, their locks, and what was burned are the
// genesis supply, counted account by account.
func Conserved(n *Network, c *ledger.Chain, escrows ...tx.EscrowID) error {
	supply, _ := n.Genesis.Supply()
	var held tx.Grains
	for _, a := range n.Genesis.Allocations {
		account, _ := c.State().Account(a.Account)
		held += account.Balance + account.Lock
	}
	for _, id := range escrows {
		escrow, _ := c.State().Escrow(id)
		held += escrow.Balance + escrow.Lock
	}
	leaf := c.State().Chain()
	if held += tx.Grains(leaf.Burned.Lo); held != supply || leaf.Burned.Hi != 0 {
		return fmt.Errorf("%d grains are held or burned, %d were given out", held, supply)
	}
	return nil
}
