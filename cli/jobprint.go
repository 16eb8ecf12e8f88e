package cli

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/id"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

func jobOf(j *schedulerv1.Job) jobResult {
	r := jobResult{
		Job: bytesText(id.Job, j.GetId()), Escrow: bytesText(id.Escrow, j.GetEscrow()),
		Name:  screen.Clean(j.GetRevision().GetRevision().GetSpec().GetName()),
		State: reasonText(j.GetState().String(), "STATE_"), Reason: j.GetReason(),
		Submitted: j.GetSubmitted(), TraceID: j.GetTraceId(), Attempts: []attemptResult{},
	}
	if j.GetState() == jobv1.State_STATE_ENDED {
		r.Result = reasonText(j.GetEndReason().String(), "END_REASON_")
	}
	if c := j.GetCounts(); c != nil {
		r.Counts = &runCounts{
			c.GetPending(), c.GetLeased(), c.GetStarting(), c.GetRunning(), c.GetAsleep(),
			c.GetEnded(),
		}
	}
	if p := j.GetArray(); p != nil {
		r.Array = &arrayResult{p.GetCount(), p.GetCompleted(), p.GetFailed(), p.GetWaiting()}
	}
	for _, run := range j.GetRuns() {
		for _, a := range run.GetAttempts() {
			r.Attempts = append(r.Attempts, attemptOf(a))
		}
	}
	return r
}

func attemptOf(a *schedulerv1.Attempt) attemptResult {
	status := a.GetStatus()
	r := attemptResult{
		Attempt: hex.EncodeToString(a.GetId()), Reason: a.GetReason(),
		State: reasonText(a.GetState().String(), "STATE_"), Host: screen.Clean(a.GetHost()),
		Operator: bytesText(id.Account, a.GetExecutor().GetBody().GetOperator()),
		Lease:    bytesText(id.Lease, a.GetLease()), Created: a.GetCreated(), Ended: a.GetEnded(),
		Amount:   amount.Format(tx.Grains(status.GetAmount())),
		ExitCode: status.GetOutcome().GetExitCode(), LogCID: status.GetOutcome().GetLogCid(),
		AsOf: status.GetTime(),
	}
	if a.GetState() != jobv1.State_STATE_ENDED {
		r.EvictAt = status.GetEvictAt()
	}
	if r.Kept = a.GetKept(); r.Kept {
		r.HeldUntil = status.GetHeldUntil()
	}
	r.Continues = hex.EncodeToString(a.GetContinues())
	if u := status.GetUsage(); u != nil {
		r.Usage = &jobrun.Usage{
			WallMS: u.GetWallMs(), CPUNS: u.GetCpuNs(), MemoryKiBMS: u.GetMemoryKibMs(),
			MemoryPeak: u.GetMemoryPeak(), BytesIn: u.GetBytesIn(), BytesOut: u.GetBytesOut(),
			DiskKiBMS: u.GetDiskKibMs(), Runs: u.GetRuns(), Unmeasured: u.GetUnmeasured(),
		}
	}
	for _, file := range status.GetOutcome().GetOutputs() {
		r.Outputs = append(r.Outputs, jobrun.Output{
			Path: file.GetPath(), CID: file.GetCid(), Size: file.GetSize(),
		})
	}
	return r
}

func (r jobResult) print(w io.Writer) {
	printf(w, "job\t%s\nname\t%s\nstate\t%s\n", r.Job, r.Name, first(r.Result, r.State))
	if r.Reason != "" {
		printf(w, "why\t%s\n", screen.Clean(r.Reason))
	}
	if r.Array != nil {
		printf(w, "tasks\t%d of %d completed, %d failed, %d have not begun\n", r.Array.Completed,
			r.Array.Count, r.Array.Failed, r.Array.Waiting)
	} else if r.Counts != nil && r.Counts.total() > 1 {
		printf(w, "runs\t%d running, %d on their way, %d wait, %d ended\n", r.Counts.Running,
			r.Counts.Leased+r.Counts.Starting, r.Counts.Pending, r.Counts.Ended)
	}
	printf(w, "submitted\t%s\nescrow\t%s\n", stamp(r.Submitted), r.Escrow)
	if rest := r.rest(); rest != "" {
		printf(w, "\t%s\n", rest)
	}
	if r.TraceID != "" {
		printf(w, "trace\t%s\n", r.TraceID)
	}
	for i, a := range r.Attempts {
		printf(w, "attempt %d\t%s", i+1, r.standing(&a))
		if a.Reason != "" {
			printf(w, ": %s", screen.Clean(a.Reason))
		}
		printf(w, "\n")
		if a.told() {
			printf(w, "\t%s UCN for %s\n", a.Amount, usageText(a.Usage))
		} else {
			printf(w, "\tcost so far: ucn job bill %s\n", r.Job)
		}
		for _, out := range a.Outputs {
			printf(w, "\t%s (%s): %s\n", screen.Clean(out.Path), screen.Bytes(out.Size), out.CID)
		}
		if a.LogCID != "" {
			printf(w, "\tlog %s\n", a.LogCID)
		}
	}
}

// rest says how what is left of an ended job's money comes back; "" if nothing is.
func (r *jobResult) rest() string {
	if r.Left == nil {
		return ""
	}
	return fmt.Sprintf("it holds %s; `ucn escrow close` takes that back", amount.Text(*r.Left))
}

// look finds what is left in the escrow of a job that has ended. A ledger that is away is no reason
// to tell nothing of the job.
func (r *jobResult) look(ctx context.Context, l *link) {
	if r.Result == "" || r.Escrow == "" {
		return
	}
	_, answer, err := readEscrow(ctx, l, r.Escrow)
	if err != nil || answer.GetEscrow() == nil {
		return
	}
	left := amount.Amount(answer.GetEscrow().GetBalance() + answer.GetEscrow().GetLock())
	r.Left = &left
}

// told says whether the host has told what the attempt cost: before its end only the chain knows,
// for what the host last said can be long ago.
func (a *attemptResult) told() bool { return a.Ended != 0 }

// standing says how an attempt stands, on which host, and which other one it goes on with.
func (r jobResult) standing(a *attemptResult) string {
	text := a.State + " on " + a.Host
	switch {
	case a.Kept && a.HeldUntil != 0:
		text = "kept on " + a.Host + " until " + stamp(a.HeldUntil)
	case a.Kept:
		text = "kept on " + a.Host
	case a.Ended != 0:
		text += " after " + screen.Elapsed(between(a.Created, a.Ended))
	case a.EvictAt != 0:
		text += ", goes " + stamp(a.EvictAt)
	}
	if a.Continues == "" {
		return text
	}
	for i := range r.Attempts {
		if r.Attempts[i].Attempt == a.Continues {
			return fmt.Sprintf("%s, continues attempt %d", text, i+1)
		}
	}
	return text + ", continues an attempt before those"
}

func printDetached(w io.Writer, r *jobrun.Report) {
	printf(w, "job\t%s\nescrow\t%s\n", r.Job, r.Escrow)
	if r.TraceID != "" {
		printf(w, "trace\t%s\n", r.TraceID)
	}
	printf(w, "\nNobody countersigns while you are away: the host is trusted with the whole budget.\n")
	printf(w, "Watch it with:\nucn job attach %s\n", r.Job)
	if r.ClosesLater {
		printf(w, "After its end your next command that signs takes the rest of its escrow back, or:\n")
	} else {
		printf(w, "After its end take the rest of its escrow back:\n")
	}
	printf(w, "ucn escrow close %s\n", r.Escrow)
	printWarnings(w, r)
}

// usageText words usage in a line.
func usageText(u *jobrun.Usage) string {
	if u == nil {
		return "usage that was not seen here"
	}
	parts := []string{
		fmt.Sprintf("%.1f s", float64(u.WallMS)/1e3),
		fmt.Sprintf("%.2f core·s", float64(u.CPUNS)/1e9),
	}
	if u.MemoryKiBMS > 0 {
		parts = append(parts, fmt.Sprintf("%.3f GiB·s memory", float64(u.MemoryKiBMS)/(1<<20)/1e3))
	}
	if disk := float64(u.DiskKiBMS) / (1 << 20) / 1e3; disk >= 0.0005 {
		parts = append(parts, fmt.Sprintf("%.3f GiB·s disk", disk))
	}
	if u.BytesIn+u.BytesOut > 0 {
		parts = append(parts, screen.Bytes(u.BytesIn)+" in", screen.Bytes(u.BytesOut)+" out")
	}
	if u.Runs > 0 {
		parts = append(parts, many(u.Runs, "run"))
	}
	return strings.Join(parts, ", ")
}

// priceText words the prices that are not 0.
func priceText(p *jobrun.Prices) string {
	if p == nil {
		return "-"
	}
	var parts []string
	for _, one := range []struct {
		price amount.Amount
		unit  string
	}{
		{p.CoreHour, "core·h"}, {p.MemoryGiBHour, "GiB·h memory"}, {p.DiskGiBHour, "GiB·h disk"},
		{p.WallHour, "h"}, {p.GiBIn, "GiB in"}, {p.GiBOut, "GiB out"}, {p.Run, "run"},
	} {
		if one.price > 0 {
			parts = append(parts, one.price.String()+"/"+one.unit)
		}
	}
	if len(parts) == 0 {
		return "free"
	}
	return strings.Join(parts, ", ")
}

// printReport prints result, outputs, bill and proofs.
func printReport(w io.Writer, r *jobrun.Report) {
	printf(w, "\nresult\t%s", r.Result)
	if r.ExitCode > 0 { // -1: it never ran, or a signal ended it
		printf(w, " (exit code %d)", r.ExitCode)
	}
	if r.Reason != "" {
		printf(w, ": %s", screen.Clean(r.Reason))
	}
	printf(w, "\n")
	for _, out := range r.Outputs {
		at := out.File
		if at == "" {
			at = out.CID
		}
		printf(w, "output\t%s -> %s (%s)\n", screen.Clean(out.Path), at, screen.Bytes(out.Size))
	}
	if r.LogCID != "" {
		printf(w, "log\t%s\n", r.LogCID)
	}
	if r.Bill != nil {
		printBill(w, r)
	}
	if r.TraceID != "" {
		printf(w, "trace\t%s\n", r.TraceID)
	}
	printWarnings(w, r)
}

func printWarnings(w io.Writer, r *jobrun.Report) {
	for _, text := range r.Warnings {
		printf(w, "warning\t%s\n", screen.Clean(text))
	}
}

func printBill(w io.Writer, r *jobrun.Report) {
	b := r.Bill
	printf(w, "\nbill\tescrow %s\n", b.Escrow)
	for i, c := range b.Charges {
		note := ""
		if c.Final {
			note = ", final"
		}
		if c.Bound != "" {
			note += ", bound by " + c.Bound
		}
		printf(w, "charge %d\t%s to %s in block %d%s\n", i+1, amount.Text(c.Paid),
			screen.Clean(c.Host), c.Block, note)
		printf(w, "\tusage so far: %s\n", usageText(c.Usage))
		printf(w, "\tprices in UCN: %s\n", priceText(c.Prices))
		if c.ProofVerified {
			printf(w, "\tproof verified: %s\n", c.Transaction)
		}
	}
	printf(w, "paid\t%s in %s\n", amount.Text(b.Paid), many(len(b.Charges), "charge"))
	if b.LeaseFees > 0 {
		printf(w, "lease fees\t%s to the scheduler, for placing and settling\n",
			amount.Text(b.LeaseFees))
	}
	printf(w, "refunded\t%s\n", amount.Text(b.Refunded))
	printEscrowRest(w, r)
	printf(w, "fees\t%s\nbalance\t", amount.Text(b.Fees))
	if b.Before != nil {
		printf(w, "%s before, ", amount.Text(*b.Before))
	}
	printf(w, "%s after\n", amount.Text(b.After))
	printf(w, "proof\tverified: %d receipts against certified headers\n", b.Proofs)
}

// printEscrowRest says what the escrow still holds, and how that comes back.
func printEscrowRest(w io.Writer, r *jobrun.Report) {
	b := r.Bill
	if b.Closed {
		printf(w, "escrow\tclosed\n")
		return
	}
	after := ""
	if b.Held > 0 {
		after = " after that"
		printf(w, "held back\t%s until you accept or reject the work; silence accepts at %s\n",
			amount.Text(b.Held), b.Accepts.Local().Format("2006-01-02 15:04"))
		printf(w, "\tucn job accept %s\n\tucn job reject %s --evidence FILE\n", r.Job, r.Job)
	}
	if r.ClosesLater {
		printf(w, "escrow\tholds %s; your next command that signs%s takes it back, "+
			"or `ucn escrow close`\n", amount.Text(b.Locked), after)
		return
	}
	printf(w, "escrow\tholds %s; `ucn escrow close` takes it back%s\n", amount.Text(b.Locked),
		first(after, " later"))
}
