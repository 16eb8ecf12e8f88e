package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/cli/screen"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

func (a *app) jobCommand() *cobra.Command {
	return group("job", "Jobs: run, watch, cancel",
		a.jobRun(), a.jobList(), a.jobGet(), a.jobLogs(), a.jobCancel(), a.jobAttach())
}

// screen is how the command shows a job.
func (a *app) screen() screen.Screen {
	switch {
	case a.flags.json:
		return screen.JSON{Out: a.Out}
	case a.flags.quiet:
		return screen.Quiet{}
	case a.Columns(a.Out) > 0:
		return screen.NewLive(a.Out, func() int { return a.Columns(a.Out) }, a.Now)
	}
	return &screen.Plain{Out: a.Out}
}

// runner makes the runner of a command and its screen; close the screen before printing more.
func (a *app) runner(l *link, keep bool) (*jobrun.Runner, screen.Screen) {
	view := a.screen()
	r := &jobrun.Runner{Session: l.Session, View: view}
	if keep {
		r.Save = func(ctx context.Context, cid, path string) error {
			quiet := *a // no bar: the screen is drawn
			quiet.flags.quiet = true
			_, err := quiet.fetch(ctx, l, cid, path)
			return err
		}
	}
	return r, view
}

func (a *app) jobRun() *cobra.Command {
	o := jobOptions{}
	cmd := &cobra.Command{
		Use:   "run [-f job.yaml] [IMAGE_CID] [-- ARGS...]",
		Short: "Run a container on the network, see it live, get the bill",
		Long: `Run a job: sign it, put its money into an escrow, let the market find a host, deliver it
there, show it live, check and countersign its usage, save its outputs, take back what is left, and
print the bill with proofs.

What the job is comes from -f, from flags, or both: flags win. Ctrl-C once cancels the job and
waits for the bill; twice leaves at once.

Exit code 0 when the job completed, 3 when it ended in another way.`,
		Example: `  ucn job run bafkrei... -- -width 640
  ucn job run -f examples/render/job.yaml --output /out/picture.png:picture.png
  ucn job run bafkrei... --cpu 0.5 --memory 64MiB --max-total 0.2 --run-time 10m
  ucn job run bafkrei... --secret KEY=@key.txt --env MODE=fast --detach`,
	}
	o.add(cmd)
	cmd.Args = args(func(cmd *cobra.Command, list []string) error {
		if positional(cmd, list) > 1 {
			return errors.New("give one image CID; the program's arguments come after --")
		}
		return nil
	})
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
	var secrets []string
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
			r, view := a.runner(l, !noOutputs)
			report, err := r.Attach(ctx, id, jobrun.Request{Dir: dir, Secrets: values})
			view.Close()
			return a.finished(report, err, false)
		}),
	}
	cmd.Flags().StringVar(&dir, "output-dir", ".", "folder that outputs are saved in")
	cmd.Flags().BoolVar(&noOutputs, "no-outputs", false, "leave outputs in the network's storage")
	cmd.Flags().StringArrayVar(&secrets, "secret", nil, "NAME=value or NAME=@file, as for job run")
	return cmd
}

func (a *app) jobList() *cobra.Command {
	state := ""
	limit := 50
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the wallet's jobs, newest first",
		Example: "  ucn job ls\n  ucn job ls --state running --json", Args: args(cobra.NoArgs),
		RunE: a.session(withKey, func(ctx context.Context, l *link, _ []string) error {
			wanted, err := stateOf(state)
			if err != nil {
				return err
			}
			if limit < 1 || limit > 1000 {
				return usagef("--limit is %d, allowed 1 to 1000", limit)
			}
			answer, err := l.Scheduler.ListJobs(ctx, &schedulerv1.ListJobsRequest{
				PageSize: uint32(limit), State: wanted,
			})
			if err != nil {
				return err
			}
			jobs := []jobResult{}
			for _, j := range answer.GetJobs() {
				jobs = append(jobs, jobOf(j))
			}
			return a.emit(jobs, func(w io.Writer) {
				printf(w, "JOB\tNAME\tSTATE\tSUBMITTED\tWHY\n")
				for _, j := range jobs {
					printf(w, "%s\t%s\t%s\t%s\t%s\n", j.Job, j.Name, first(j.Result, j.State),
						stamp(j.Submitted), screen.Fit(screen.Clean(j.Reason), 60))
				}
			})
		}),
	}
	cmd.Flags().StringVar(&state, "state", "", "only pending, leased, starting, running or ended")
	cmd.Flags().IntVar(&limit, "limit", limit, "how many")
	return cmd
}

func stateOf(text string) (jobv1.State, error) {
	if text == "" {
		return jobv1.State_STATE_UNSPECIFIED, nil
	}
	for number, name := range jobv1.State_name {
		if number != 0 && reasonText(name, "STATE_") == text {
			return jobv1.State(number), nil
		}
	}
	return 0, usagef("--state %q is none of pending, leased, starting, running, ended", text)
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

func (a *app) jobCancel() *cobra.Command {
	reason := ""
	cmd := &cobra.Command{
		Use: "cancel JOB", Short: "End a job that runs or waits; what it used is billed",
		Example: "  ucn job cancel ucnj1... --reason 'wrong scene'", Args: args(cobra.ExactArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			id, err := parseJob(list[0])
			if err != nil {
				return err
			}
			answer, err := l.Scheduler.CancelJob(ctx, &schedulerv1.CancelJobRequest{
				Job: id[:], Reason: reason,
			})
			if err != nil {
				return err
			}
			result := jobOf(answer.GetJob())
			return a.emit(result, func(w io.Writer) {
				printf(w, "%s\t%s\t%s\n", result.Job, first(result.Result, result.State),
					screen.Clean(result.Reason))
			})
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "a sentence for the record, at most 200 characters")
	return cmd
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
	Job       string          `json:"job"`
	Name      string          `json:"name"`
	State     string          `json:"state"`
	Result    string          `json:"result,omitempty"`
	Reason    string          `json:"reason,omitempty"`
	Submitted uint64          `json:"submitted_ms"`
	Escrow    string          `json:"escrow"`
	TraceID   string          `json:"trace_id,omitempty"`
	Attempts  []attemptResult `json:"attempts"`
}

type attemptResult struct {
	Attempt  string          `json:"attempt"`
	State    string          `json:"state"`
	Reason   string          `json:"reason,omitempty"`
	Host     string          `json:"host"`
	Operator string          `json:"operator"`
	Lease    string          `json:"lease,omitempty"`
	Created  uint64          `json:"created_ms"`
	Ended    uint64          `json:"ended_ms,omitempty"`
	ExitCode int32           `json:"exit_code"`
	Amount   string          `json:"amount"`
	Usage    *jobrun.Usage   `json:"usage,omitempty"`
	Outputs  []jobrun.Output `json:"outputs,omitempty"`
	LogCID   string          `json:"log_cid,omitempty"`
}

// duration between two times in ms.
func between(from, to uint64) time.Duration {
	return time.Duration(to-min(from, to)) * time.Millisecond
}
