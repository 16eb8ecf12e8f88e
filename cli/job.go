package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/cli/screen"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

func (a *app) jobCommand() *cobra.Command {
	all, active := a.complete(withKey, jobsAre(false)), a.complete(withKey, jobsAre(true))
	return group("job", "Jobs: run, watch, cancel",
		a.jobRun(), a.jobSign(), a.jobList(), completes(a.jobGet(), all), completes(a.jobRuns(), all),
		completes(a.jobTasks(), all), completes(a.jobLogs(), all), completes(a.jobWait(), active),
		completes(a.jobTop(), active),
		completes(a.jobBill(), all), completes(a.jobAccept(), all), completes(a.jobReject(), all),
		completes(a.jobCancel(), active), completes(a.jobUpdate(), active),
		completes(a.jobAttach(), active), a.jobResume())
}

// screen is how the command shows a job.
func (a *app) screen() screen.Screen {
	switch {
	case a.flags.json:
		return screen.JSON{Out: a.Out}
	case a.flags.quiet:
		return screen.Quiet{}
	case a.Columns(a.Out) > 0:
		return screen.NewLive(a.Out, func() int { return a.Columns(a.Out) }, a.Now,
			a.Env("NO_COLOR") != "")
	}
	return &screen.Plain{Out: a.Out}
}

// runner makes the runner of a command and its screen; close the screen before printing more.
func (a *app) runner(l *link, keep bool) (*jobrun.Runner, screen.Screen) {
	view := a.screen()
	r := &jobrun.Runner{Session: l.Session, View: view, Errands: a.errands(), Unclosed: a.unclosed()}
	if keep {
		r.Save = func(ctx context.Context, cid, path string) error {
			quiet := *a // no bar: the screen is drawn
			quiet.flags.quiet = true
			return quiet.fetch(ctx, l, cid, path)
		}
	}
	return r, view
}

func (a *app) jobRun() *cobra.Command {
	o := jobOptions{}
	cmd := &cobra.Command{
		Use:   "run [-f job.yaml] [IMAGE] [-- ARGS...]",
		Short: "Run a container on the network, see it live, get the bill",
		Long: `Run a job: sign it, put its money into an escrow, let the market find a host, deliver it
there, show it live, check and countersign its usage, save its outputs, take back what is left, and
print the bill with proofs.

IMAGE is the CID that image push printed, or a registry's reference: it is resolved to a digest
before the job is signed, so what runs is what was signed; hosts pull it themselves.

What the job is comes from -f, from flags, or both: flags win. Ctrl-C once cancels the job and
waits for the bill; twice leaves at once.

With --array the program runs once per task, with --replicas side by side, with --trigger always
until it is cancelled. Such a job has more runs than a terminal can countersign, so its hosts are
trusted with its whole budget: choose --max-total by that.

An escrow that cannot be closed with the bill (a lease stands for some 30 s, even if its job is done
before; of a detached job nobody here sees the end) is closed by the wallet's next command that
signs a transaction anyway, which says so. ucn escrow close does it at once.

Exit code 0 when the job completed, 3 when it ended in another way.`,
		Example: `  ucn job run bafkrei... -- -width 640
  ucn job run -f examples/render/job.yaml --output /out/picture.png:picture.png
  ucn job run bafkrei... --cpu 0.5 --memory 64MiB --max-total 0.2 --run-time 10m
  ucn job run bafkrei... --secret KEY=@key.txt --env MODE=fast --detach
  ucn job run registry.example.org/team/app:1.2 --registry-auth registry.example.org=me:@token
  ucn job run bafkrei... --array 100 --parallel 20
  ucn job run bafkrei... --trigger always --replicas 3 --detach`,
	}
	o.add(cmd)
	cmd.Args = args(oneImage)
	cmd.RunE = a.following(withKey, func(ctx context.Context, l *link, list []string) error {
		request, err := o.request(cmd, list)
		if err != nil {
			return err
		}
		r, view := a.runner(l, !o.noOutputs)
		report, err := r.Run(ctx, request)
		view.Close()
		return a.finished(report, err, o.detach)
	})
	return cmd
}

// oneImage checks the arguments of job run.
func oneImage(cmd *cobra.Command, list []string) error {
	if positional(cmd, list) > 1 {
		return errors.New("give one image; the program's arguments come after --")
	}
	return nil
}

// positional is how many arguments stand before "--".
func positional(cmd *cobra.Command, list []string) int {
	if at := cmd.ArgsLenAtDash(); at >= 0 {
		return at
	}
	return len(list)
}

// finished prints the report and turns it into the exit code.
func (a *app) finished(report *jobrun.Report, err error, detached bool) error {
	if report == nil {
		return err
	}
	if !a.flags.json { // else the report was the last event
		if err := a.emit(report, func(w io.Writer) {
			switch {
			case detached && a.flags.quiet:
				printf(w, "%s\n", report.Job)
			case detached:
				printDetached(w, report)
			case a.flags.quiet:
				printf(w, "%s\n", report.Result)
			default:
				printReport(w, report)
			}
		}); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if !detached && !report.Completed() {
		return &exitError{ExitJob, errTold}
	}
	return nil
}

func (a *app) jobAttach() *cobra.Command {
	dir, noOutputs := ".", false
	var secrets, auth []string
	cmd := &cobra.Command{
		Use: "attach JOB", Short: "Watch a job again: countersign, see it live, get the bill",
		Long: `Follow a job that was submitted before, as job run does. While it is watched its usage is
countersigned. Ctrl-C cancels the job.`,
		Example: "  ucn job attach ucnj1...", Args: args(cobra.ExactArgs(1)),
		RunE: a.following(withKey, func(ctx context.Context, l *link, list []string) error {
			id, err := parseJob(list[0])
			if err != nil {
				return err
			}
			values, _, err := readSecrets(secrets)
			if err != nil {
				return err
			}
			credentials, err := readCredentials(auth)
			if err != nil {
				return usage(err)
			}
			r, view := a.runner(l, !noOutputs)
			report, err := r.Attach(ctx, id, jobrun.Request{
				Dir: dir, Secrets: values, Credentials: credentials,
			})
			view.Close()
			return a.finished(report, err, false)
		}),
	}
	cmd.Flags().StringVar(&dir, "output-dir", ".", "folder that outputs are saved in")
	cmd.Flags().BoolVar(&noOutputs, "no-outputs", false, "leave outputs in the network's storage")
	cmd.Flags().StringArrayVar(&secrets, "secret", nil, "NAME=value or NAME=@file, as for job run")
	cmd.Flags().StringArrayVar(&auth, "registry-auth", nil, "HOST=USER:PASSWORD, as for job run")
	return cmd
}

func (a *app) jobGet() *cobra.Command {
	return &cobra.Command{
		Use: "get JOB", Short: "Show a job, its attempts, outputs and usage",
		Example: "  ucn job get ucnj1... --json", Args: args(cobra.ExactArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			j, err := getJob(ctx, l, list[0])
			if err != nil {
				return err
			}
			result := jobOf(j)
			result.look(ctx, l)
			return a.emit(result, result.print)
		}),
	}
}

func getJob(ctx context.Context, l *link, text string) (*schedulerv1.Job, error) {
	id, err := parseJob(text)
	if err != nil {
		return nil, err
	}
	answer, err := l.Scheduler.GetJob(ctx, &schedulerv1.GetJobRequest{Job: id[:]})
	if err != nil {
		return nil, err
	}
	return answer.GetJob(), nil
}

func (a *app) jobLogs() *cobra.Command {
	follow := false
	cmd := &cobra.Command{
		Use: "logs JOB", Short: "Print a job's output, from its host or, after the end, from storage",
		Example: "  ucn job logs ucnj1...\n  ucn job logs -f ucnj1...", Args: args(cobra.ExactArgs(1)),
		RunE: a.following(withKey, func(ctx context.Context, l *link, list []string) error {
			j, err := getJob(ctx, l, list[0])
			if err != nil {
				return err
			}
			logs := jobrun.Logs{Session: l.Session, Line: a.logLine()}
			if err := logs.Read(ctx, j, follow); err != nil {
				return fmt.Errorf("read the log: %w", err)
			}
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the job ends")
	return cmd
}

// logLine prints lines as they are to a file or pipe, cleaned to a terminal, as JSON for programs;
// the program's standard error goes to ours.
func (a *app) logLine() func(line jobrun.LogLine) {
	view := screen.JSON{Out: a.Out}
	return func(line jobrun.LogLine) {
		if a.flags.json {
			view.Event(jobrun.Event{
				Time: line.Time, Kind: jobrun.KindLog, Stream: line.Stream, Text: line.Text,
				Partial: line.Partial,
			})
			return
		}
		out, text := a.Out, line.Text
		if line.Stream == "stderr" {
			out = a.Err
		}
		if a.Columns(out) > 0 {
			text = screen.Clean(text)
		}
		if !line.Partial {
			text += "\n"
		}
		printf(out, "%s", text)
	}
}

// jobResult is a job as commands print it.
type jobResult struct {
	Job       string `json:"job"`
	Name      string `json:"name"`
	State     string `json:"state"`
	Result    string `json:"result,omitempty"`
	Reason    string `json:"reason,omitempty"`
	Submitted uint64 `json:"submitted_ms"`
	Escrow    string `json:"escrow"`
	// Left is what the escrow of a job that has ended still holds; absent: nothing, or not seen.
	Left     *amount.Amount  `json:"escrow_left,omitempty"`
	TraceID  string          `json:"trace_id,omitempty"`
	Counts   *runCounts      `json:"runs,omitempty"`
	Array    *arrayResult    `json:"array,omitempty"`
	Attempts []attemptResult `json:"attempts"`
}

// runCounts is how many runs of a job there are in each state.
type runCounts struct {
	Pending  uint32 `json:"pending"`
	Leased   uint32 `json:"leased"`
	Starting uint32 `json:"starting"`
	Running  uint32 `json:"running"`
	Asleep   uint32 `json:"asleep"`
	Ended    uint32 `json:"ended"`
}

func (c *runCounts) total() uint32 {
	return c.Pending + c.Leased + c.Starting + c.Running + c.Asleep + c.Ended
}

// arrayResult is how far an array is.
type arrayResult struct {
	Count     uint32 `json:"count"`
	Completed uint32 `json:"completed"`
	Failed    uint32 `json:"failed"`
	Waiting   uint32 `json:"waiting"`
}

type attemptResult struct {
	Attempt  string `json:"attempt"`
	State    string `json:"state"`
	Reason   string `json:"reason,omitempty"`
	Host     string `json:"host"`
	Operator string `json:"operator"`
	Lease    string `json:"lease,omitempty"`
	Created  uint64 `json:"created_ms"`
	Ended    uint64 `json:"ended_ms,omitempty"`
	EvictAt  uint64 `json:"evict_at_ms,omitempty"`
	ExitCode int32  `json:"exit_code"`
	// Amount and Usage are what the host said last, at AsOf by its clock.
	Amount  string          `json:"amount"`
	AsOf    uint64          `json:"as_of_ms,omitempty"`
	Usage   *jobrun.Usage   `json:"usage,omitempty"`
	Outputs []jobrun.Output `json:"outputs,omitempty"`
	LogCID  string          `json:"log_cid,omitempty"`
	// Kept: another runs in its place, but its program may still run at its host, until HeldUntil.
	Kept      bool   `json:"kept,omitempty"`
	HeldUntil uint64 `json:"held_until_ms,omitempty"`
	// Continues is the attempt whose running program this one goes on with.
	Continues string `json:"continues,omitempty"`
}

// duration between two times in ms.
func between(from, to uint64) time.Duration {
	return time.Duration(to-min(from, to)) * time.Millisecond
}
