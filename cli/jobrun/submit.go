package jobrun

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/proof"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/session"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// What an escrow is opened with when the owner says nothing.
const (
	claimWindow = 24 * time.Hour      // hosts may still charge after a lease's end
	queueTime   = 24 * time.Hour      // a job may wait for a host
	endless     = 30 * 24 * time.Hour // run time of a job without a limit
	trustTime   = time.Minute         // of the dearest rate, per lease
	trustLeases = 4                   // that many leases may be unsettled at once
	maxOffers   = 1000
	// feeRoom is what is kept for the fees of opening, withdrawing and closing.
	feeRoom tx.Grains = 1_000_000
)

// submit signs the revision, opens the escrow and queues the job. When queuing fails for good the
// escrow is closed again.
func (r *Runner) submit(ctx context.Context, q Request) (_ *errand, err error) {
	e, err := r.prepare(ctx, q)
	if err != nil {
		return nil, err
	}
	terms, err := r.terms(ctx, e, q.Detach)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := r.keep(e, q); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			e.release()
		}
	}()
	// From here on there is money on its way: what follows is done although ctx ends.
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*callTimeout)
	defer cancel()
	if err := r.open(work, e, terms); err != nil {
		return nil, r.unopened(e, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, r.close(work, e, err)
	}
	if err := r.queue(work, e, q); err != nil {
		return nil, err
	}
	return e, nil
}

// Sign signs a job that others submit, as one to which nobody attends: what opens its escrow, and
// the request with which it is submitted then, in which the escrow is missing. Nothing is sent.
func (r *Runner) Sign(ctx context.Context, q Request) (
	_ job.ID, open *tx.OpenEscrow, submit *schedulerv1.SubmitJobRequest, err error,
) {
	q.Detach = true
	e, err := r.prepare(ctx, q)
	if err != nil {
		return job.ID{}, nil, nil, err
	}
	terms, err := r.terms(ctx, e, q.Detach)
	if err != nil {
		return job.ID{}, nil, nil, err
	}
	return e.id, e.opening(terms), &schedulerv1.SubmitJobRequest{
		Revision: e.revision, StorageToken: e.token,
		Delivery: schedulerv1.Delivery_DELIVERY_SCHEDULER,
	}, nil
}

// opening is what opens the escrow that names the job.
func (e *errand) opening(terms tx.Terms) *tx.OpenEscrow {
	return &tx.OpenEscrow{
		Purpose: chainv1.Purpose_PURPOSE_JOB, Subject: e.id[:], Amount: terms.MaxTotal, Terms: terms,
	}
}

// queue hands the job to the scheduler; repeating it does nothing.
func (r *Runner) queue(ctx context.Context, e *errand, q Request) error {
	delivery := schedulerv1.Delivery_DELIVERY_CLIENT
	if (q.Detach || many(e.spec)) && len(e.secrets)+len(e.credentials) == 0 {
		delivery = schedulerv1.Delivery_DELIVERY_SCHEDULER
	}
	_, err := r.Session.Scheduler.SubmitJob(ctx, &schedulerv1.SubmitJobRequest{
		Revision: e.revision, Escrow: e.escrow[:], StorageToken: e.token, Delivery: delivery,
	})
	if err != nil {
		return r.giveBack(ctx, e, fmt.Errorf("submit the job: %w", err))
	}
	r.event(e, Event{
		Kind: KindSubmitted, Escrow: escrowText(e.escrow), TraceID: traceID(ctx),
		Name: e.spec.GetName(), Platforms: e.spec.GetPlacement().GetPlatforms(),
		Amount: new(amount.Amount),
	})
	return nil
}

// prepare checks and signs, and looks at what the network says of itself.
func (r *Runner) prepare(ctx context.Context, q Request) (*errand, error) {
	s := r.Session
	key, err := s.Key()
	if err != nil {
		return nil, err
	}
	if err := checkSecrets(&q); err != nil {
		return nil, err
	}
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails: crypto/rand ends the process instead
	if err := r.pin(ctx, &q); err != nil {
		return nil, err
	}
	spec, err := q.File.Spec(s.Account, s.Chain, nonce)
	if err != nil {
		return nil, err
	}
	genesis, err := s.Genesis(ctx)
	if err != nil {
		return nil, err
	}
	e := &errand{
		spec: spec, file: q.File, secrets: q.Secrets, dir: q.Dir,
		credentials: q.Credentials, key: key,
		trust: proof.TrustOf(genesis),
	}
	if most := spec.GetArray().GetCount(); most > maxWatched && !q.Detach {
		return nil, fmt.Errorf("%w: it has %d tasks", ErrTooMany, most)
	}
	if q.Detach || many(spec) {
		spec.Payment.Trust = spec.Payment.MaxTotal
	}
	if e.revision, e.id, err = job.Sign(key, spec); err != nil {
		return nil, fmt.Errorf("sign the job: %w", err)
	}
	if e.token, err = r.storageToken(e); err != nil {
		return nil, err
	}
	if e.before, err = s.Balance(ctx, s.Account); err != nil {
		return nil, err
	}
	lock := genesis.Params.EscrowLock
	if need := tx.Grains(spec.Payment.MaxTotal) + lock + feeRoom; e.before < need {
		return nil, fmt.Errorf("%w: it has %s, the escrow takes %s; lower --max-total, or get more "+
			"(`ucn wallet faucet` on a local network)", ErrBalance, amount.Text(e.before),
			amount.Text(need))
	}
	return e, nil
}

func checkSecrets(q *Request) error {
	want := slices.Sorted(slices.Values(q.File.Secrets))
	have := slices.Sorted(maps.Keys(q.Secrets))
	if slices.Equal(want, have) {
		return nil
	}
	return fmt.Errorf("%w: the job names %q, given are %q; use --secret NAME=value or NAME=@file",
		ErrSecrets, want, have)
}

// terms bounds what hosts may take, by what the owner said and what hosts ask today.
func (r *Runner) terms(ctx context.Context, e *errand, detach bool) (tx.Terms, error) {
	assigner, fee, err := Assigner(ctx, r.Session)
	if err != nil {
		return tx.Terms{}, err
	}
	fees, err := grant(e, fee)
	if err != nil {
		return tx.Terms{}, err
	}
	offers, err := r.Session.Scheduler.ListOffers(ctx, &schedulerv1.ListOffersRequest{
		PageSize: maxOffers,
	})
	if err != nil {
		return tx.Terms{}, fmt.Errorf("look at the offers: %w", err)
	}
	total := tx.Grains(e.spec.GetPayment().GetMaxTotal())
	rate, upfront := dearest(e.spec, offers.GetOffers())
	maxRate := tx.GrainsPerHour(e.spec.GetPayment().GetMaxRate())
	if maxRate == 0 {
		maxRate = tx.GrainsPerHour(times(max(rate, 1), 2))
		if rate == 0 {
			maxRate = tx.GrainsPerHour(times(uint64(total), 60)) // all of it within a minute
		}
	}
	if e.spec.GetPayment().GetMaxRate() == 0 {
		maxRate = tx.GrainsPerHour(times(uint64(maxRate), lanes(e.spec)))
	}
	trust := e.spec.GetPayment().GetTrust()
	switch {
	case detach || many(e.spec):
		// Bounded by what the escrow holds; every lane may have some leases that are not settled.
		trust = times(uint64(total), 16*lanes(e.spec))
	case trust > 0:
		trust = times(trust, 1+uint64(e.spec.GetLimits().GetRetries()))
	default:
		minute, err := price.Accrued(maxRate, tx.Millis(trustTime.Milliseconds()))
		if err != nil {
			minute = total
		}
		trust = times(min(uint64(minute)+upfront, uint64(total)), trustLeases)
	}
	run := time.Duration(e.spec.GetLimits().GetRunTimeMs()) * time.Millisecond
	if run == 0 {
		run = endless
	}
	expires, err := r.Session.ExpiresIn(ctx, run+claimWindow+queueTime)
	if err != nil {
		return tx.Terms{}, err
	}
	return tx.Terms{
		MaxRate: maxRate, MaxTotal: total, Trust: tx.Grains(trust),
		AckKeys: []sig.PublicKey{e.key.Public()}, Assigner: assigner,
		Expires: expires, LeaseFee: fee, LeaseFeeTotal: fees,
	}, nil
}

// lanes is how many hosts a job may have at once.
func lanes(spec *jobv1.JobSpec) uint64 {
	if array := spec.GetArray(); array != nil {
		if array.GetParallel() == 0 {
			return uint64(min(defaultParallel, array.GetCount()))
		}
		return uint64(min(array.GetParallel(), array.GetCount()))
	}
	return uint64(max(spec.GetReplicas(), 1))
}

// defaultParallel is how many tasks of an array run at once when the job does not say.
const defaultParallel = 10

// many tells whether a job has more runs than a terminal can countersign: tasks of an array come
// and go faster than they are seen, replicas stay when nobody looks. Its hosts are trusted with its
// whole budget.
func many(spec *jobv1.JobSpec) bool {
	return spec.GetArray() != nil || spec.GetReplicas() > 1 || spec.GetTrigger().GetAlways() != nil
}

// times multiplies and stops at the largest number.
func times(a, b uint64) uint64 {
	if a != 0 && b > math.MaxUint64/a {
		return math.MaxUint64
	}
	return a * b
}

// dearest returns the highest rate and upfront of the offers that the owner's cap allows; 0 when
// there is none.
func dearest(spec *jobv1.JobSpec, offers []*schedulerv1.PostedOffer) (rate, upfront uint64) {
	need := price.ResourcesFromPB(spec.GetResources())
	for _, posted := range offers {
		prices := price.PricesFromPB(posted.GetOffer().GetPrices())
		if most := spec.GetPayment().GetCap(); most != nil &&
			prices.CheckCap(price.PricesFromPB(most)) != nil {
			continue
		}
		perHour, once, err := price.SingleRun(prices, need)
		if err != nil {
			continue
		}
		rate, upfront = max(rate, uint64(perHour)), max(upfront, uint64(once))
	}
	return rate, upfront
}

// Assigner returns the scheduler's account, which may place leases, and what it takes for one: it
// must be that of an instance certified as a scheduler by the operator the network file names.
func Assigner(ctx context.Context, s *session.Session) (_ sig.AccountID, fee tx.Grains, _ error) {
	answer, err := s.Scheduler.GetScheduler(ctx, &schedulerv1.GetSchedulerRequest{})
	if err != nil {
		return sig.AccountID{}, 0, fmt.Errorf("ask the scheduler who it is: %w", err)
	}
	raw, err := canon.Marshal(answer.GetCertificate())
	if err != nil {
		return sig.AccountID{}, 0, fmt.Errorf("%w: %w", ErrScheduler, err)
	}
	c, _, err := s.Judge().Verify(ctx, raw)
	if err != nil {
		return sig.AccountID{}, 0, fmt.Errorf("%w: %w", ErrScheduler, err)
	}
	assigner := sig.AccountOfKey(c.InstanceKey)
	if c.Operator != s.Operator || !c.Covers("scheduler") ||
		string(assigner[:]) != string(answer.GetAssigner()) {
		return sig.AccountID{}, 0, ErrScheduler
	}
	return assigner, tx.Grains(answer.GetLeaseFee()), nil
}

// open opens the escrow that names the job.
func (r *Runner) open(ctx context.Context, e *errand, terms tx.Terms) error {
	result, err := r.Session.Sender.Send(ctx, e.opening(terms))
	if err != nil && result.ID != (tx.ID{}) {
		return fmt.Errorf("open the escrow %s: %w", escrowText(tx.EscrowIDOf(result.ID, 0)), err)
	} else if err != nil {
		return fmt.Errorf("open the escrow: %w", err)
	}
	e.sent(result.ID, result.Receipt)
	e.since = result.Height
	e.escrow = tx.EscrowIDOf(result.ID, 0)
	r.event(e, Event{
		Kind: KindState, State: "escrow open", Escrow: escrowText(e.escrow),
		Reason: fmt.Sprintf("%s holds %s%s", escrowText(e.escrow), amount.Text(terms.MaxTotal),
			feesText(&terms)),
	})
	return nil
}

// sent keeps a transaction of the owner's for the bill.
func (e *errand) sent(id tx.ID, receipt *chainv1.Receipt) {
	e.own = append(e.own, id)
	e.fees += tx.Grains(receipt.GetFee())
}

// giveBack closes the escrow of a job that could not be queued, unless it may be queued after all.
func (r *Runner) giveBack(ctx context.Context, e *errand, cause error) error {
	if !Lasting(cause) {
		return fmt.Errorf("%w; its escrow %s holds %s: go on with `ucn job resume %s`, or take "+
			"the money back with `ucn escrow close %s`", cause, escrowText(e.escrow),
			amount.Text(e.spec.GetPayment().GetMaxTotal()), jobText(e.id), escrowText(e.escrow))
	}
	return r.close(ctx, e, cause)
}

// close closes an escrow under which nothing was leased.
func (r *Runner) close(ctx context.Context, e *errand, cause error) error {
	if _, err := r.Session.Sender.Send(ctx, &tx.CloseEscrow{Escrow: e.escrow}); err != nil {
		return errors.Join(cause, fmt.Errorf("closing its escrow %s failed too, try `ucn escrow "+
			"close`: %w", escrowText(e.escrow), err))
	}
	r.drop(e)
	return cause
}

// heightAt returns the height of the last block that is older than a time in ms.
func (r *Runner) heightAt(ctx context.Context, ms uint64) (uint64, error) {
	const slack = 10_000 // ms between the two clocks
	s := r.Session
	chain, err := s.Ledger.GetChain(ctx, &ledgerv1.GetChainRequest{Chain: s.Chain})
	if err != nil {
		return 0, fmt.Errorf("read the chain: %w", err)
	}
	low, high := uint64(0), chain.GetHead().GetHeight()
	for low < high {
		middle := low + (high-low+1)/2
		b, err := s.Ledger.GetBlock(ctx, &ledgerv1.GetBlockRequest{
			Chain: s.Chain, Height: middle, HeaderOnly: true,
		})
		if err != nil {
			return 0, fmt.Errorf("read block %d: %w", middle, err)
		}
		if b.GetBlock().GetHeader().GetTime()+slack < ms {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return low, nil
}
