package block_test

import (
	"crypto/sha256"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
)

var accounts = block.LocalAccounts{
	Faucet: sig.AccountID{9}, Wallet: sig.AccountID{3},
	Operators: [2]sig.AccountID{{7}, {1}},
}

func local(t testing.TB) *block.Genesis {
	t.Helper()
	g, err := block.Local([32]byte{5}, 1_800_000_000_000, key(1).Public(), accounts)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestLocal(t *testing.T) {
	g := local(t)
	supply, ok := g.Supply()
	if !ok || supply != 1_000_000*block.UCN || g.Params.SupplyCap != supply {
		t.Errorf("supply %d, cap %d", supply, g.Params.SupplyCap)
	}
	want := []block.Allocation{
		{Account: accounts.Operators[1], Amount: 45_000 * block.UCN},
		{Account: accounts.Wallet, Amount: 10_000 * block.UCN},
		{Account: accounts.Operators[0], Amount: 45_000 * block.UCN},
		{Account: accounts.Faucet, Amount: 900_000 * block.UCN},
	}
	if !slices.Equal(g.Allocations, want) {
		t.Errorf("allocations %v", g.Allocations)
	}
	if g.Trust != block.TrustSingle || g.Orderer != block.OrdererSolo || g.Quorum() != 1 ||
		g.FaucetAmount != 1_000*block.UCN {
		t.Errorf("genesis %+v", g)
	}
	same := accounts
	same.Wallet = same.Faucet
	if _, err := block.Local([32]byte{5}, 1, key(1).Public(), same); !errors.Is(err,
		block.ErrGenesis) {
		t.Errorf("one account twice: got %v", err)
	}
}

func TestAnchor(t *testing.T) {
	g := local(t)
	raw, err := canon.Marshal(g.PB())
	if err != nil {
		t.Fatal(err)
	}
	if g.Anchor() != sha256.Sum256(append([]byte("main"), raw...)) {
		t.Error("anchor is not SHA-256(chain id || canonical genesis)")
	}
	back, err := block.GenesisFromPB(g.PB())
	if err != nil || !reflect.DeepEqual(back, g) || back.Anchor() != g.Anchor() {
		t.Errorf("round trip: %v", err)
	}
	other := *g
	other.Nonce[31] ^= 1
	if other.Anchor() == g.Anchor() {
		t.Error("two networks have the same anchor")
	}
}

func TestGenesisHeader(t *testing.T) {
	g := local(t)
	h := g.Header(tx.Hash{8})
	if h.Height != 0 || h.Time != g.Time || h.Accrual != g.Time || h.StateRoot != (tx.Hash{8}) ||
		h.SignersHash != g.Validators.Hash() || h.Prev != (tx.Hash{}) {
		t.Errorf("header %+v", h)
	}
	if err := h.CheckBody(&block.Body{}); err != nil {
		t.Error(err)
	}
}

// twoOperators returns a set whose validators belong to the two operators of the local network.
func twoOperators() block.ValidatorSet {
	two, _ := validators(2)
	for i, operator := range accounts.Operators {
		two.Validators[i].Account, two.Validators[i].Operator = operator, operator
	}
	return two
}

// genesisTests change a good genesis; an empty text means that it stays good.
var genesisTests = map[string]struct {
	change func(*block.Genesis)
	text   string // empty = valid
}{
	"local": {func(*block.Genesis) {}, ""},
	"side chain": {func(g *block.Genesis) {
		g.Chain = "01234567-89ab-8def-8123-456789abcdef"
	}, ""},
	"two operators, trust single": {func(g *block.Genesis) { g.Validators = twoOperators() }, ""},
	"two operators, solo": {func(g *block.Genesis) {
		g.Validators, g.Trust = twoOperators(), ""
	}, "2 operators cannot trust a solo orderer"},
	"one operator, no trust": {func(g *block.Genesis) { g.Trust = "" }, ""},
	"chain":                  {func(g *block.Genesis) { g.Chain = "Main" }, "chain"},
	"nonce":                  {func(g *block.Genesis) { g.Nonce = [32]byte{} }, "nonce"},
	"no time":                {func(g *block.Genesis) { g.Time = 0 }, "time"},
	"time in seconds x 1e9":  {func(g *block.Genesis) { g.Time = math.MaxInt64 }, "time"},
	"rules":                  {func(g *block.Genesis) { g.RulesVersion = 2 }, "rules version 2"},
	"orderer":                {func(g *block.Genesis) { g.Orderer = "quorum" }, `"quorum"`},
	"trust":                  {func(g *block.Genesis) { g.Trust = "all" }, `"all"`},
	"no validators": {func(g *block.Genesis) {
		g.Validators = block.ValidatorSet{}
	}, "0 validators"},
	"validator without money": {func(g *block.Genesis) {
		g.Validators.Validators[0].Account = sig.AccountID{66}
	}, "has no allocation"},
	"faucet without money": {func(g *block.Genesis) {
		g.Faucet = sig.AccountID{66}
	}, "faucet account"},
	"faucet without amount": {func(g *block.Genesis) { g.FaucetAmount = 0 }, "faucet amount"},
	"amount without faucet": {func(g *block.Genesis) {
		g.Faucet = sig.AccountID{}
	}, "faucet amount"},
	"faucet amount below the lock": {func(g *block.Genesis) { g.FaucetAmount = 1 }, "lock"},
	"descending": {func(g *block.Genesis) {
		slices.Reverse(g.Allocations)
	}, "not strictly ascending"},
	"account twice": {func(g *block.Genesis) {
		g.Allocations[1].Account = g.Allocations[0].Account
	}, "not strictly ascending"},
	"allocation below the lock": {func(g *block.Genesis) {
		g.Allocations[1].Amount = g.Params.AccountLock - 1
	}, "allocation 1"},
	"above the cap": {func(g *block.Genesis) { g.Allocations[0].Amount++ }, "supply cap"},
	"sum wraps": {func(g *block.Genesis) {
		g.Allocations[0].Amount = math.MaxUint64
	}, "supply cap"},
	"cap above 2^63": {func(g *block.Genesis) { g.Params.SupplyCap = 1<<63 + 1 }, "supply_cap"},
	"operation fee": {func(g *block.Genesis) {
		g.Params.OperationFee = 1 << 60
	}, "operation_fee"},
	"byte fee":    {func(g *block.Genesis) { g.Params.ByteFee = 1 << 60 }, "byte_fee"},
	"fee ceiling": {func(g *block.Genesis) { g.Params.FeeCeiling = 0 }, "fee_ceiling"},
	"no account lock": {func(g *block.Genesis) {
		g.Params.AccountLock = 0
	}, "account_lock"},
	"account lock":   {func(g *block.Genesis) { g.Params.AccountLock = 1 << 60 }, "account_lock"},
	"escrow lock":    {func(g *block.Genesis) { g.Params.EscrowLock = 1 << 60 }, "escrow_lock"},
	"few operations": {func(g *block.Genesis) { g.Params.MaxOperations = 999 }, "max_operations"},
	"many operations": {func(g *block.Genesis) {
		g.Params.MaxOperations = 1 << 31
	}, "max_operations"},
	"small blocks":       {func(g *block.Genesis) { g.Params.MaxBytes = 1 << 17 }, "max_bytes"},
	"large blocks":       {func(g *block.Genesis) { g.Params.MaxBytes = 1 << 31 }, "max_bytes"},
	"accrual too coarse": {func(g *block.Genesis) { g.Params.MaxStep = 1 << 40 }, "max_step"},
}

func TestGenesisValidate(t *testing.T) {
	for name, test := range genesisTests {
		g := local(t)
		test.change(g)
		err := g.Validate()
		if test.text == "" && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if test.text != "" && (!errors.Is(err, block.ErrGenesis) ||
			!strings.Contains(err.Error(), test.text)) {
			t.Errorf("%s: got %v, want %q", name, err, test.text)
		}
	}
}

func TestValidChain(t *testing.T) {
	for id, want := range map[string]bool{
		"main":                                  true,
		"01234567-89ab-8def-8123-456789abcdef":  true,
		"":                                      false,
		"MAIN":                                  false,
		"01234567-89AB-8def-8123-456789abcdef":  false,
		"0123456789ab-8def-8123-456789abcdef":   false,
		"01234567-89ab-8def-8123-456789abcdefa": false,
		"01234567-89ab-8def-8123-456789abcdeg":  false,
		"01234567089ab08def08123-456789abcdef-": false,
	} {
		if got := block.ValidChain(id); got != want {
			t.Errorf("%q: got %v, want %v", id, got, want)
		}
	}
}

func TestCounter(t *testing.T) {
	c := block.Counter{Lo: math.MaxUint64 - 1}
	c, ok := c.Add(3)
	if !ok || c != (block.Counter{Hi: 1, Lo: 1}) {
		t.Errorf("got %+v, %v", c, ok)
	}
	if _, ok := (block.Counter{Hi: math.MaxUint64, Lo: 1}).Add(math.MaxUint64); ok {
		t.Error("overflow of 128 bits goes unseen")
	}
}

// TestVectors pins what stands in every block and must never change.
func TestVectors(t *testing.T) {
	g := local(t)
	h := g.Header(tx.Hash{8})
	anchor := g.Anchor()
	for _, vector := range []struct{ name, got, want string }{
		{"anchor", tx.Hash(anchor).String(), anchorVector},
		{"header", h.Hash(anchor).String(), headerVector},
		{"validators", g.Validators.Hash().String(), validatorsVector},
	} {
		if vector.got != vector.want {
			t.Errorf("%s: got %s, want %s", vector.name, vector.got, vector.want)
		}
	}
}

// The vectors of TestVectors.
const (
	anchorVector     = "d131e2245f36ec3ae224495e6c229493d6b2ce84eb38b042a52ff078ba2beb38"
	headerVector     = "3bd2aa0b1bbf7d9b1b88f847d01054516e028d70660b5b475a652a33b5420b39"
	validatorsVector = "0bcf7ee1282867217c99c150cd3f0e73f35fabe1b2c5f03dd1f3c20410324340"
)
