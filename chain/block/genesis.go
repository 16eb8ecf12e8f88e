package block

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// Names that a genesis uses.
const (
	// Main is the id of the main chain of a network; others have UUIDs.
	Main = "main"
	// OrdererSolo is the orderer with one proposer.
	OrdererSolo = "solo"
	// TrustSingle says that two or more operators accept one proposer for order and liveness.
	TrustSingle = "single"
	// RulesVersion is the version of the rules that this program knows.
	RulesVersion = 1
)

// Genesis begins a chain.
type Genesis struct {
	Chain string
	// Random; makes two networks with the same parameters different.
	Nonce [32]byte
	// ms since 1970.
	Time   tx.Millis
	Params Params
	// Strictly ascending by account, at most MaxAllocations.
	Allocations  []Allocation
	Validators   ValidatorSet
	RulesVersion uint32
	Orderer      string
	Trust        string
	// Account whose key answers faucet requests; zero = none.
	Faucet       sig.AccountID
	FaucetAmount tx.Grains
}

// Allocation gives an account grains at genesis; its lock is taken out of them.
type Allocation struct {
	Account sig.AccountID
	Amount  tx.Grains
}

// Anchor ties signatures to the chain: SHA-256(chain id || canonical genesis).
func (g *Genesis) Anchor() sig.Anchor {
	return sha256.Sum256(g.Append([]byte(g.Chain)))
}

// Supply returns the sum of all allocations; false if it does not fit.
func (g *Genesis) Supply() (tx.Grains, bool) {
	var sum tx.Grains
	for _, a := range g.Allocations {
		if sum+a.Amount < sum {
			return 0, false
		}
		sum += a.Amount
	}
	return sum, true
}

// Quorum is how many validators make a header of this chain final.
func (g *Genesis) Quorum() int {
	if g.Orderer == OrdererSolo {
		return 1
	}
	return Quorum(len(g.Validators.Validators))
}

// Header returns the header of height 0, which nobody signs, over the state root of the
// allocations. The accrual clock starts at the genesis time.
func (g *Genesis) Header(stateRoot tx.Hash) Header {
	return Header{
		Version: Version, Chain: g.Chain, Time: g.Time, Accrual: g.Time,
		RulesVersion: g.RulesVersion,
		StateRoot:    stateRoot, SegmentsRoot: EmptyRoot(), TransactionsRoot: EmptyRoot(),
		ReceiptsRoot: EmptyRoot(), ExitsRoot: EmptyRoot(), HistoryRoot: EmptyRoot(),
		BodyHash: BodyHash(nil), SignersHash: g.Validators.Hash(),
		NextSignersHash: g.Validators.Hash(),
	}
}

// Validate checks everything that a chain may not begin without. It wraps ErrGenesis.
func (g *Genesis) Validate() error {
	for _, check := range []func() error{
		g.checkNames, g.Params.Validate, g.Validators.Validate, g.checkTrust,
		g.checkAllocations, g.checkFaucet,
	} {
		if err := check(); err != nil {
			return fmt.Errorf("%w: %w", ErrGenesis, err)
		}
	}
	return nil
}

// maxTime is the last ms of the year 9999.
const maxTime = 253_402_300_799_999

func (g *Genesis) checkNames() error {
	switch {
	case !ValidChain(g.Chain):
		return fmt.Errorf("chain %q is neither %q nor a lower-case UUID", g.Chain, Main)
	case g.Nonce == [32]byte{}:
		return fmt.Errorf("nonce is all zero")
	case g.Time == 0 || g.Time > maxTime:
		return fmt.Errorf("time %d ms is not between 1970 and 9999", g.Time)
	case g.RulesVersion != RulesVersion:
		return fmt.Errorf("rules version %d is not known, only %d", g.RulesVersion, RulesVersion)
	case g.Orderer != OrdererSolo:
		return fmt.Errorf("orderer %q is not built, only %q", g.Orderer, OrdererSolo)
	case g.Trust != "" && g.Trust != TrustSingle:
		return fmt.Errorf("trust %q is not known, only %q", g.Trust, TrustSingle)
	}
	return nil
}

func (g *Genesis) checkTrust() error {
	if n := g.Validators.Operators(); n > 1 && g.Trust != TrustSingle {
		return fmt.Errorf("%d operators cannot trust a %s orderer unless the genesis says trust: %s",
			n, g.Orderer, TrustSingle)
	}
	return nil
}

func (g *Genesis) checkAllocations() error {
	if len(g.Allocations) > MaxAllocations {
		return fmt.Errorf("%d allocations, at most %d", len(g.Allocations), MaxAllocations)
	}
	held := make(map[sig.AccountID]bool, len(g.Allocations))
	for i, a := range g.Allocations {
		if a.Account.IsZero() || a.Amount == 0 || a.Amount < g.Params.AccountLock {
			return fmt.Errorf("allocation %d: %d grains do not cover the account's lock of %d",
				i, a.Amount, g.Params.AccountLock)
		}
		if i > 0 && bytes.Compare(g.Allocations[i-1].Account[:], a.Account[:]) >= 0 {
			return fmt.Errorf("allocation %d: not strictly ascending by account", i)
		}
		held[a.Account] = true
	}
	if sum, ok := g.Supply(); !ok || sum > g.Params.SupplyCap {
		return fmt.Errorf("allocations exceed the supply cap of %d grains", g.Params.SupplyCap)
	}
	for i, v := range g.Validators.Validators {
		if !held[v.Account] {
			return fmt.Errorf("validator %d: account %x has no allocation, so fees have nowhere to go",
				i, v.Account)
		}
	}
	if !g.Faucet.IsZero() && !held[g.Faucet] {
		return fmt.Errorf("faucet account %x has no allocation", g.Faucet)
	}
	return nil
}

func (g *Genesis) checkFaucet() error {
	if g.Faucet.IsZero() != (g.FaucetAmount == 0) {
		return fmt.Errorf("faucet and faucet amount go together")
	}
	if !g.Faucet.IsZero() && g.FaucetAmount < g.Params.AccountLock {
		return fmt.Errorf("faucet amount of %d grains does not cover an account's lock of %d",
			g.FaucetAmount, g.Params.AccountLock)
	}
	return nil
}

// ValidChain reports whether the id is "main" or a UUID in its 36-character lower-case form.
func ValidChain(id string) bool {
	if id == Main {
		return true
	}
	if len(id) != tx.MaxChain {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case (c < '0' || c > '9') && (c < 'a' || c > 'f'):
			return false
		}
	}
	return true
}

// DecodeGenesis reads the canonical bytes of a Genesis; Validate judges it.
func DecodeGenesis(raw []byte) (*Genesis, error) {
	if len(raw) > MaxGenesis {
		return nil, fmt.Errorf("genesis of %d bytes: %w: at most %d", len(raw), ErrTooLarge,
			MaxGenesis)
	}
	r := canon.NewReader(raw)
	g := &Genesis{}
	g.readFrom(&r)
	if err := r.Err(); err != nil {
		return nil, malformed("genesis", err, &chainv1.Genesis{})
	}
	return g, nil
}

// Append appends the canonical bytes of the genesis.
func (g *Genesis) Append(dst []byte) []byte {
	dst = canon.AppendBytes(dst, 1, g.Chain)
	dst = appendHash(dst, 2, g.Nonce)
	dst = canon.AppendUint(dst, 3, uint64(g.Time))
	dst, mark := canon.Begin(dst, 4)
	dst = canon.End(g.Params.Append(dst), mark)
	for i := range g.Allocations {
		dst, mark = canon.Begin(dst, 5)
		dst = appendHash(dst, 1, g.Allocations[i].Account)
		dst = canon.AppendUint(dst, 2, uint64(g.Allocations[i].Amount))
		dst = canon.EndElement(dst, mark)
	}
	dst, mark = canon.Begin(dst, 6)
	dst = canon.End(g.Validators.Append(dst), mark)
	dst = canon.AppendUint(dst, 7, uint64(g.RulesVersion))
	dst = canon.AppendBytes(dst, 8, g.Orderer)
	dst = canon.AppendBytes(dst, 9, g.Trust)
	dst = appendHash(dst, 10, g.Faucet)
	return canon.AppendUint(dst, 11, uint64(g.FaucetAmount))
}

// maxName is the longest name of an orderer or a trust in bytes.
const maxName = 32

func (g *Genesis) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			g.Chain = string(r.Text(tx.MaxChain))
		case 2:
			g.Nonce = readHash[[32]byte](r)
		case 3:
			g.Time = tx.Millis(r.Uint64())
		case 4:
			frame := r.Open("params")
			g.Params.readFrom(r)
			r.Close(frame)
		case 5:
			g.readAllocation(r)
		case 6:
			frame := r.Open("validators")
			g.Validators.readFrom(r)
			r.Close(frame)
		case 7:
			g.RulesVersion = r.Uint32()
		case 8:
			g.Orderer = string(r.Text(maxName))
		case 9:
			g.Trust = string(r.Text(maxName))
		case 10:
			g.Faucet = readHash[sig.AccountID](r)
		case 11:
			g.FaucetAmount = tx.Grains(r.Uint64())
		default:
			r.Unknown()
		}
	}
}

func (g *Genesis) readAllocation(r *canon.Reader) {
	if len(g.Allocations) >= MaxAllocations {
		r.Fail(ErrTooMany)
		return
	}
	var a Allocation
	frame := r.OpenElement("allocations")
	for r.Next() {
		switch r.Field() {
		case 1:
			a.Account = readHash[sig.AccountID](r)
		case 2:
			a.Amount = tx.Grains(r.Uint64())
		default:
			r.Unknown()
		}
	}
	r.Close(frame)
	g.Allocations = append(g.Allocations, a)
}

// PB returns the message form.
func (g *Genesis) PB() *chainv1.Genesis { return message(g, &chainv1.Genesis{}) }

// GenesisFromPB reads the message form.
func GenesisFromPB(m *chainv1.Genesis) (*Genesis, error) { return parse(m, DecodeGenesis) }
