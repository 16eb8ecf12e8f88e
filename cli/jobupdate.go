package cli

import (
	"context"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/id"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

func (a *app) jobUpdate() *cobra.Command {
	replicas, backoff, keep := uint32(0), time.Duration(0), false
	cmd := &cobra.Command{
		Use: "update JOB", Short: "Change how many replicas of a job run",
		Long: `Sign a further revision of a job that runs always (--trigger always). What runs goes on:
more replicas are placed beside it, as far as the escrow has money that no lease holds (what runs
usually holds all of it: see ucn escrow topup --raise); those that are too many are stopped, and
what they used is billed.

Only replicas and backoff can change. Another program is another job.

--print signs the revision, but prints the body of POST /v1/jobs/{job}:update instead of sending
it.`,
		Example: "  ucn job update ucnj1... --replicas 3",
		Args:    args(cobra.ExactArgs(1)),
	}
	cmd.RunE = a.session(withKey, func(ctx context.Context, l *link, list []string) error {
		more, wait := cmd.Flags().Changed("replicas"), cmd.Flags().Changed("backoff")
		if !more && !wait {
			return usagef("say what is to change: --replicas or --backoff")
		}
		if more && replicas == 0 {
			return usagef("--replicas must be 1 or more; job cancel ends a job")
		}
		if backoff < 0 {
			return usagef("--backoff must not be below 0")
		}
		return a.updateJob(ctx, l, list[0], keep, func(s *jobv1.JobSpec) {
			if more {
				s.Replicas = replicas
			}
			if wait && s.Limits == nil {
				s.Limits = &jobv1.Limits{}
			}
			if wait {
				s.Limits.BackoffMs = uint64(backoff.Milliseconds())
			}
		})
	})
	cmd.Flags().Uint32Var(&replicas, "replicas", 0, "how many run side by side")
	cmd.Flags().DurationVar(&backoff, "backoff", 0, "first wait before a restart; it doubles")
	cmd.Flags().BoolVar(&keep, "print", false, "print the signed revision for REST, send nothing")
	return cmd
}

// updateJob signs the revision that follows the one in force, changed, and sends or prints it.
func (a *app) updateJob(
	ctx context.Context, l *link, text string, keep bool, change func(*jobv1.JobSpec),
) error {
	jobID, err := parseJob(text)
	if err != nil {
		return err
	}
	key, err := l.Key()
	if err != nil {
		return err
	}
	held, err := l.Scheduler.GetJob(ctx, &schedulerv1.GetJobRequest{Job: jobID[:]})
	if err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	newest := held.GetJob().GetUpdate()
	if newest == nil {
		newest = held.GetJob().GetRevision()
	}
	err = job.VerifyNewest(job.ID(jobID), held.GetJob().GetRevision(), newest,
		sig.SingleKey(key.Public()))
	if err != nil {
		return fmt.Errorf("the scheduler shows what this wallet did not sign for %s: nothing is "+
			"signed: %w", text, err)
	}
	spec := proto.CloneOf(newest.GetRevision().GetSpec())
	change(spec)
	revision, err := job.SignNext(key, job.ID(jobID), newest, spec)
	if err != nil {
		return fmt.Errorf("sign the revision: %w", err)
	}
	request := &schedulerv1.UpdateJobRequest{Revision: revision}
	if keep { // the path of the call names the job
		body, err := rawJSON(request)
		if err != nil {
			return err
		}
		return a.emitJSON(body)
	}
	request.Job = jobID[:]
	answer, err := l.Scheduler.UpdateJob(ctx, request)
	if err != nil {
		return fmt.Errorf("update %s: %w", text, err)
	}
	a.tellNeed(ctx, l, answer.GetJob().GetEscrow(), replicasOf(newest.GetRevision()),
		replicasOf(revision.GetRevision()))
	r := jobOf(answer.GetJob())
	return a.emit(r, func(w io.Writer) {
		printf(w, "%s\trevision %d\t%s\t%s\n", r.Job, revision.GetRevision().GetNumber(),
			first(r.Result, r.State), screen.Clean(r.Reason))
	})
}

func replicasOf(r *jobv1.Revision) uint64 { return uint64(max(r.GetSpec().GetReplicas(), 1)) }

// tellNeed says what to type when more replicas are asked for than the escrow has money for: those
// that run hold all of it. Whether it was seen does not matter to the update.
func (a *app) tellNeed(ctx context.Context, l *link, escrow []byte, before, after uint64) {
	answer, err := l.Ledger.GetEscrow(ctx, &ledgerv1.GetEscrowRequest{
		Chain: l.Chain, Escrow: escrow,
	})
	held := answer.GetEscrow()
	if err != nil || after <= before || held.GetLive() == 0 {
		return
	}
	more := after - before
	hour := held.GetRate() / uint64(held.GetLive()) // of one replica
	if answer.GetUnreserved()/more > hour {
		return
	}
	// As much for each as those before had.
	sum := held.GetTerms().GetMaxTotal() / before
	if sum > math.MaxUint64/more {
		return
	}
	a.aside("the leases of those that run hold the escrow's money, %s is free: %s more will wait "+
		"until you add some, such as: ucn escrow topup %s %s --raise",
		amount.Text(tx.Grains(answer.GetUnreserved())), many(int(more), "replica"),
		bytesText(id.Escrow, escrow), amount.Format(tx.Grains(sum*more)))
}
