package cli

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/proof"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// What a proof of a leaf is about.
const (
	leafAccount = "account"
	leafSigners = "signers" // who may act for an account beside its key set
	leafEscrow  = "escrow"
	leafLease   = "lease"
	leafChain   = "chain" // its sums, by the chain's name, or by none for the one that is trusted
)

// maxLeaves is how many proofs one file holds.
const maxLeaves = 2

// leafProof is a proof of a leaf of the state, or that there is none, as it is saved.
type leafProof struct {
	Kind  string          `json:"kind"`
	ID    string          `json:"id"`
	Proof json.RawMessage `json:"proof"` // ucn.chain.v1.AccountProof
}

// proofFlags are those of commands that show a leaf.
type proofFlags struct {
	prove bool
	file  string
}

func (f *proofFlags) asked() bool { return f.prove || f.file != "" }

// errProof says that a ledger says one thing and proves another.
var errProof = errors.New("the proof does not show what the ledger says")

// errAbsent: a ledger was asked for a proof and gave none.
var errAbsent = errors.New("the ledger gave no proof")

// newLeafProof makes the saved form of a ledger's proof.
func newLeafProof(kind, id string, m *chainv1.AccountProof) (leafProof, error) {
	if m == nil {
		return leafProof{}, fmt.Errorf("%w of %s %s", errAbsent, kind, id)
	}
	raw, err := rawJSON(m)
	return leafProof{kind, id, raw}, err
}

// stateResult is what proofs of leaves show: the state after a certified block.
type stateResult struct {
	Verified   bool           `json:"verified"`
	Chain      string         `json:"chain"`
	Anchor     string         `json:"anchor"`
	Block      uint64         `json:"block"`
	BlockHash  string         `json:"block_hash"`
	Time       time.Time      `json:"time"`
	Signatures int            `json:"signatures_needed"`
	Account    *accountResult `json:"account,omitempty"`
	Escrow     *escrowResult  `json:"escrow,omitempty"`
	Lease      *leaseResult   `json:"lease,omitempty"`
	Supply     *supplyResult  `json:"supply,omitempty"`
	// signers are the account's.
	signers tx.AccountSigners
}

// showLeaves verifies proofs of leaves, all under one header, by a genesis that is trusted.
func showLeaves(list []leafProof, g *block.Genesis) (*stateResult, error) {
	if len(list) == 0 || len(list) > maxLeaves {
		return nil, fmt.Errorf("%d proofs; one file holds 1 to %d", len(list), maxLeaves)
	}
	trust, anchor := proof.TrustOf(g), g.Anchor()
	r := &stateResult{
		Verified: true, Chain: g.Chain, Anchor: hex.EncodeToString(anchor[:]),
		Signatures: trust.Need,
	}
	var header block.Header
	for i, one := range list {
		h, err := r.show(&one, trust)
		if err != nil {
			return nil, fmt.Errorf("proof of %s %s: %w", one.Kind, one.ID, err)
		}
		if i > 0 && h != header {
			return nil, fmt.Errorf("the proofs are of different blocks: %d and %d", header.Height,
				h.Height)
		}
		header = h
	}
	r.Block, r.BlockHash = header.Height, header.Hash(anchor).String()
	r.Time = time.UnixMilli(int64(header.Time)).UTC()
	return r, nil
}

// show verifies one proof and adds what it shows.
func (r *stateResult) show(p *leafProof, trust proof.Trust) (h block.Header, err error) {
	m := &chainv1.AccountProof{}
	if err := protojson.Unmarshal(p.Proof, m); err != nil {
		return h, fmt.Errorf("this is no proof: %w", err)
	}
	raw, err := canon.Marshal(m)
	if err != nil {
		return h, err
	}
	switch p.Kind {
	case leafAccount:
		return r.showAccount(raw, p.ID, trust)
	case leafSigners:
		return r.showSigners(raw, p.ID, trust)
	case leafEscrow:
		id, err := parseEscrow(p.ID)
		if err != nil {
			return h, err
		}
		leaf, err := proof.VerifyEscrow(raw, id, trust)
		if err == nil {
			r.Escrow = newEscrowResult(id, leaf.Exists, &leaf.Value, leaf.Header.Height)
			r.Escrow.Unreserved = amount.Amount(state.Unreserved(&leaf.Value, leaf.Header.Accrual))
			r.Escrow.at(&leaf.Value, leaf.Header.Time, leaf.Header.Accrual)
			r.Escrow.Proven = true
		}
		return leaf.Header, err
	case leafLease:
		id, err := parseLease(p.ID)
		if err != nil {
			return h, err
		}
		leaf, err := proof.VerifyLease(raw, id, trust)
		if err != nil {
			return h, err
		}
		var held *chainv1.LeaseState
		if leaf.Exists {
			held = leaf.Value.PB()
		}
		r.Lease, err = leaseOf(p.ID, held, leaf.Header.Height)
		if err == nil {
			r.Lease.Proven = true
		}
		return leaf.Header, err
	case leafChain:
		return r.showSupply(raw, p.ID, trust)
	}
	return h, fmt.Errorf("proofs of kind %.20q are unknown", p.Kind)
}

func (r *stateResult) showAccount(raw []byte, text string, trust proof.Trust) (
	h block.Header, err error,
) {
	id, err := parseAccount(text)
	if err != nil {
		return h, err
	}
	leaf, err := proof.VerifyAccount(raw, id, trust)
	if err == nil {
		r.Account = newAccountResult(id, leaf.Exists, &leaf.Value, leaf.Header.Height)
		r.Account.Proven = true
	}
	return leaf.Header, err
}

// errOtherChain: a trusted genesis names one chain.
var errOtherChain = errors.New("it is of another chain")

func (r *stateResult) showSupply(raw []byte, chain string, trust proof.Trust) (
	h block.Header, err error,
) {
	if chain != "" && chain != r.Chain {
		return h, errOtherChain
	}
	leaf, err := proof.VerifyChain(raw, trust)
	if err != nil {
		return h, err
	}
	if !leaf.Exists {
		return h, errAbsent
	}
	r.Supply, err = newSupplyResult(leaf.Header.Height, leaf.Value)
	if err == nil {
		r.Supply.Proven = true
	}
	return leaf.Header, err
}

// errSignersAlone: who may act for an account is shown beside the account.
var errSignersAlone = errors.New("it does not come after a proof of the same account")

func (r *stateResult) showSigners(raw []byte, text string, trust proof.Trust) (
	h block.Header, err error,
) {
	if r.Account == nil || r.Account.Account != text {
		return h, errSignersAlone
	}
	id, err := parseAccount(text)
	if err != nil {
		return h, err
	}
	leaf, err := proof.VerifySigners(raw, id, trust)
	if err == nil {
		r.signers = leaf.Value
		r.Account.setSigners(&leaf.Value)
		r.Account.SignersProven = true
	}
	return leaf.Header, err
}

func (r *stateResult) print(w io.Writer) {
	printf(w, "proof verified\nblock\t%d %s\n", r.Block, r.BlockHash)
	printf(w, "time\t%s\nchain\t%s, anchor %s\n", r.Time.Local().Format(time.RFC3339), r.Chain,
		r.Anchor)
	printf(w, "certified\tby %d of the genesis' validators\n", r.Signatures)
	switch {
	case r.Account != nil:
		r.Account.print(w)
	case r.Escrow != nil:
		r.Escrow.print(w)
	case r.Lease != nil:
		r.Lease.print(w)
	case r.Supply != nil:
		r.Supply.print(w)
	}
}

// proven verifies what a ledger answered and saves it if asked.
func (f *proofFlags) proven(ctx context.Context, l *link, list ...leafProof) (
	*stateResult, error,
) {
	genesis, err := l.Genesis(ctx)
	if err != nil {
		return nil, err
	}
	r, err := showLeaves(list, genesis)
	if err != nil {
		return nil, fmt.Errorf("NOT verified: %w", err)
	}
	if f.file == "" {
		return r, nil
	}
	return r, save(f.file, saved{Leaves: list, Genesis: genesis.Append(nil)})
}

// save writes a proof for ucn verify.
func save(path string, s saved) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write the proof: %w", err)
	}
	return saveTo(path, func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
}

// accountProven asks for an account, who may act for it, and the proof of both.
func (f *proofFlags) accountProven(ctx context.Context, l *link, account sig.AccountID) (
	*stateResult, *ledgerv1.GetAccountResponse, error,
) {
	answer, err := l.Ledger.GetAccount(ctx, &ledgerv1.GetAccountRequest{
		Chain: l.Chain, Account: account[:], Prove: true,
	})
	if err != nil {
		return nil, nil, err
	}
	text := accountText(account)
	one, err := newLeafProof(leafAccount, text, answer.GetProof())
	if err != nil {
		return nil, nil, err
	}
	two, err := newLeafProof(leafSigners, text, answer.GetSignersProof())
	if err != nil {
		return nil, nil, err
	}
	r, err := f.proven(ctx, l, one, two)
	return r, answer, err
}
