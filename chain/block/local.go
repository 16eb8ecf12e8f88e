package block

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
)

// UCN is one coin in grains.
const UCN tx.Grains = 1_000_000_000

// Amounts of the local network (docs/domain.md section 8).
const (
	LocalSupply       = 1_000_000 * UCN
	LocalFaucet       = 900_000 * UCN
	LocalFaucetAmount = 1_000 * UCN
	LocalWallet       = 10_000 * UCN
	LocalOperator     = 45_000 * UCN
)

// LocalAccounts is who begins with money on a local network. The four accounts are distinct.
type LocalAccounts struct {
	Faucet    sig.AccountID
	Wallet    sig.AccountID
	Operators [2]sig.AccountID
}

// LocalParams returns the default parameters.
func LocalParams() Params {
	return Params{
		OperationFee: 10_000, ByteFee: 10, FeeCeiling: 100,
		AccountLock: 1_000_000, EscrowLock: 1_000_000,
		MaxOperations: 20_000, MaxBytes: 8 << 20, MaxStep: 60_000, SupplyCap: LocalSupply,
	}
}

// Local returns the genesis of a local network: 1,000,000 UCN, two operators that trust the
// single proposer, whose instance key is proposer and whose operator is the first. It fails if the
// result is not valid.
func Local(nonce [32]byte, time tx.Millis, proposer sig.PublicKey, who LocalAccounts) (
	*Genesis, error,
) {
	g := &Genesis{
		Chain: Main, Nonce: nonce, Time: time, Params: LocalParams(), RulesVersion: RulesVersion,
		Orderer: OrdererSolo, Trust: TrustSingle,
		Faucet: who.Faucet, FaucetAmount: LocalFaucetAmount,
		Allocations: []Allocation{
			{who.Faucet, LocalFaucet}, {who.Wallet, LocalWallet},
			{who.Operators[0], LocalOperator}, {who.Operators[1], LocalOperator},
		},
		Validators: ValidatorSet{Validators: []Validator{
			{Key: proposer, Account: who.Operators[0], Operator: who.Operators[0]},
		}},
	}
	slices.SortFunc(g.Allocations, func(a, b Allocation) int {
		return bytes.Compare(a.Account[:], b.Account[:])
	})
	if err := g.Validate(); err != nil {
		return nil, fmt.Errorf("local network: %w", err)
	}
	return g, nil
}
