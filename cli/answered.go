package cli

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/kit/id"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// answered makes the saved form of what REST answers to a question with prove=true, or of a bare
// proof of a transaction or of history. There is no genesis in it, and what is said beside the
// proofs counts for nothing. Of what is not there the answers hold little more than the proof, so
// they are told apart by a field that only they have.
func answered(text []byte) (s saved, err error) {
	var has map[string]json.RawMessage
	if err := json.Unmarshal(text, &has); err != nil {
		return s, fmt.Errorf("this is no proof: %w", err)
	}
	var inner map[string]json.RawMessage
	_ = json.Unmarshal(has["proof"], &inner) // a proof that is no object has no fields
	switch {
	case has["ancestor"] != nil:
		s.History = text
	case inner["ancestor"] != nil:
		s.History = has["proof"]
	case inner["transaction"] != nil:
		s.Proof = has["proof"]
	case has["proof"] == nil:
		s.Proof = text
	default:
		s.Leaves, err = answeredLeaves(text, has)
	}
	return s, err
}

// answeredLeaves are the proofs of an answer about leaves of the state.
func answeredLeaves(text []byte, has map[string]json.RawMessage) ([]leafProof, error) {
	read := func(m proto.Message) error {
		err := protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(text, m)
		if err != nil {
			return fmt.Errorf("this is no proof: %w", err)
		}
		return nil
	}
	one := func(kind, of string, m *chainv1.AccountProof) ([]leafProof, error) {
		p, err := newLeafProof(kind, of, m)
		return []leafProof{p}, err
	}
	switch {
	case has["signers_proof"] != nil:
		m := &ledgerv1.GetAccountResponse{}
		if err := read(m); err != nil {
			return nil, err
		}
		account := bytesText(id.Account, m.GetId())
		first, err := one(leafAccount, account, m.GetProof())
		if err != nil {
			return nil, err
		}
		second, err := one(leafSigners, account, m.GetSignersProof())
		return append(first, second...), err
	case has["state"] != nil:
		m := &ledgerv1.GetSupplyResponse{}
		if err := read(m); err != nil {
			return nil, err
		}
		return one(leafChain, "", m.GetProof())
	case has["now"] != nil: // of escrows alone
		m := &ledgerv1.GetEscrowResponse{}
		if err := read(m); err != nil {
			return nil, err
		}
		return one(leafEscrow, bytesText(id.Escrow, m.GetId()), m.GetProof())
	}
	m := &ledgerv1.GetLeaseResponse{}
	if err := read(m); err != nil {
		return nil, err
	}
	return one(leafLease, bytesText(id.Lease, m.GetId()), m.GetProof())
}
