package server

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	textid "github.com/united-containers/ucn/kit/id"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
)

// wrongRow says that the index leads to something else than it says.
func wrongRow(e *ledger.Entry) error {
	return fmt.Errorf("the index leads to an operation of kind %d at %+v", e.Operation().Kind(), e.At)
}

// Bounds of a searched text.
const (
	maxSearch = 128
	minDigits = 6
	idDigits  = 64
)

// Search implements the service.
func (s *Server) Search(ctx context.Context, r *ledgerv1.SearchRequest) (
	*ledgerv1.SearchResponse, error,
) {
	c, err := s.chain(r.GetChain())
	if err != nil {
		return nil, err
	}
	query := strings.ToLower(strings.TrimSpace(r.GetQuery()))
	if len(query) > maxSearch {
		return nil, bad("the query has %d bytes, at most %d", len(query), maxSearch)
	}
	hits, understood, err := search(ctx, c, query)
	if err != nil {
		return nil, err
	}
	if !understood {
		return nil, bad("%q is neither a height, nor an id, nor the first %d or more hexadecimal "+
			"digits of one", query, minDigits)
	}
	out := &ledgerv1.SearchResponse{}
	for _, hit := range hits[:min(len(hits), ledger.MaxHits)] {
		out.Hits = append(out.Hits, hitMessage(hit))
	}
	return out, nil
}

func search(ctx context.Context, c *ledger.Chain, query string) (hits []ledger.Hit,
	understood bool, err error) {
	if hit, ok, known := searchText(c, query); known {
		if !ok {
			return nil, true, nil
		}
		if hit.Kind != ledger.KindAccount {
			all, err := c.SearchID(ctx, hit.ID)
			return only(all, hit.Kind), true, err
		}
		return []ledger.Hit{hit}, true, nil
	}
	if height, err := strconv.ParseUint(query, 10, 64); err == nil && len(query) < idDigits {
		understood = true
		if height <= c.Head().Height {
			hits = append(hits, ledger.Hit{Kind: ledger.KindBlock, Height: height})
		}
	}
	if len(query) < minDigits || len(query) > idDigits || !digits(query) {
		return hits, understood, nil
	}
	var more []ledger.Hit
	low, high := bounds(query)
	if len(query) == idDigits {
		more, err = c.SearchID(ctx, low)
	} else {
		more, err = c.SearchBetween(ctx, low, high)
	}
	return append(hits, more...), true, err
}

// searchText reads an id in its text form. ok is false when it is damaged, or an account that does
// not exist.
func searchText(c *ledger.Chain, query string) (hit ledger.Hit, ok, known bool) {
	for prefix, kind := range map[string]ledger.Kind{
		textid.Account: ledger.KindAccount, textid.Escrow: ledger.KindEscrow,
		textid.Lease: ledger.KindLease, textid.Job: ledger.KindJob,
	} {
		if !strings.HasPrefix(query, prefix+"1") {
			continue
		}
		raw, err := textid.ParseBech32(prefix, query)
		hit = ledger.Hit{Kind: kind, ID: raw}
		ok = err == nil
		if kind == ledger.KindAccount && ok {
			_, ok = c.State().Account(sig.AccountID(raw))
		}
		return hit, ok, true
	}
	return hit, false, false
}

func only(hits []ledger.Hit, kind ledger.Kind) []ledger.Hit {
	for _, hit := range hits {
		if hit.Kind == kind {
			return []ledger.Hit{hit}
		}
	}
	return nil
}

func digits(text string) bool {
	return strings.Trim(text, "0123456789abcdef") == ""
}

// bounds returns the lowest and the highest id that begin with the digits.
func bounds(prefix string) (low, high ledger.Hash) {
	fill := func(digit string) (out ledger.Hash) {
		// The text was checked: it cannot fail.
		_, _ = hex.Decode(out[:], []byte(prefix+strings.Repeat(digit, idDigits-len(prefix))))
		return out
	}
	return fill("0"), fill("f")
}

func hitMessage(hit ledger.Hit) *ledgerv1.Hit {
	raw := hit.ID[:]
	switch hit.Kind {
	case ledger.KindBlock:
		return &ledgerv1.Hit{Kind: &ledgerv1.Hit_Block{Block: hit.Height}}
	case ledger.KindTransaction:
		return &ledgerv1.Hit{Kind: &ledgerv1.Hit_Transaction{Transaction: raw}}
	case ledger.KindAccount:
		return &ledgerv1.Hit{Kind: &ledgerv1.Hit_Account{Account: raw}}
	case ledger.KindEscrow:
		return &ledgerv1.Hit{Kind: &ledgerv1.Hit_Escrow{Escrow: raw}}
	case ledger.KindLease:
		return &ledgerv1.Hit{Kind: &ledgerv1.Hit_Lease{Lease: raw}}
	}
	return &ledgerv1.Hit{Kind: &ledgerv1.Hit_Job{Job: raw}}
}

// GetSupply implements the service.
func (s *Server) GetSupply(ctx context.Context, r *ledgerv1.GetSupplyRequest) (
	*ledgerv1.GetSupplyResponse, error,
) {
	c, err := s.chain(r.GetChain())
	if err != nil {
		return nil, err
	}
	proven, err := c.ProveChain(ctx) // leaf and height of one moment
	if err != nil {
		return nil, err
	}
	height, raw := proven.Head.Height, proven.State.GetValue()
	if asked := r.GetHeight(); asked != 0 && asked != height {
		if raw, err = earlierSupply(c, asked, r.GetProve()); err != nil {
			return nil, err
		}
		height = asked
	}
	leaf, err := message(raw, &chainv1.ChainState{})
	if err != nil {
		return nil, err
	}
	out := &ledgerv1.GetSupplyResponse{
		Height: height, State: leaf,
		// Conservation is asserted by the state machine in every block.
		Circulating: leaf.GetAccountSum() + leaf.GetEscrowSum() + leaf.GetLockSum() +
			leaf.GetLockboxSum(),
	}
	if r.GetProve() {
		out.Proof = leafProof(&proven)
	}
	return out, nil
}

// earlierSupply returns the canonical bytes of the chain's leaf after an earlier block.
func earlierSupply(c *ledger.Chain, height uint64, prove bool) ([]byte, error) {
	sums, err := c.Supply(height)
	if err != nil {
		return nil, err
	}
	if prove {
		return nil, c.NotProven(height)
	}
	return sums.Append(nil), nil
}

func leafProof(p *ledger.Proven) *chainv1.AccountProof {
	return &chainv1.AccountProof{
		Header: p.Tip.Header.PB(), Certificate: p.Tip.Certificate.PB(), Proof: p.Proof.State,
	}
}

// Bounds and defaults of GetFees.
const (
	defaultFeeBlocks  = 10
	defaultOperations = 1
	defaultBodyBytes  = 256
	// safeBlocks is for how many blocks ahead safe_fee holds.
	safeBlocks = 10
)

// GetFees implements the service.
func (s *Server) GetFees(_ context.Context, r *ledgerv1.GetFeesRequest) (
	*ledgerv1.GetFeesResponse, error,
) {
	c, err := s.chain(r.GetChain())
	if err != nil {
		return nil, err
	}
	n := int(r.GetBlocks())
	operations, size := int(r.GetOperations()), int(r.GetBodyBytes())
	switch {
	case n > ledger.MaxFeeBlocks:
		return nil, bad("blocks is %d, at most %d", n, ledger.MaxFeeBlocks)
	case operations > tx.MaxOperations:
		return nil, bad("operations is %d, at most %d", operations, tx.MaxOperations)
	case size > tx.MaxBody:
		return nil, bad("body_bytes is %d, at most %d", size, tx.MaxBody)
	}
	params, prices := c.Genesis().Params, c.State().Prices()
	highest := state.Ceiling(params)
	safe := state.After(prices, params, safeBlocks)
	operations, size = orElse(operations, defaultOperations), orElse(size, defaultBodyBytes)
	out := &ledgerv1.GetFeesResponse{
		OperationFee: uint64(prices.Operation), ByteFee: uint64(prices.Byte),
		Fee: uint64(prices.Fee(operations, size)), SafeFee: uint64(safe.Fee(operations, size)),
		OperationFeeCeiling: uint64(highest.Operation), ByteFeeCeiling: uint64(highest.Byte),
	}
	for _, b := range c.FeeHistory(orElse(n, defaultFeeBlocks)) {
		out.Blocks = append(out.Blocks, &ledgerv1.BlockFees{
			Height: b.Height, Time: b.Time, Operations: b.Operations, Bytes: b.Bytes,
			MaxOperations: params.MaxOperations, MaxBytes: params.MaxBytes,
		})
	}
	return out, nil
}

func orElse(n, ifZero int) int {
	if n == 0 {
		return ifZero
	}
	return n
}

// GetHistoryProof implements the service.
func (s *Server) GetHistoryProof(ctx context.Context, r *ledgerv1.GetHistoryProofRequest) (
	*ledgerv1.GetHistoryProofResponse, error,
) {
	c, err := s.chain(r.GetChain())
	if err != nil {
		return nil, err
	}
	p, err := c.ProveHistory(ctx, r.GetHeight())
	if err != nil {
		return nil, err
	}
	return &ledgerv1.GetHistoryProofResponse{
		Proof: &chainv1.HistoryProof{
			Header: p.Head.Header.PB(), Certificate: p.Head.Certificate.PB(),
			Ancestor: p.Ancestor.PB(), Proof: p.Proof.PB(),
		},
		Validators: c.Genesis().Validators.PB(),
	}, nil
}

func blockMessage(found *ledger.Found, body bool) (*chainv1.Block, error) {
	if body {
		return message(found.Raw, &chainv1.Block{})
	}
	return &chainv1.Block{
		Header: found.Block.Header.PB(), Certificate: found.Block.Certificate.PB(),
	}, nil
}
