package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/id"
)

// signedJob is what job sign prints: all that programs need to submit a job over REST.
type signedJob struct {
	Job    string `json:"job"`
	Escrow string `json:"escrow"`
	// Open is the body of POST /v1/transactions that opens the escrow.
	Open openBody `json:"open"`
	// Submit is the body of POST /v1/jobs, once the escrow is open.
	Submit json.RawMessage `json:"submit"`
	// ValidUntil is until when Open may be submitted, ms since 1970.
	ValidUntil uint64 `json:"valid_until_ms"`
}

type openBody struct {
	Transaction string `json:"transaction"`
	Wait        string `json:"wait"`
}

func (a *app) jobSign() *cobra.Command {
	o, s := jobOptions{}, signing{nonce: -1}
	cmd := &cobra.Command{
		Use:   "sign [-f job.yaml] [IMAGE] [-- ARGS...]",
		Short: "Sign a job and print what submits it over REST; nothing is sent",
		Long: `Sign a job and the transaction that opens its escrow, and print both as JSON for programs
that speak REST: open is the body of POST /v1/transactions, submit that of POST /v1/jobs, in this
order. Nothing is sent and no money moves before; the transaction must be the account's next.

What the job is comes from -f and flags, as for job run. Nobody countersigns such a job, so its
hosts are trusted with its whole budget, as with --detach. It can have no secrets: only who delivers
a job can seal them to its host. What is printed holds a token for the job's files for 24h: keep it
as you keep a password.`,
		Example: `  ucn job sign bafkrei... --max-total 0.2 -- -width 640 >signed.json
  jq .open signed.json | curl --json @- http://127.0.0.1:7680/v1/transactions \
       -H "Authorization: Bearer $(ucn auth token --scope ledger:submit)"
  jq .submit signed.json | curl --json @- http://127.0.0.1:7680/v1/jobs \
       -H "Authorization: Bearer $(ucn auth token --scope job)"`,
		Args: args(oneImage),
	}
	o.addSpec(cmd)
	cmd.Flags().DurationVar(&s.validFor, "valid-for", 10*time.Minute, "how long the escrow may be "+
		"opened, up to 24h")
	cmd.RunE = a.session(withKey, func(ctx context.Context, l *link, list []string) error {
		request, err := o.request(cmd, list)
		if err != nil {
			return err
		}
		if names := request.File.Secrets; len(names) > 0 {
			return usagef("the job names secrets (%s): nobody could deliver them; ucn job run does",
				screen.Clean(fmt.Sprint(names)))
		}
		request.Detach = true
		r := &jobrun.Runner{Session: l.Session, View: screen.Quiet{}}
		signed, err := a.signJob(ctx, l, r, request, &s)
		if err != nil {
			return err
		}
		return a.emitJSON(signed)
	})
	return cmd
}

// signJob signs a job and its escrow.
func (a *app) signJob(
	ctx context.Context, l *link, r *jobrun.Runner, q jobrun.Request, s *signing,
) (*signedJob, error) {
	job, open, submit, err := r.Sign(ctx, q)
	if err != nil {
		return nil, err
	}
	t, err := a.signOperations(ctx, l, s, []tx.Operation{open})
	if err != nil {
		return nil, err
	}
	escrow := tx.EscrowIDOf(t.id, 0)
	submit.Escrow = escrow[:]
	body, err := rawJSON(submit)
	if err != nil {
		return nil, err
	}
	return &signedJob{
		Job: id.Bech32(id.Job, job), Escrow: escrowText(escrow),
		Open:   openBody{Transaction: t.Transaction, Wait: "FINALITY_COMMITTED"},
		Submit: body, ValidUntil: t.ValidUntil,
	}, nil
}
