package jobrun

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/bill"
	"github.com/united-containers/ucn/cli/unclosed"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// closeSoon is how long it is worth waiting until an escrow can be closed.
const closeSoon = 3 * time.Second

// report tells how the job ended.
func (f *following) report(ctx context.Context, j *schedulerv1.Job) *Report {
	out := &Report{
		Job: jobText(f.e.id), Name: f.e.spec.GetName(), TraceID: traceID(ctx),
		Escrow: escrowText(f.e.escrow),
		State:  stateText(j.GetState()), Result: endText(j.GetEndReason()), Reason: j.GetReason(),
		Outputs: []Output{},
	}
	if out.TraceID == "" {
		out.TraceID = j.GetTraceId()
	}
	o := f.outcome(j)
	out.ExitCode, out.LogCID = o.GetExitCode(), o.GetLogCid()
	for _, file := range o.GetOutputs() {
		out.Outputs = append(out.Outputs, Output{
			Path: file.GetPath(), CID: file.GetCid(), Size: file.GetSize(),
		})
	}
	return out
}

// finish saves outputs, takes back what is left of the escrow and makes the bill. What goes wrong
// becomes a warning: the job itself is over.
func (r *Runner) finish(ctx context.Context, f *following, j *schedulerv1.Job, out *Report) {
	r.save(ctx, f.e, out)
	leases := leasesOf(j)
	if many(f.e.spec) {
		leases = r.allLeases(ctx, f.e, leases)
	}
	paid, locked := r.settleAll(ctx, f.e, leases)
	out.Bill = r.bill(ctx, f, leases, paid)
	out.Bill.Locked, out.Bill.Closed = amount.Amount(locked), locked == 0 && !f.e.unsure
	if e := f.e; e.spec.GetPayment().GetHoldback() > 0 && locked > 0 {
		r.heldBack(ctx, e, leases, out.Bill)
	}
	if locked > 0 && !f.e.unsure {
		out.ClosesLater = r.closeLater(f.e, unclosed.Escrow{
			NotBefore: uint64(latestPlacing(leases)) + 1, Ended: true,
		})
	}
	out.Warnings = f.e.warnings
}

// Unclosed remembers escrows to close.
type Unclosed interface {
	// Keep returns when it would survive a power failure.
	Keep(e unclosed.Escrow) error
}

// closeLater leaves the errand's escrow to a later command of the wallet.
func (r *Runner) closeLater(e *errand, as unclosed.Escrow) bool {
	if r.Unclosed == nil {
		return false
	}
	s := r.Session
	as.Escrow, as.Job, as.Name = escrowText(e.escrow), jobText(e.id), e.spec.GetName()
	as.Chain, as.Anchor = s.Chain, hex.EncodeToString(s.Anchor[:])
	as.Account = id.Bech32(id.Account, s.Account)
	if err := r.Unclosed.Keep(as); err != nil {
		r.warn(e, "the escrow must be closed by hand: %v", err)
		return false
	}
	return true
}

// latestPlacing is the time after which all the leases can be removed.
func latestPlacing(leases []leased) (latest tx.Millis) {
	for _, l := range leases {
		latest = max(latest, l.placeBy)
	}
	return latest
}

// leased is a lease of the job and whose it is.
type leased struct {
	id      tx.LeaseID
	host    string
	prices  price.Prices
	placeBy tx.Millis
	// unlisted: the scheduler does not list it any more, so its prices are not known here.
	unlisted bool
}

func leasesOf(j *schedulerv1.Job) (list []leased) {
	for _, run := range j.GetRuns() {
		for _, a := range run.GetAttempts() {
			if len(a.GetLease()) != len(tx.LeaseID{}) {
				continue
			}
			list = append(list, leased{
				id: tx.LeaseID(a.GetLease()), host: a.GetHost(),
				prices:  price.PricesFromPB(a.GetPrices()),
				placeBy: tx.Millis(a.GetSignedLease().GetLease().GetPlaceBy()),
			})
		}
	}
	return list
}

// allLeases adds the leases under the job's escrow that the scheduler does not list any more.
func (r *Runner) allLeases(ctx context.Context, e *errand, known []leased) []leased {
	have := map[tx.LeaseID]bool{}
	for _, l := range known {
		have[l.id] = true
	}
	request := &ledgerv1.ListLeasesRequest{
		Chain: r.Session.Chain, Escrow: e.escrow[:], PageSize: maxWatched,
	}
	for range maxWatched { // pages may be empty
		page, err := r.Session.Ledger.ListLeases(ctx, request)
		if err != nil {
			r.warn(e, "cannot list the job's leases: %v", err)
			return known
		}
		for _, entry := range page.GetLeases() {
			id := entry.GetId()
			if len(id) != len(tx.LeaseID{}) || have[tx.LeaseID(id)] {
				continue
			}
			known = append(known, leased{
				id: tx.LeaseID(id), host: fmt.Sprintf("lane %d", entry.GetLease().GetSlot()),
				placeBy: tx.Millis(entry.GetLease().GetPlaceBy()), unlisted: true,
			})
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			break
		}
	}
	return known
}

func (r *Runner) save(ctx context.Context, e *errand, out *Report) {
	for i := range out.Outputs {
		file := &out.Outputs[i]
		if r.Save == nil {
			continue
		}
		to := e.file.LocalName(e.dir, file.Path)
		if err := r.Save(ctx, file.CID, to); err != nil {
			r.warn(e, "output %s is not saved: %v; get it with `ucn file get %s`", file.Path, err,
				file.CID)
			continue
		}
		file.File = to
		r.event(e, Event{
			Kind: KindOutput, Path: file.Path, File: to, CID: file.CID, Size: file.Size,
		})
	}
}

// settleAll waits for the hosts' last charges and takes the rest of the escrow back. It returns
// what the escrow paid in all, as the chain counts, and what is still in it.
func (r *Runner) settleAll(
	ctx context.Context, e *errand, leases []leased,
) (paid spent, locked tx.Grains) {
	until, cancel := context.WithTimeout(ctx, r.settle())
	defer cancel()
	for _, l := range leases {
		if !r.settled(ctx, until, l.id) {
			r.warn(e, "%s has not made its last charge; what its lease reserves comes back with "+
				"`ucn escrow close %s` later", l.host, escrowText(e.escrow))
		}
	}
	var escrow *ledgerv1.GetEscrowResponse
	err := r.patience().read(ctx, func(ctx context.Context) (err error) {
		escrow, err = r.escrow(ctx, e)
		return err
	})
	switch {
	case errors.Is(err, fault.NotFound):
		return paid, 0
	case err != nil:
		e.unsure = true
		r.warn(e, "cannot read the escrow: %v", err)
		return paid, 0
	}
	paid.hosts = tx.Grains(escrow.GetEscrow().GetPaid())
	paid.fees = tx.Grains(escrow.GetEscrow().GetLeaseFees())
	if err := r.takeBack(ctx, e, leases, escrow); err != nil {
		r.warn(e, "cannot take the rest of the escrow back: %v; try `ucn escrow close %s`", err,
			escrowText(e.escrow))
	}
	after, err := r.escrow(ctx, e)
	switch {
	case errors.Is(err, fault.NotFound):
		return paid, 0
	case err != nil:
		after = escrow
	}
	return paid, tx.Grains(after.GetEscrow().GetBalance() + after.GetEscrow().GetLock())
}

// settled waits until a lease has got its last charge or is gone, or the time to wait is over.
func (r *Runner) settled(ctx, until context.Context, lease tx.LeaseID) bool {
	look := func() (*ledgerv1.GetLeaseResponse, error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		return r.Session.Ledger.GetLease(ctx, &ledgerv1.GetLeaseRequest{
			Chain: r.Session.Chain, Lease: lease[:],
		})
	}
	for {
		answer, err := look()
		if errors.Is(err, fault.NotFound) || err == nil && answer.GetLease().GetSettled() {
			return true
		}
		if !pause(until, r.poll()) {
			return false
		}
	}
}

// heldBack finds what waits for the owner's word, and until when.
func (r *Runner) heldBack(ctx context.Context, e *errand, leases []leased, out *Bill) {
	const window = 24 * time.Hour // of the chain: after it silence has accepted
	for _, l := range leases {
		answer, err := r.Session.Ledger.GetLease(ctx, &ledgerv1.GetLeaseRequest{
			Chain: r.Session.Chain, Lease: l.id[:],
		})
		s := answer.GetLease()
		switch {
		case errors.Is(err, fault.NotFound):
			continue
		case err != nil:
			r.warn(e, "cannot see what of a lease is held back: %v", err)
			continue
		case s.GetHoldback() != chainv1.Holdback_HOLDBACK_UNSPECIFIED:
			continue
		}
		out.Held += amount.Amount(s.GetWithheld())
		end := time.UnixMilli(int64(min(s.GetUntil(), cmp.Or(s.GetEnd(), s.GetUntil()))))
		if until := end.Add(window); out.Accepts == nil || until.Before(*out.Accepts) {
			out.Accepts = &until
		}
	}
}

func (r *Runner) escrow(ctx context.Context, e *errand) (*ledgerv1.GetEscrowResponse, error) {
	return r.Session.Ledger.GetEscrow(ctx, &ledgerv1.GetEscrowRequest{
		Chain: r.Session.Chain, Escrow: e.escrow[:],
	})
}

// takeBack closes the escrow. A lease's leaf stands until its place_by is over, so soon after the
// beginning only the unreserved money can be taken.
func (r *Runner) takeBack(
	ctx context.Context, e *errand, leases []leased, escrow *ledgerv1.GetEscrowResponse,
) error {
	free := escrow.GetUnreserved()
	if escrow.GetEscrow().GetReserved() == 0 {
		ops, wait := closing(e.escrow, leases, r.Session.Now())
		if wait <= closeSoon && pause(ctx, wait) {
			err := r.sendClosing(ctx, e, ops)
			if err == nil || free == 0 {
				return err
			}
		}
	}
	if free == 0 {
		return nil
	}
	result, err := r.Session.Sender.Send(ctx, &tx.Withdraw{
		Escrow: e.escrow, Amount: tx.Grains(free),
	})
	e.sent(result.ID, result.Receipt)
	return err
}

// sendClosing sends what closes an escrow, in as many transactions as it takes.
func (r *Runner) sendClosing(ctx context.Context, e *errand, operations []tx.Operation) error {
	for part := range slices.Chunk(operations, SettlesAtOnce) {
		result, err := r.Session.Sender.Send(ctx, part...)
		e.sent(result.ID, result.Receipt)
		if err != nil {
			return err
		}
	}
	return nil
}

// SettlesAtOnce is how many Settles of tx.MaxSettle leases, or a close after fewer of them, fit in
// a transaction: a body has at most 128 KiB, and a lease takes 34 bytes of it.
const SettlesAtOnce = 3

// closing returns what closes an escrow whose leases are settled, and how long it must wait.
func closing(
	escrow tx.EscrowID, leases []leased, now time.Time,
) (operations []tx.Operation, wait time.Duration) {
	for part := range slices.Chunk(leases, tx.MaxSettle) {
		settle := &tx.Settle{}
		for _, l := range part {
			settle.Leases = append(settle.Leases, l.id)
		}
		operations = append(operations, settle)
	}
	if len(leases) > 0 {
		const after = 50 * time.Millisecond // block times are those of the proposer's clock
		wait = max(time.UnixMilli(int64(latestPlacing(leases))).Sub(now)+after, 0)
	}
	return append(operations, &tx.CloseEscrow{Escrow: escrow}), wait
}

// bill finds the charges, proves them and the owner's own transactions, and adds up.
func (r *Runner) bill(
	ctx context.Context, f *following, leases []leased, paid spent,
) *Bill {
	e := f.e
	out := &Bill{
		Escrow: escrowText(e.escrow), Charges: []ChargeLine{}, Fees: amount.Amount(e.fees),
	}
	if before := amount.Amount(e.before); !e.joined {
		out.Before = &before
	}
	ids := make([]tx.LeaseID, len(leases))
	for i, l := range leases {
		ids[i] = l.id
	}
	ledger := r.patience()
	found, err := bill.Charges(ctx, ledger, e.trust, bill.Search{
		Escrow: e.escrow, Owner: r.Session.Account, Leases: ids, From: e.since,
	})
	for i := range found.Charges {
		out.Charges = append(out.Charges, f.line(&found.Charges[i], leases))
	}
	proven := bill.Sum(found.Charges)
	out.Paid = amount.Amount(proven)
	switch {
	case err != nil:
		out.Paid = amount.Amount(max(paid.hosts, proven))
		r.warn(e, "cannot find or prove all charges: %v; what was paid is as the ledger says", err)
	case paid.hosts != 0 && proven != paid.hosts:
		r.warn(e, "the ledger shows charges of %s, the escrow says that it paid %s", out.Paid,
			amount.Text(paid.hosts))
	}
	out.LeaseFees = r.leaseFees(e, &found, paid.fees, err)
	out.Proofs = proofs(&found) + r.ownProofs(ctx, ledger, e, found.Own, out)
	err = ledger.read(ctx, func(ctx context.Context) error {
		after, err := r.Session.Balance(ctx, r.Session.Account)
		out.After = amount.Amount(after)
		return err
	})
	if err != nil {
		r.warn(e, "%v", err)
	}
	return out
}

// proofs counts the transactions behind charges and fees, each of which was verified.
func proofs(found *bill.Found) int {
	seen := map[tx.ID]bool{}
	for i := range found.Charges {
		seen[found.Charges[i].Transaction] = true
	}
	for i := range found.Placed {
		seen[found.Placed[i].Transaction] = true
	}
	return len(seen)
}

// ownProofs verifies the receipts of the owner's own transactions and takes the refund from them,
// and of those that other commands sent, listed by the ledger, the fees too.
func (r *Runner) ownProofs(
	ctx context.Context, ledger bill.Ledger, e *errand, listed []tx.ID,
	out *Bill,
) (verified int) {
	all := slices.Concat(e.own, listed)
	for i, id := range all {
		if id == (tx.ID{}) || slices.Contains(all[:i], id) {
			continue
		}
		answer, err := ledger.Transaction(ctx, id)
		if err != nil {
			r.warn(e, "cannot prove an own transaction: %v", err)
			continue
		}
		proven, err := bill.Verify(answer.GetProof(), e.trust)
		if err != nil || proven.ID != id || proven.Transaction.Account != r.Session.Account {
			r.warn(e, "the ledger's proof of transaction %s does not hold: %v", id, err)
			continue
		}
		verified++
		if !slices.Contains(e.own, id) {
			out.Fees += amount.Amount(proven.Receipt.Fee)
		}
		out.Refunded += amount.Amount(refund(&proven.Receipt, proven.Transaction))
	}
	return verified
}

// refund is what a transaction brought back from an escrow.
func refund(receipt *tx.Receipt, t *tx.Transaction) (total tx.Grains) {
	for i := range min(len(receipt.Outcomes), len(t.Operations)) {
		switch t.Operations[i].(type) {
		case *tx.Withdraw, *tx.CloseEscrow:
			total += receipt.Outcomes[i].Amount
		}
	}
	return total
}

// line is a charge with what the owner knows of its usage and prices.
func (f *following) line(c *bill.Charge, leases []leased) ChargeLine {
	line := ChargeLine{
		Lease: leaseText(c.Lease), Transaction: c.Transaction.String(), Block: c.Height,
		Time: time.UnixMilli(int64(c.Time)).UTC(), Cumulative: amount.Amount(c.Note.Cumulative),
		Paid: amount.Amount(c.Paid), Unpaid: amount.Amount(c.Unpaid), Bound: boundText(c.Bound),
		Countersigned: c.Countersigned, Final: c.Final, ProofVerified: true,
	}
	for _, l := range leases {
		if l.id == c.Lease {
			line.Host = l.host
			if !l.unlisted {
				line.Prices = PricesOf(&l.prices)
			}
		}
	}
	for _, v := range f.order {
		if usage, ok := v.usages[c.Note.UsageHash]; ok && v.lease == c.Lease {
			line.Usage = usageOf(&usage)
		} else if usage := price.UsageFromPB(v.lastUsage()); v.lease == c.Lease &&
			usage.Hash() == c.Note.UsageHash {
			line.Usage = usageOf(&usage)
		}
	}
	return line
}

func boundText(b chainv1.Bound) string {
	if b == chainv1.Bound_BOUND_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(b.String(), "BOUND_"), "_", "-"))
}

// PricesOf are prices in UCN.
func PricesOf(p *price.Prices) *Prices {
	model := "linear"
	if p.Model == price.Flat {
		model = "flat"
	} else if p.Model != price.Linear {
		model = fmt.Sprintf("model %d", p.Model)
	}
	return &Prices{
		Model: model, WallHour: amount.Amount(p.WallHour), CoreHour: amount.Amount(p.CoreHour),
		MemoryGiBHour: amount.Amount(p.MemoryGiBHour), GiBIn: amount.Amount(p.GiBIn),
		GiBOut: amount.Amount(p.GiBOut), DiskGiBHour: amount.Amount(p.DiskGiBHour),
		Run: amount.Amount(p.Run),
	}
}
