package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/id"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// Bounds of job top.
const (
	topJobs     = 50  // that are looked at
	topRows     = 100 // attempts that are shown
	topAtOnce   = 8   // questions on their way
	topWait     = 3 * time.Second
	methodStats = "executor.v1/Stats"
)

func (a *app) jobTop() *cobra.Command {
	once, every := false, watchEvery
	cmd := &cobra.Command{
		Use: "top [JOB...]", Short: "Show what running jobs use and owe, live",
		Long: `Ask the hosts of running jobs what these use now and what is due so far, every two
seconds: all jobs of the wallet, the 50 newest, or those given. With jobs given it ends when they
have.

The figures are the hosts' own readings. What is due is computed as the bill is: it is countersigned
only while job run or job attach watches.`,
		Example: "  ucn job top\n  ucn job top ucnj1... --once\n  ucn job top --once --json",
		Args:    args(cobra.MaximumNArgs(topJobs)),
		RunE: a.following(withKey, func(ctx context.Context, l *link, list []string) error {
			if err := checkEvery(every); err != nil {
				return err
			}
			t := &top{a: a, l: l, targets: map[string]bus.Target{}}
			for _, text := range list {
				job, err := parseJob(text)
				if err != nil {
					return err
				}
				t.jobs = append(t.jobs, job)
			}
			if once {
				rows, _, err := t.read(ctx)
				if err != nil {
					return err
				}
				return a.emit(rows, func(w io.Writer) { printTop(w, rows) })
			}
			live := &watching{a: a, every: every, read: func(ctx context.Context) (reading, error) {
				rows, going, err := t.read(ctx)
				return reading{rows, func(w io.Writer) { printTop(w, rows) },
					!going && len(t.jobs) > 0}, err
			}}
			return live.run(ctx)
		}),
	}
	cmd.Flags().BoolVar(&once, "once", false, "print one table and end")
	cmd.Flags().DurationVar(&every, "interval", watchEvery, "time between two readings")
	return cmd
}

// top is one run of the command.
type top struct {
	a       *app
	l       *link
	jobs    [][32]byte            // empty: all of the wallet
	targets map[string]bus.Target // by the bytes of the certificate that was judged
}

// topRow is an attempt as the command prints it.
type topRow struct {
	Job         string        `json:"job"`
	Name        string        `json:"name"`
	Attempt     string        `json:"attempt"`
	Host        string        `json:"host"`
	State       string        `json:"state"`
	Error       string        `json:"error,omitempty"` // why the host does not tell
	Waiting     string        `json:"waiting,omitempty"`
	Time        uint64        `json:"time_ms,omitempty"`
	Started     uint64        `json:"started_ms,omitempty"`
	EvictAt     uint64        `json:"evict_at_ms,omitempty"`
	CPU         uint64        `json:"cpu_milli"`
	CPULimit    uint32        `json:"cpu_limit_milli"`
	Memory      uint64        `json:"memory"`
	MemoryLimit uint64        `json:"memory_limit"`
	Disk        uint64        `json:"disk"`
	DiskLimit   uint64        `json:"disk_limit"`
	BytesIn     uint64        `json:"bytes_in"`
	BytesOut    uint64        `json:"bytes_out"`
	InPerS      uint64        `json:"bytes_in_per_s"`
	OutPerS     uint64        `json:"bytes_out_per_s"`
	Due         amount.Amount `json:"due"`
	Paid        amount.Amount `json:"paid"`
	Budget      amount.Amount `json:"budget"`
	Rate        amount.Amount `json:"rate"`
}

// read asks every host once. going tells whether a job has not ended.
func (t *top) read(ctx context.Context) (rows []topRow, going bool, err error) {
	jobs, err := t.find(ctx)
	if err != nil {
		return nil, false, err
	}
	client, err := t.l.Bus()
	if err != nil {
		return nil, false, err
	}
	var group errgroup.Group
	group.SetLimit(topAtOnce)
	attempts := []asked{}
	for _, j := range jobs {
		going = going || j.GetState() != jobv1.State_STATE_ENDED
		attempts = append(attempts, runningOf(j)...)
	}
	attempts = attempts[:min(len(attempts), topRows)]
	rows = make([]topRow, len(attempts))
	for i, one := range attempts {
		target, err := t.target(ctx, one.attempt.GetExecutor())
		if rows[i] = one.row(); err != nil {
			rows[i].Error = err.Error()
			continue
		}
		group.Go(func() error {
			rows[i].ask(ctx, client, target, one)
			return nil
		})
	}
	return rows, going, group.Wait()
}

// find lists the jobs to look at, with their attempts.
func (t *top) find(ctx context.Context) ([]*schedulerv1.Job, error) {
	wanted := t.jobs
	if len(wanted) == 0 {
		o := listOptions{active: true}
		r, err := o.request(t.l)
		if err != nil {
			return nil, err
		}
		r.PageSize = topJobs
		page, err := t.l.Scheduler.ListJobs(ctx, r)
		if err != nil {
			return nil, err
		}
		for _, j := range page.GetJobs() {
			if len(j.GetId()) == len([32]byte{}) {
				wanted = append(wanted, [32]byte(j.GetId()))
			}
		}
	}
	var jobs []*schedulerv1.Job
	for _, job := range wanted {
		answer, err := t.l.Scheduler.GetJob(ctx, &schedulerv1.GetJobRequest{Job: job[:]})
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, answer.GetJob())
	}
	return jobs, nil
}

// asked is an attempt whose host is asked.
type asked struct {
	job     *schedulerv1.Job
	attempt *schedulerv1.Attempt
}

// runningOf returns the attempts of a job that are on a host.
func runningOf(j *schedulerv1.Job) (list []asked) {
	for _, run := range j.GetRuns() {
		for _, at := range run.GetAttempts() {
			if at.GetExecutor() != nil && len(at.GetLease()) > 0 &&
				at.GetState() != jobv1.State_STATE_ENDED {
				list = append(list, asked{j, at})
			}
		}
	}
	return list
}

// target judges a host's certificate, each once.
func (t *top) target(ctx context.Context, m *identityv1.Certificate) (bus.Target, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return bus.Target{}, err
	}
	if target, ok := t.targets[string(raw)]; ok {
		return target, nil
	}
	target, err := t.l.Host(ctx, m)
	if err == nil && len(t.targets) < topRows {
		t.targets[string(raw)] = target
	}
	return target, err
}

func (one *asked) row() topRow {
	return topRow{
		Job:     bytesText(id.Job, one.job.GetId()),
		Name:    screen.Clean(one.job.GetRevision().GetRevision().GetSpec().GetName()),
		Attempt: hex.EncodeToString(one.attempt.GetId()), Host: screen.Clean(one.attempt.GetHost()),
		State: reasonText(one.attempt.GetState().String(), "STATE_"),
	}
}

// ask fills in what the host tells.
func (r *topRow) ask(ctx context.Context, client *bus.Client, host bus.Target, one asked) {
	ctx, cancel := context.WithTimeout(ctx, topWait)
	defer cancel()
	s := &executorv1.StatsResponse{}
	err := client.Call(ctx, host, methodStats, &executorv1.StatsRequest{
		Job: one.job.GetId(), Attempt: one.attempt.GetId(),
	}, s)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		r.Error = "the host does not answer"
		return
	case err != nil:
		r.Error = err.Error()
		return
	}
	r.State = reasonText(s.GetState().String(), "STATE_")
	r.Waiting = s.GetWaiting()
	r.Time, r.Started, r.EvictAt = s.GetTime(), s.GetStarted(), s.GetEvictAt()
	r.CPU, r.CPULimit = s.GetCpuMilli(), s.GetReserved().GetCpuMilli()
	r.Memory, r.MemoryLimit = s.GetMemory(), s.GetReserved().GetMemory()
	r.Disk, r.DiskLimit = s.GetDisk(), s.GetReserved().GetDisk()
	r.BytesIn, r.BytesOut = s.GetUsage().GetBytesIn(), s.GetUsage().GetBytesOut()
	r.InPerS, r.OutPerS = s.GetBytesInPerS(), s.GetBytesOutPerS()
	r.Due, r.Paid = amount.Amount(s.GetAmount()), amount.Amount(s.GetPaid())
	r.Budget, r.Rate = amount.Amount(s.GetBudget()), amount.Amount(s.GetRate())
}

func printTop(w io.Writer, rows []topRow) {
	if len(rows) == 0 {
		printf(w, "nothing runs\n")
		return
	}
	printf(w, "NAME\tJOB\tHOST\tSTATE\tCORES\tMEMORY\tDISK\tNET IN / OUT\tUCN DUE\tOF\tUP\n")
	for i := range rows {
		r := &rows[i]
		printf(w, "%s\t%s\t%s\t", screen.Fit(r.Name, 20), screen.Fit(r.Job, 14), r.Host)
		if r.Error != "" {
			printf(w, "%s\t%s\n", r.State, screen.Clean(r.Error))
			continue
		}
		state, up := r.State, ""
		if r.Waiting != "" {
			state += ": " + screen.Fit(screen.Clean(r.Waiting), 40)
		}
		if r.EvictAt != 0 {
			state += ", goes in " + screen.Elapsed(between(r.Time, r.EvictAt))
		}
		if r.Started != 0 {
			up = screen.Elapsed(between(r.Started, r.Time))
		}
		printf(w, "%s\t%.2f/%s\t%s/%s\t%s/%s\t%s / %s\t%s\t%s\t%s\n", state,
			float64(r.CPU)/1000, jobfile.Cores(r.CPULimit), screen.Bytes(r.Memory),
			screen.Bytes(r.MemoryLimit), screen.Bytes(r.Disk), screen.Bytes(r.DiskLimit),
			screen.Bytes(r.BytesIn), screen.Bytes(r.BytesOut), r.Due, r.Budget, up)
	}
}
