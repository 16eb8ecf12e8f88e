package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/screen"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// listOptions are the flags of job ls.
type listOptions struct {
	states, results      []string
	name, text, trigger  string
	since, until         string
	oldest, active, full bool
	limit                int
}

func (a *app) jobList() *cobra.Command {
	o := listOptions{}
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the wallet's jobs, newest first",
		Example: `  ucn job ls
  ucn job ls --active
  ucn job ls --result failed,host-lost --since 24h --json`,
		Args: args(cobra.NoArgs),
		RunE: a.session(withKey, func(ctx context.Context, l *link, _ []string) error {
			r, err := o.request(l)
			if err != nil {
				return err
			}
			jobs := []jobResult{}
			err = collect(o.limit, func(size int, token string) (int, string, error) {
				r.PageSize, r.PageToken = uint32(size), token
				page, err := l.Scheduler.ListJobs(ctx, r)
				for _, j := range page.GetJobs() {
					jobs = append(jobs, jobOf(j))
				}
				return len(jobs), page.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			return a.emit(jobs, func(w io.Writer) { printJobs(w, jobs, o.full) })
		}),
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.states, "state", nil, "only pending, leased, starting, running, asleep or "+
		"ended; several with commas")
	f.StringSliceVar(&o.results, "result", nil, "only those that ended so: completed, failed, "+
		"cancelled, exhausted, expired, evicted, host-lost, refused")
	f.BoolVar(&o.active, "active", false, "only those that have not ended")
	f.StringVar(&o.name, "name", "", "only those whose name begins so")
	f.StringVar(&o.text, "search", "", "only those with this in their name, reason or host")
	f.StringVar(&o.trigger, "trigger", "", "only once or always")
	f.StringVar(&o.since, "since", "", "submitted at or after: a time, a date, or an age as 24h")
	f.StringVar(&o.until, "until", "", "submitted before: a time, a date, or an age")
	f.BoolVar(&o.oldest, "oldest", false, "oldest first")
	f.BoolVar(&o.full, "full", false, "do not shorten reasons")
	f.IntVar(&o.limit, "limit", 50, "how many; 0 is all, at most 100000")
	return cmd
}

func (o *listOptions) request(l *link) (*schedulerv1.ListJobsRequest, error) {
	r := &schedulerv1.ListJobsRequest{NamePrefix: o.name, Text: o.text}
	for _, text := range o.states {
		state, err := stateOf(text)
		if err != nil {
			return nil, err
		}
		r.States = append(r.States, state)
	}
	if o.active {
		for state := jobv1.State_STATE_PENDING; state < jobv1.State_STATE_ENDED; state++ {
			r.States = append(r.States, state)
		}
	}
	for _, text := range o.results {
		name := "END_REASON_" + strings.ToUpper(strings.ReplaceAll(text, "-", "_"))
		reason := jobv1.EndReason_value[name]
		if reason == 0 {
			return nil, usagef("--result %q is none of completed, failed, cancelled, exhausted, "+
				"expired, evicted, host-lost, refused", text)
		}
		r.EndReasons = append(r.EndReasons, jobv1.EndReason(reason))
	}
	if o.trigger != "" {
		kind := schedulerv1.TriggerKind_value["TRIGGER_KIND_"+strings.ToUpper(o.trigger)]
		if kind == 0 {
			return nil, usagef("--trigger %q is neither once nor always", o.trigger)
		}
		r.Trigger = schedulerv1.TriggerKind(kind)
	}
	if o.oldest {
		r.Order = schedulerv1.Order_ORDER_OLDEST
	}
	var err error
	if r.Since, err = timeOf("--since", o.since, l.Now()); err != nil {
		return nil, err
	}
	r.Until, err = timeOf("--until", o.until, l.Now())
	return r, err
}

func printJobs(w io.Writer, jobs []jobResult, full bool) {
	if len(jobs) == 0 {
		printf(w, "no job of this wallet is like that\n")
		return
	}
	header := "SUBMITTED\tSTATE\tNAME\tJOB"
	reasons := slices.ContainsFunc(jobs, func(j jobResult) bool { return j.Reason != "" })
	if reasons {
		header += "\tWHY"
	}
	printf(w, "%s\n", header)
	for _, j := range jobs {
		why := screen.Clean(j.Reason)
		if !full {
			why = screen.Fit(why, 60)
		}
		line := fmt.Sprintf("%s\t%s\t%s\t%s", stamp(j.Submitted),
			first(j.Result, j.State)+j.progress(), j.Name, j.Job)
		if reasons {
			line += "\t" + why
		}
		printf(w, "%s\n", line)
	}
}

// progress tells how far a job of several runs is.
func (r *jobResult) progress() string {
	switch {
	case r.Array != nil:
		return fmt.Sprintf(" %d/%d", r.Array.Completed+r.Array.Failed, r.Array.Count)
	case r.Counts != nil && r.Counts.total() > 1: // replicas that an update left over have ended
		return fmt.Sprintf(" %d/%d", r.Counts.Running, r.Counts.total()-r.Counts.Ended)
	}
	return ""
}

func stateOf(text string) (jobv1.State, error) {
	for number, name := range jobv1.State_name {
		if number != 0 && reasonText(name, "STATE_") == text {
			return jobv1.State(number), nil
		}
	}
	return 0, usagef("--state %q is none of pending, leased, starting, running, asleep, ended", text)
}

type runResult struct {
	Run      string          `json:"run"`
	Slot     uint32          `json:"slot"`
	Task     uint32          `json:"task"`
	State    string          `json:"state"`
	Result   string          `json:"result,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Tries    uint32          `json:"tries"`
	Created  uint64          `json:"created_ms"`
	Ended    uint64          `json:"ended_ms,omitempty"`
	Attempts []attemptResult `json:"attempts"`
}

func (a *app) jobRuns() *cobra.Command {
	limit := 100
	cmd := &cobra.Command{
		Use: "runs JOB", Short: "List the runs of a job: replicas, or lanes of an array",
		Example: "  ucn job runs ucnj1...", Args: args(cobra.ExactArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			job, err := parseJob(list[0])
			if err != nil {
				return err
			}
			runs := []runResult{}
			r := &schedulerv1.ListRunsRequest{Job: job[:]}
			err = collect(limit, func(size int, token string) (int, string, error) {
				r.PageSize, r.PageToken = uint32(min(size, 100)), token
				page, err := l.Scheduler.ListRuns(ctx, r)
				for _, run := range page.GetRuns() {
					runs = append(runs, runOf(run))
				}
				return len(runs), page.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			return a.emit(runs, func(w io.Writer) { printRuns(w, runs) })
		}),
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "how many; 0 is all")
	return cmd
}

func runOf(run *schedulerv1.Run) runResult {
	r := runResult{
		Run: hex.EncodeToString(run.GetId()), Slot: run.GetSlot(), Task: run.GetTask(),
		State: reasonText(run.GetState().String(), "STATE_"), Reason: run.GetReason(),
		Tries: run.GetTries(), Created: run.GetCreated(), Ended: run.GetEnded(),
		Attempts: []attemptResult{},
	}
	if run.GetState() == jobv1.State_STATE_ENDED {
		r.Result = reasonText(run.GetEndReason().String(), "END_REASON_")
	}
	for _, attempt := range run.GetAttempts() {
		r.Attempts = append(r.Attempts, attemptOf(attempt))
	}
	return r
}

func printRuns(w io.Writer, runs []runResult) {
	printf(w, "SLOT\tTASK\tSTATE\tTRIES\tHOST\tCOST\tWHY\n")
	for _, r := range runs {
		host, cost := "-", "-"
		if n := len(r.Attempts); n > 0 {
			host = first(r.Attempts[n-1].Host, "-")
			if last := &r.Attempts[n-1]; last.told() {
				cost = last.Amount + " UCN"
			}
		}
		printf(w, "%d\t%d\t%s\t%d\t%s\t%s\t%s\n", r.Slot, r.Task, first(r.Result, r.State), r.Tries,
			host, cost, screen.Fit(screen.Clean(r.Reason), 60))
	}
}

type taskResult struct {
	Index  uint32 `json:"index"`
	Result string `json:"result"`
}

func (a *app) jobTasks() *cobra.Command {
	limit := 1000
	cmd := &cobra.Command{
		Use: "tasks JOB", Short: "List the tasks of an array that ended otherwise than completed",
		Example: "  ucn job tasks ucnj1... --limit 0", Args: args(cobra.ExactArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			job, err := parseJob(list[0])
			if err != nil {
				return err
			}
			tasks := []taskResult{}
			r := &schedulerv1.ListTasksRequest{Job: job[:]}
			err = collect(limit, func(size int, token string) (int, string, error) {
				r.PageSize, r.PageToken = uint32(size), token
				page, err := l.Scheduler.ListTasks(ctx, r)
				for _, t := range page.GetTasks() {
					tasks = append(tasks, taskResult{
						t.GetIndex(), reasonText(t.GetEndReason().String(), "END_REASON_"),
					})
				}
				return len(tasks), page.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			return a.emit(tasks, func(w io.Writer) {
				if len(tasks) == 0 {
					printf(w, "no task ended otherwise than completed\n")
					return
				}
				printf(w, "TASK\tRESULT\n")
				for _, t := range tasks {
					printf(w, "%d\t%s\n", t.Index, t.Result)
				}
			})
		}),
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "how many; 0 is all, at most 100000")
	return cmd
}

func (a *app) jobCancel() *cobra.Command {
	reason := ""
	cmd := &cobra.Command{
		Use: "cancel JOB...", Short: "End jobs that run or wait; what they used is billed",
		Example: "  ucn job cancel ucnj1... --reason 'wrong scene'",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			results := []jobResult{}
			var failed error
			for _, text := range list {
				id, err := parseJob(text)
				if err != nil {
					return err
				}
				answer, err := l.Scheduler.CancelJob(ctx, &schedulerv1.CancelJobRequest{
					Job: id[:], Reason: reason,
				})
				if err != nil {
					failed = errors.Join(failed, fmt.Errorf("cancel %s: %w", text, err))
					continue
				}
				results = append(results, jobOf(answer.GetJob()))
			}
			if len(results) == 0 {
				return failed
			}
			var out any = results
			if len(results) == 1 {
				out = results[0]
			}
			return errors.Join(failed, a.emit(out, func(w io.Writer) {
				for _, r := range results {
					printf(w, "%s\t%s\t%s\n", r.Job, first(r.Result, r.State), screen.Clean(r.Reason))
					printf(w, "  what is left comes back after its hosts' last charges:\n"+
						"ucn escrow close %s\n", r.Escrow)
				}
			}))
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "a sentence for the record, at most 200 characters")
	return cmd
}

type marketResult struct {
	Time      uint64 `json:"time_ms"`
	Hosts     uint32 `json:"hosts"`
	Operators uint32 `json:"operators"`
	Pending   uint64 `json:"pending_runs"`
	Waiting   uint32 `json:"pending_owners"`
	// LeaseFee is what the scheduler takes for each lease that it places.
	LeaseFee  amount.Amount    `json:"lease_fee"`
	Platforms []platformResult `json:"platforms"`
	Offers    []offerResult    `json:"offers"`
}

type platformResult struct {
	Platform   string        `json:"platform"`
	Hosts      uint32        `json:"hosts"`
	FreeCores  float64       `json:"free_cores"`
	TotalCores float64       `json:"total_cores"`
	FreeMemory uint64        `json:"free_memory"`
	BestCore   amount.Amount `json:"best_core_hour"`
	MedianCore amount.Amount `json:"median_core_hour"`
	BestMem    amount.Amount `json:"best_memory_gib_hour"`
	MedianMem  amount.Amount `json:"median_memory_gib_hour"`
	Settled    uint64        `json:"settled_attempts"`
	PaidCore   amount.Amount `json:"settled_per_core_hour"`
	PaidEach   amount.Amount `json:"settled_per_attempt"`
}

func marketOf(m *schedulerv1.GetMarketResponse, offers []offerResult) marketResult {
	r := marketResult{
		Time: m.GetTime(), Hosts: m.GetHosts(), Operators: m.GetOperators(),
		Pending: m.GetPending(), Waiting: m.GetPendingOwners(), Offers: offers,
		LeaseFee:  amount.Amount(m.GetLeaseFee()),
		Platforms: []platformResult{},
	}
	for _, p := range m.GetPlatforms() {
		r.Platforms = append(r.Platforms, platformResult{
			Platform: screen.Clean(p.GetPlatform()), Hosts: p.GetHosts(),
			FreeCores:  float64(p.GetFree().GetCpuMilli()) / 1000,
			TotalCores: float64(p.GetTotal().GetCpuMilli()) / 1000,
			FreeMemory: p.GetFree().GetMemory(),
			BestCore:   amount.Amount(p.GetBest().GetCoreHour()),
			MedianCore: amount.Amount(p.GetMedian().GetCoreHour()),
			BestMem:    amount.Amount(p.GetBest().GetMemoryGibHour()),
			MedianMem:  amount.Amount(p.GetMedian().GetMemoryGibHour()),
			Settled:    p.GetSettled().GetAttempts(),
			PaidCore:   amount.Amount(p.GetSettled().GetPerCoreHour()),
			PaidEach:   amount.Amount(p.GetSettled().GetPerAttempt()),
		})
	}
	return r
}

func (r *marketResult) print(w io.Writer) {
	printf(w, "PLATFORM\tHOSTS\tFREE CORES\tBEST\tMEDIAN\tPAID LATELY, IN UCN PER CORE·H\n")
	for _, p := range r.Platforms {
		paid := "-"
		if p.Settled > 0 {
			paid = fmt.Sprintf("%s (%s)", p.PaidCore, many(p.Settled, "run"))
		}
		printf(w, "%s\t%d\t%.2f of %.2f\t%s\t%s\t%s\n", p.Platform, p.Hosts, p.FreeCores,
			p.TotalCores, p.BestCore, p.MedianCore, paid)
	}
	printf(w, "\n%s of %s; %s of %s waiting", many(r.Hosts, "host"),
		many(r.Operators, "operator"), many(r.Pending, "run"), many(r.Waiting, "owner"))
	if r.LeaseFee > 0 {
		printf(w, "; %s to the scheduler for each lease", amount.Text(r.LeaseFee))
	}
	printf(w, "\n\n")
	printOffers(w, r.Offers)
}
