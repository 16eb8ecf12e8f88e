package server

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
)

// maxKinds is how many kinds of operations a query may name.
const maxKinds = 32

// ListTransactions implements the service.
func (s *Server) ListTransactions(ctx context.Context, r *ledgerv1.ListTransactionsRequest) (
	*ledgerv1.ListTransactionsResponse, error,
) {
	c, err := s.chain(r.GetChain())
	if err != nil {
		return nil, err
	}
	q, err := transactionQuery(r)
	if err != nil {
		return nil, err
	}
	query := proto.CloneOf(r)
	query.PageSize, query.PageToken = 0, ""
	page, print, err := pageOf(r, query, true)
	if err != nil {
		return nil, err
	}
	listed, err := c.Transactions(ctx, q, page)
	if err != nil {
		return nil, err
	}
	out := &ledgerv1.ListTransactionsResponse{
		NextPageToken: token(print, listed.Next), Indexed: listed.Indexed,
		Head: listed.Head,
	}
	for i := range listed.Items {
		e := &listed.Items[i]
		m := &ledgerv1.TransactionEntry{
			Id: e.ID[:], Height: e.At.Height, Index: e.At.Index, Time: uint64(e.Time), Sent: e.Sent(),
		}
		transaction, err := message(e.Raw, &chainv1.Transaction{})
		if err != nil {
			return nil, err
		}
		m.Body = transaction.GetBody()
		if m.Receipt, err = message(e.Receipt, &chainv1.Receipt{}); err != nil {
			return nil, err
		}
		out.Transactions = append(out.Transactions, m)
	}
	return out, nil
}

func transactionQuery(r *ledgerv1.ListTransactionsRequest) (q ledger.TransactionQuery, err error) {
	q = ledger.TransactionQuery{
		Sent:       r.GetDirection() == ledgerv1.Direction_DIRECTION_SENT,
		Received:   r.GetDirection() == ledgerv1.Direction_DIRECTION_RECEIVED,
		FromHeight: r.GetFromHeight(), ToHeight: r.GetToHeight(),
		FromTime: tx.Millis(r.GetFromTime()), ToTime: tx.Millis(r.GetToTime()),
		Succeeded: r.GetSucceededOnly(),
	}
	if q.Account, err = id[sig.AccountID](r.GetAccount(), "account"); err != nil {
		return q, err
	}
	if ledgerv1.Direction_name[int32(r.GetDirection())] == "" {
		return q, bad("there is no direction %d", r.GetDirection())
	}
	if len(r.GetKinds()) > maxKinds {
		return q, bad("%d kinds, at most %d", len(r.GetKinds()), maxKinds)
	}
	for _, kind := range r.GetKinds() {
		if kind == 0 || ledgerv1.OperationKind_name[int32(kind)] == "" {
			return q, bad("there is no kind %d of operations", kind)
		}
		q.Kinds |= 1 << kind
	}
	if q.ToHeight != 0 && q.ToHeight < q.FromHeight || q.ToTime != 0 && q.ToTime < q.FromTime {
		return q, bad("the range ends before it begins")
	}
	return q, nil
}

// ListEscrows implements the service.
func (s *Server) ListEscrows(ctx context.Context, r *ledgerv1.ListEscrowsRequest) (
	*ledgerv1.ListEscrowsResponse, error,
) {
	c, err := s.chain(r.GetChain())
	if err != nil {
		return nil, err
	}
	q, err := escrowQuery(r)
	if err != nil {
		return nil, err
	}
	query := proto.CloneOf(r)
	query.PageSize, query.PageToken = 0, ""
	page, print, err := pageOf(r, query, false)
	if err != nil {
		return nil, err
	}
	listed, err := c.Escrows(ctx, q, page)
	if err != nil {
		return nil, err
	}
	out := &ledgerv1.ListEscrowsResponse{
		NextPageToken: token(print, listed.Next), Indexed: listed.Indexed,
		Head: listed.Head,
	}
	for i := range listed.Items {
		m, err := escrowEntry(c, &listed.Items[i])
		if err != nil {
			return nil, err
		}
		out.Escrows = append(out.Escrows, m)
	}
	return out, nil
}

func escrowQuery(r *ledgerv1.ListEscrowsRequest) (q ledger.EscrowQuery, err error) {
	q = ledger.EscrowQuery{
		Purpose: r.GetPurpose(), Open: r.GetOpenness() == ledgerv1.Openness_OPENNESS_OPEN,
		Closed: r.GetOpenness() == ledgerv1.Openness_OPENNESS_CLOSED,
	}
	if len(r.GetOwner()) == 0 && len(r.GetSubject()) == 0 {
		return q, bad("neither owner nor subject is given")
	}
	if len(r.GetOwner()) > 0 {
		if q.Owner, err = id[sig.AccountID](r.GetOwner(), "owner"); err != nil {
			return q, err
		}
	}
	if len(r.GetSubject()) > 0 {
		if q.Subject, err = id[ledger.Hash](r.GetSubject(), "subject"); err != nil {
			return q, err
		}
	}
	if q.Owner.IsZero() && q.Subject == (ledger.Hash{}) {
		return q, bad("owner and subject are zero")
	}
	if ledgerv1.Openness_name[int32(r.GetOpenness())] == "" {
		return q, bad("there is no openness %d", r.GetOpenness())
	}
	if chainv1.Purpose_name[int32(q.Purpose)] == "" {
		return q, bad("there is no purpose %d", q.Purpose)
	}
	return q, nil
}

func escrowEntry(c *ledger.Chain, e *ledger.Entry) (*ledgerv1.EscrowEntry, error) {
	opened, ok := e.Operation().(*tx.OpenEscrow)
	if !ok {
		return nil, wrongRow(e)
	}
	escrow := tx.EscrowID(e.Outcome.Created)
	m := &ledgerv1.EscrowEntry{
		Id: escrow[:], Owner: e.Tx.Account[:], Purpose: opened.Purpose, Subject: opened.Subject,
		OpenedHeight: e.At.Height, OpenedTime: uint64(e.Time), Amount: uint64(opened.Amount),
	}
	state, open := c.State().Escrow(escrow)
	if !open {
		return m, nil
	}
	m.Unreserved = uint64(c.State().Unreserved(escrow, c.Accrual()))
	var err error
	m.Escrow, err = message(state.Append(nil), &chainv1.Escrow{})
	return m, err
}

// ListEscrowEvents implements the service.
func (s *Server) ListEscrowEvents(ctx context.Context, r *ledgerv1.ListEscrowEventsRequest) (
	*ledgerv1.ListEscrowEventsResponse, error,
) {
	c, err := s.chain(r.GetChain())
	if err != nil {
		return nil, err
	}
	escrow, err := id[ledger.Hash](r.GetEscrow(), "escrow")
	if err != nil {
		return nil, err
	}
	query := &ledgerv1.ListEscrowEventsRequest{
		Chain: r.GetChain(), Escrow: r.GetEscrow(), Order: r.GetOrder(),
	}
	page, print, err := pageOf(r, query, false)
	if err != nil {
		return nil, err
	}
	listed, err := c.EscrowEvents(ctx, escrow, page)
	if err != nil {
		return nil, err
	}
	out := &ledgerv1.ListEscrowEventsResponse{
		NextPageToken: token(print, listed.Next), Indexed: listed.Indexed,
		Head: listed.Head,
	}
	for i := range listed.Items {
		m, err := escrowEvent(&listed.Items[i])
		if err != nil {
			return nil, err
		}
		out.Events = append(out.Events, m)
	}
	return out, nil
}

func escrowEvent(e *ledger.Entry) (*ledgerv1.EscrowEvent, error) {
	transaction, err := message(e.Raw, &chainv1.Transaction{})
	if err != nil {
		return nil, err
	}
	receipt, err := message(e.Receipt, &chainv1.Receipt{})
	if err != nil {
		return nil, err
	}
	m := &ledgerv1.EscrowEvent{
		Height: e.At.Height, Index: e.At.Index, OperationIndex: e.At.Operation,
		Time: uint64(e.Time), Transaction: e.ID[:], Account: e.Tx.Account[:],
		Kind:      ledgerv1.OperationKind(e.Operation().Kind()),
		Operation: transaction.GetBody().GetOperations()[e.At.Operation],
		Lease:     e.Value,
	}
	if int(e.At.Operation) < len(receipt.GetOutcomes()) {
		m.Outcome = receipt.GetOutcomes()[e.At.Operation]
	}
	return m, nil
}

// ListLeases implements the service.
func (s *Server) ListLeases(ctx context.Context, r *ledgerv1.ListLeasesRequest) (
	*ledgerv1.ListLeasesResponse, error,
) {
	c, err := s.chain(r.GetChain())
	if err != nil {
		return nil, err
	}
	escrow, err := id[ledger.Hash](r.GetEscrow(), "escrow")
	if err != nil {
		return nil, err
	}
	query := &ledgerv1.ListLeasesRequest{
		Chain: r.GetChain(), Escrow: r.GetEscrow(), Order: r.GetOrder(),
	}
	page, print, err := pageOf(r, query, false)
	if err != nil {
		return nil, err
	}
	listed, err := c.Leases(ctx, escrow, page)
	if err != nil {
		return nil, err
	}
	out := &ledgerv1.ListLeasesResponse{
		NextPageToken: token(print, listed.Next), Indexed: listed.Indexed,
		Head: listed.Head,
	}
	for i := range listed.Items {
		m, err := leaseEntry(c, &listed.Items[i])
		if err != nil {
			return nil, err
		}
		out.Leases = append(out.Leases, m)
	}
	return out, nil
}

func leaseEntry(c *ledger.Chain, e *ledger.Entry) (*ledgerv1.LeaseEntry, error) {
	transaction, err := message(e.Raw, &chainv1.Transaction{})
	if err != nil {
		return nil, err
	}
	lease := tx.LeaseID(e.Outcome.Created)
	placed := transaction.GetBody().GetOperations()[e.At.Operation].GetPlaceLease()
	m := &ledgerv1.LeaseEntry{
		Id: lease[:], PlacedHeight: e.At.Height, PlacedTime: uint64(e.Time),
		Lease: placed.GetLease(), Fee: placed.GetFee(), Transaction: e.ID[:],
	}
	if m.GetLease() == nil {
		return nil, wrongRow(e)
	}
	if state, found := c.State().Lease(lease); found {
		m.State, err = message(state.Append(nil), &chainv1.LeaseState{})
	}
	return m, err
}

// ListCharges implements the service.
func (s *Server) ListCharges(ctx context.Context, r *ledgerv1.ListChargesRequest) (
	*ledgerv1.ListChargesResponse, error,
) {
	c, err := s.chain(r.GetChain())
	if err != nil {
		return nil, err
	}
	lease, err := id[ledger.Hash](r.GetLease(), "lease")
	if err != nil {
		return nil, err
	}
	query := &ledgerv1.ListChargesRequest{
		Chain: r.GetChain(), Lease: r.GetLease(), Order: r.GetOrder(),
	}
	page, print, err := pageOf(r, query, false)
	if err != nil {
		return nil, err
	}
	listed, err := c.Charges(ctx, lease, page)
	if err != nil {
		return nil, err
	}
	out := &ledgerv1.ListChargesResponse{
		NextPageToken: token(print, listed.Next), Indexed: listed.Indexed,
		Head: listed.Head,
	}
	for i := range listed.Items {
		m, err := chargeEntry(&listed.Items[i])
		if err != nil {
			return nil, err
		}
		out.Charges = append(out.Charges, m)
	}
	return out, nil
}

func chargeEntry(e *ledger.Entry) (*ledgerv1.ChargeEntry, error) {
	transaction, err := message(e.Raw, &chainv1.Transaction{})
	if err != nil {
		return nil, err
	}
	charge := transaction.GetBody().GetOperations()[e.At.Operation].GetCharge()
	if charge == nil {
		return nil, wrongRow(e)
	}
	return &ledgerv1.ChargeEntry{
		Height: e.At.Height, Index: e.At.Index, OperationIndex: e.At.Operation,
		Time: uint64(e.Time), Transaction: e.ID[:], Note: charge.GetNote(),
		Countersigned: charge.GetCountersignature() != nil, Final: charge.GetFinal(),
		Paid: uint64(e.Outcome.Amount), Unpaid: uint64(e.Outcome.Unpaid), Bound: e.Outcome.Bound,
	}, nil
}
