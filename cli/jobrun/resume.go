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
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/submit"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// Resume goes on with a job whose command was killed, wherever it stood: a job that the scheduler
// knows is attached to; else its escrow is used if it was opened, and the job queued. The request
// says secrets and credentials again, which are not kept.
func (r *Runner) Resume(ctx context.Context, k Kept, q Request) (*Report, error) {
	q.File.Outputs, q.Dir, q.Detach = k.Outputs, k.Dir, k.Detach
	e, err := r.recall(ctx, k, q)
	if err != nil {
		return nil, err
	}
	_, err = r.Session.Scheduler.GetJob(ctx, &schedulerv1.GetJobRequest{Job: e.id[:]})
	switch {
	case err == nil && !q.Detach:
		return r.Attach(ctx, e.id, q)
	case err == nil:
		return r.follow(ctx, e, true)
	case !errors.Is(err, fault.NotFound):
		return nil, fmt.Errorf("look the job up: %w", err)
	}
	q.File.Secrets = e.spec.GetSecrets()
	if err := checkSecrets(&q); err != nil {
		return nil, err
	}
	if err := r.goOn(ctx, e, q); err != nil {
		return nil, err
	}
	return r.follow(ctx, e, q.Detach)
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
		trust: proof.TrustOf(genesis),
	}
	if e.token, err = r.storageToken(e); err != nil {
		return nil, err
	}
	e.before, err = s.Balance(ctx, s.Account)
	return e, err
}

// goOn opens the escrow unless there is one, and queues the job.
func (r *Runner) goOn(ctx context.Context, e *errand, q Request) error {
	known, err := r.escrowsOf(ctx, e)
	if err != nil {
		return err
	}
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*callTimeout)
	defer cancel()
	if len(known) > 0 {
		e.escrow, e.since = tx.EscrowID(known[0].GetId()), known[0].GetOpenedHeight()
		return r.queue(work, e, q)
	}
	terms, err := r.terms(ctx, e, q.Detach)
	if err != nil {
		return err
	}
	if err := r.open(work, e, terms); err != nil {
		return r.unopened(e, err)
	}
	if err := r.closeTwin(work, e); err != nil {
		return err
	}
	return r.queue(work, e, q)
}

// closeTwin closes the escrow that was just opened when one from before the kill came into a block
// meanwhile, and goes on with that.
func (r *Runner) closeTwin(ctx context.Context, e *errand) error {
	known, err := r.escrowsOf(ctx, e)
	if err != nil || len(known) < 2 {
		return err
	}
	for _, one := range known {
		if bytes.Equal(one.GetId(), e.escrow[:]) {
			continue
		}
		result, err := r.Session.Sender.Send(ctx, &tx.CloseEscrow{Escrow: e.escrow})
		if err != nil {
			return fmt.Errorf("close a second escrow: %w", err)
		}
		e.sent(result.ID, result.Receipt)
		e.escrow = tx.EscrowID(one.GetId())
		return nil
	}
	return nil
}

// maxTwins is how many escrows of one job are looked at.
const maxTwins = 10

// escrowsOf lists the owner's open escrows that name the job.
func (r *Runner) escrowsOf(ctx context.Context, e *errand) ([]*ledgerv1.EscrowEntry, error) {
	page, err := r.Session.Ledger.ListEscrows(ctx, &ledgerv1.ListEscrowsRequest{
		Chain: r.Session.Chain, Owner: r.Session.Account[:], Subject: e.id[:], PageSize: maxTwins,
		Openness: ledgerv1.Openness_OPENNESS_OPEN,
	})
	if err != nil {
		return nil, fmt.Errorf("look for the job's escrow: %w", err)
	}
	return page.GetEscrows(), nil
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
	return r.Errands.Keep(Kept{
		Job: jobText(e.id), Name: e.spec.GetName(), Chain: r.Session.Chain,
		Account: id.Bech32(id.Account, r.Session.Account), Revision: raw,
		Outputs: absolute(e.file.Outputs), Dir: dir, Detach: q.Detach, Started: r.Session.Now(),
	})
}

// drop forgets a job that needs nobody any more.
func (r *Runner) drop(e *errand) {
	if r.Errands == nil {
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
