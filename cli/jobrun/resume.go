package jobrun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/proof"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/submit"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// ErrRan says that a job's escrow was used although the scheduler does not know the job: running it
// again would pay twice.
var ErrRan = errors.New("the scheduler has forgotten the job, but it ran: its escrow was used")

// Resume goes on with a job whose command was killed, wherever it stood: a job that the scheduler
// knows is attached to; else its escrow is used if it was opened, and the job queued. The request
// says secrets and credentials again, which are not kept.
func (r *Runner) Resume(ctx context.Context, k Kept, q Request) (*Report, error) {
	q.File.Outputs, q.Dir, q.Detach = k.Outputs, k.Dir, k.Detach
	e, err := r.recall(ctx, k, q)
	if err != nil {
		return nil, err
	}
	defer e.release()
	q.File.Secrets = e.spec.GetSecrets()
	answer, err := r.Session.Scheduler.GetJob(ctx, &schedulerv1.GetJobRequest{Job: e.id[:]})
	switch {
	case err == nil:
		return r.goOnQueued(ctx, e, answer.GetJob(), q)
	case !errors.Is(err, fault.NotFound):
		return nil, fmt.Errorf("look the job up: %w", err)
	}
	if err := checkSecrets(&q); err != nil {
		return nil, err
	}
	if err := r.goOn(ctx, e, q); err != nil {
		return nil, err
	}
	return r.follow(ctx, e, q.Detach)
}

// goOnQueued follows a job that the scheduler knows. Until its program runs, the host may still
// wait for the task with its secrets.
func (r *Runner) goOnQueued(
	ctx context.Context, e *errand, j *schedulerv1.Job, q Request,
) (*Report, error) {
	if state := j.GetState(); !q.Detach && state < jobv1.State_STATE_RUNNING {
		if err := checkSecrets(&q); err != nil {
			return nil, err
		}
	}
	found, err := r.find(ctx, e.id, q)
	if err != nil {
		return nil, err
	}
	found.resumed, found.release = true, e.release
	found.before, found.joined = e.before, e.joined
	return r.follow(ctx, found, q.Detach)
}

// recall makes the errand of what was kept.
func (r *Runner) recall(ctx context.Context, k Kept, q Request) (*errand, error) {
	s := r.Session
	key, err := s.Key()
	if err != nil {
		return nil, err
	}
	if k.Chain != s.Chain || k.Account != id.Bech32(id.Account, s.Account) {
		return nil, fmt.Errorf("%w: it is of %s on the chain %s", ErrNotYours, k.Account, k.Chain)
	}
	revision := new(jobv1.SignedRevision)
	if err := canon.Unmarshal(k.Revision, revision); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKept, err)
	}
	named, err := job.Verify(revision, sig.KeySet{})
	if err != nil || jobText(named) != k.Job {
		return nil, errors.Join(ErrKept, err)
	}
	genesis, err := s.Genesis(ctx)
	if err != nil {
		return nil, err
	}
	e := &errand{
		id: named, revision: revision, spec: revision.GetRevision().GetSpec(), file: q.File,
		secrets: q.Secrets, credentials: q.Credentials, dir: q.Dir, key: key,
		trust: proof.TrustOf(genesis), resumed: true, started: k.Started,
	}
	if err := r.hold(e); err != nil {
		return nil, err
	}
	if e.token, err = r.storageToken(e); err != nil {
		e.release()
		return nil, err
	}
	if e.joined = k.Before == nil; !e.joined {
		e.before = tx.Grains(*k.Before)
		return e, nil
	}
	if e.before, err = s.Balance(ctx, s.Account); err != nil {
		e.release()
		return nil, err
	}
	return e, nil
}

// goOn opens the escrow unless there is one, and queues the job.
func (r *Runner) goOn(ctx context.Context, e *errand, q Request) error {
	known, err := r.unspent(ctx, e)
	if err != nil {
		return err
	}
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*callTimeout)
	defer cancel()
	e.joined = e.joined && len(known) > 0
	if len(known) == 0 {
		terms, err := r.terms(ctx, e, q.Detach)
		if err != nil {
			return err
		}
		failed := r.open(work, e, terms)
		// That of the killed command may have come into a block meanwhile, and taken the money.
		if known, err = r.unspent(work, e); err != nil || len(known) == 0 {
			return fmt.Errorf("%w; go on with `ucn job resume %s`", errors.Join(failed, err),
				jobText(e.id))
		}
		e.anew = failed == nil
	}
	e.escrow, e.since = tx.EscrowID(known[0].GetId()), known[0].GetOpenedHeight()
	return r.queue(work, e, q)
}

// unspent lists the open escrows of the job. An escrow that hosts were paid from says that the job
// ran, although the scheduler has forgotten it.
func (r *Runner) unspent(ctx context.Context, e *errand) ([]*ledgerv1.EscrowEntry, error) {
	all, err := r.escrowsOf(ctx, e, ledgerv1.Openness_OPENNESS_UNSPECIFIED)
	if err != nil {
		return nil, err
	}
	var open []*ledgerv1.EscrowEntry
	for _, one := range all {
		leases, err := r.Session.Ledger.ListLeases(ctx, &ledgerv1.ListLeasesRequest{
			Chain: r.Session.Chain, Escrow: one.GetId(), PageSize: 1,
		})
		switch {
		case err != nil:
			return nil, fmt.Errorf("look at the job's escrow: %w", err)
		case len(leases.GetLeases()) > 0 || leases.GetNextPageToken() != "":
			return nil, fmt.Errorf("%w: see `ucn job bill %s`, and take back what is left with "+
				"`ucn escrow close`", ErrRan, jobText(e.id))
		case one.GetEscrow() != nil:
			open = append(open, one)
		}
	}
	return open, nil
}

// closeTwins closes the job's other escrows: of a command that was killed while it opened one.
func (r *Runner) closeTwins(ctx context.Context, e *errand) {
	if !e.resumed {
		return
	}
	open, err := r.escrowsOf(ctx, e, ledgerv1.Openness_OPENNESS_OPEN)
	if err != nil {
		e.unsure = true
		r.warn(e, "cannot see whether there is another escrow of the job: %v", err)
	}
	for _, one := range open {
		if bytes.Equal(one.GetId(), e.escrow[:]) {
			continue
		}
		twin := &tx.CloseEscrow{Escrow: tx.EscrowID(one.GetId())}
		result, err := r.Session.Sender.Send(ctx, twin)
		e.sent(result.ID, result.Receipt)
		if err != nil {
			e.unsure = true
			r.warn(e, "a second escrow of the job is not closed: %v", err)
		}
	}
	if until := e.started.Add(submit.ValidFor); e.anew && r.Session.Now().Before(until) {
		e.unsure = true
		r.warn(e, "the escrow of the command that was killed may still be opened until %s",
			until.Local().Format("15:04:05"))
	}
}

// maxTwins is how many escrows of one job are looked at, maxTwinPages in how many pages: anybody
// can open escrows that name the job, and pages without one of ours are empty.
const (
	maxTwins     = 10
	maxTwinPages = 100
)

// escrowsOf lists the owner's escrows that name the job.
func (r *Runner) escrowsOf(
	ctx context.Context, e *errand, which ledgerv1.Openness,
) (list []*ledgerv1.EscrowEntry, err error) {
	request := &ledgerv1.ListEscrowsRequest{
		Chain: r.Session.Chain, Owner: r.Session.Account[:], Subject: e.id[:], PageSize: maxTwins,
		Openness: which,
	}
	for range maxTwinPages {
		page, err := r.Session.Ledger.ListEscrows(ctx, request)
		if err != nil {
			return nil, fmt.Errorf("look for the job's escrow: %w", err)
		}
		list = append(list, page.GetEscrows()...)
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" ||
			len(list) >= maxTwins {
			break
		}
	}
	return list, nil
}

// keep writes the job down before money moves.
func (r *Runner) keep(e *errand, q Request) error {
	if r.Errands == nil {
		return nil
	}
	raw, err := canon.Marshal(e.revision)
	if err != nil {
		return fmt.Errorf("write the job down: %w", err)
	}
	dir, err := filepath.Abs(q.Dir)
	if err != nil {
		return fmt.Errorf("write the job down: %w", err)
	}
	before := amount.Amount(e.before)
	if err := r.Errands.Keep(Kept{
		Job: jobText(e.id), Name: e.spec.GetName(), Chain: r.Session.Chain,
		Account: id.Bech32(id.Account, r.Session.Account), Revision: raw,
		Outputs: absolute(e.file.Outputs), Dir: dir, Detach: q.Detach, Started: r.Session.Now(),
		Before: &before,
	}); err != nil {
		return err
	}
	return r.hold(e)
}

// hold makes the job this command's until it ends.
func (r *Runner) hold(e *errand) (err error) {
	e.release = func() {}
	if r.Errands != nil {
		e.release, err = r.Errands.Hold(e.id)
	}
	return err
}

// drop forgets a job that needs nobody any more.
func (r *Runner) drop(e *errand) {
	if r.Errands == nil {
		return
	}
	if e.unsure {
		r.warn(e, "look again later: `ucn job resume %s`", jobText(e.id))
		return
	}
	if err := r.Errands.Drop(e.id); err != nil {
		r.warn(e, "the job is over, but %v; forget it with `ucn job resume --forget %s`", err,
			jobText(e.id))
	}
}

// unopened forgets a job whose escrow is in no block and will be in none.
func (r *Runner) unopened(e *errand, cause error) error {
	if errors.Is(cause, submit.ErrUnknown) || errors.Is(cause, context.DeadlineExceeded) {
		return fmt.Errorf("%w; go on with `ucn job resume %s`", cause, jobText(e.id))
	}
	r.drop(e)
	return cause
}

// absolute makes the places of outputs independent of where a command is run.
func absolute(outputs []jobfile.Output) []jobfile.Output {
	outputs = slices.Clone(outputs)
	for i := range outputs {
		file := &outputs[i].File
		if *file == "" || filepath.IsAbs(*file) {
			continue
		}
		if whole, err := filepath.Abs(*file); err == nil {
			if strings.HasSuffix(*file, "/") {
				whole += "/"
			}
			*file = whole
		}
	}
	return outputs
}
