package cli

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/reference"
	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/id"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

func (a *app) manCommand() *cobra.Command {
	markdown := false
	cmd := &cobra.Command{
		Use: "man FOLDER", Short: "Write man pages for all commands, or Markdown",
		Long: `Write a man page for each command into a folder. To have them found by man, let the folder
be called man1 and stand in one of those that manpath prints.`,
		Example: `  ucn man ~/.local/share/man/man1 && man ucn-job-run
  ucn man --markdown docs/cli`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, list []string) error {
			var pages []string
			var err error
			if markdown {
				pages, err = reference.Markdown(cmd.Root(), list[0])
			} else {
				pages, err = reference.Man(cmd.Root(), list[0], a.Now())
			}
			if err != nil {
				return err
			}
			result := struct {
				Folder string   `json:"folder"`
				Pages  []string `json:"pages"`
			}{list[0], pages}
			return a.emit(result, func(w io.Writer) {
				printf(w, "%d pages in %s\n", len(pages), list[0])
			})
		},
	}
	cmd.Flags().BoolVar(&markdown, "markdown", false, "write Markdown instead")
	return cmd
}

// completeTime is how long a shell waits for suggestions, everything included: someone has pressed
// a key and looks at a cursor that does not move.
const completeTime = 700 * time.Millisecond

// completions is how many are suggested at most.
const completions = 50

// suggest lists what can stand in a place, with a word of explanation.
type suggest func(ctx context.Context, l *link) ([]cobra.Completion, error)

// complete makes a shell's completion of a listing. It asks nobody for a passphrase and says
// nothing when it cannot reach the network: a shell has no place for complaints.
func (a *app) complete(needsKey bool, list suggest) cobra.CompletionFunc {
	return func(cmd *cobra.Command, have []string, typed string) ([]cobra.Completion,
		cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
		defer cancel()
		cmd.SetContext(ctx)
		quiet := *a
		quiet.Err = io.Discard
		quiet.Env = func(name string) string { // a collector would be waited for
			if strings.HasPrefix(name, "OTEL_") {
				return ""
			}
			return a.Env(name)
		}
		quiet.Password = func(string) ([]byte, error) {
			return nil, errors.New("no passphrase while completing")
		}
		ctx, l, err := quiet.connect(cmd, needsKey)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer l.Close()
		all, err := list(ctx, l)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var fit []cobra.Completion
		for _, one := range all {
			text, _, _ := strings.Cut(one, "\t")
			if strings.HasPrefix(text, typed) && !contains(have, text) {
				fit = append(fit, one)
			}
		}
		return fit, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}

func contains(list []string, text string) bool {
	for _, one := range list {
		if one == text {
			return true
		}
	}
	return false
}

// completes gives a command the completion of its arguments.
func completes(cmd *cobra.Command, f cobra.CompletionFunc) *cobra.Command {
	cmd.ValidArgsFunction = f
	return cmd
}

// jobsAre suggests the wallet's newest jobs; active leaves out those that have ended.
func jobsAre(active bool) suggest {
	return func(ctx context.Context, l *link) ([]cobra.Completion, error) {
		r := &schedulerv1.ListJobsRequest{PageSize: completions}
		for s := jobv1.State_STATE_PENDING; active && s < jobv1.State_STATE_ENDED; s++ {
			r.States = append(r.States, s)
		}
		page, err := l.Scheduler.ListJobs(ctx, r)
		var list []cobra.Completion
		for _, j := range page.GetJobs() {
			one := jobOf(j)
			list = append(list, cobra.CompletionWithDesc(one.Job, one.Name+", "+
				first(one.Result, one.State)+", "+stamp(one.Submitted)))
		}
		return list, err
	}
}

// escrowsAre suggests the wallet's open escrows.
func (a *app) escrowsAre(ctx context.Context, l *link) ([]cobra.Completion, error) {
	owner, err := a.accountOf(nil)
	if err != nil {
		return nil, err
	}
	page, err := l.Ledger.ListEscrows(ctx, &ledgerv1.ListEscrowsRequest{
		Chain: l.Chain, Owner: owner[:], Openness: ledgerv1.Openness_OPENNESS_OPEN,
		Order: ledgerv1.Order_ORDER_NEWEST, PageSize: completions,
	})
	var list []cobra.Completion
	for _, e := range page.GetEscrows() {
		line := escrowLineOf(e)
		list = append(list, cobra.CompletionWithDesc(bytesText(id.Escrow, e.GetId()),
			screen.Clean("holds "+line.holds().String()+", opened "+stamp(line.Opened))))
	}
	return list, err
}
