package server

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/id"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/scheduler"
)

func accountText(a sig.AccountID) string { return id.Bech32(id.Account, a) }

func millis(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixMilli())
}

// maxTime is the last time that is told apart, in the year 9999, so that it can be written down.
const maxTime = 253_402_300_799_000

func fromMillis(ms uint64) time.Time { return time.UnixMilli(int64(min(ms, maxTime))) }

func accounts(list [][]byte) []sig.AccountID {
	var out []sig.AccountID
	for _, raw := range list {
		out = append(out, sig.AccountID(raw)) // lengths are checked by job.Check
	}
	return out
}

func labels(list []*jobv1.Label) []scheduler.Label {
	var out []scheduler.Label
	for _, l := range list {
		out = append(out, scheduler.Label{Name: l.GetName(), Value: l.GetValue()})
	}
	return out
}

func position(p *jobv1.Position) *scheduler.Position {
	if p == nil {
		return nil
	}
	return &scheduler.Position{
		LatitudeMicro: p.GetLatitudeMicro(), LongitudeMicro: p.GetLongitudeMicro(),
	}
}

// specOf takes what matching needs out of a checked specification.
func specOf(s *jobv1.JobSpec) scheduler.Spec {
	out := scheduler.Spec{
		Name: s.GetName(), Chain: s.GetChain(), Image: job.ImageCID(s.GetImage()),
		Resources: price.ResourcesFromPB(s.GetResources()),
		Platforms: s.GetPlacement().GetPlatforms(),
		Allow:     accounts(s.GetPlacement().GetOperatorsAllow()),
		Deny:      accounts(s.GetPlacement().GetOperatorsDeny()),
		Labels:    labels(s.GetPlacement().GetLabels()),
		Near:      position(s.GetPlacement().GetNear()),
		Strict:    s.GetIsolation() == jobv1.Isolation_ISOLATION_STRICT,
		MaxTotal:  s.GetPayment().GetMaxTotal(), MaxRate: s.GetPayment().GetMaxRate(),
		Trust: s.GetPayment().GetTrust(), Holdback: s.GetPayment().GetHoldback(),
		Notice:  milliseconds(s.GetPayment().GetMaxNoticeMs()),
		RunTime: time.Duration(s.GetLimits().GetRunTimeMs()) * time.Millisecond,
		Retries: s.GetLimits().GetRetries(),
		Backoff: time.Duration(s.GetLimits().GetBackoffMs()) * time.Millisecond,
	}
	lanesOf(s, &out)
	for _, in := range s.GetInputs() {
		out.Files = append(out.Files, in.GetCid())
	}
	if cap := s.GetPayment().GetCap(); cap != nil {
		prices := price.PricesFromPB(cap)
		out.Cap = &prices
	}
	return out
}

// lanesOf reads how many lanes a job has and what keeps them running.
func lanesOf(s *jobv1.JobSpec, out *scheduler.Spec) {
	out.Lanes, out.Always = max(s.GetReplicas(), 1), s.GetTrigger().GetAlways() != nil
	if a := s.GetArray(); a != nil {
		out.Tasks, out.Lanes = a.GetCount(), job.Parallel(a)
	}
	switch s.GetRestart() {
	case jobv1.Restart_RESTART_NEVER:
		out.Restart = scheduler.RestartNever
	case jobv1.Restart_RESTART_ON_FAILURE:
		out.Restart = scheduler.RestartOnFailure
	}
	switch s.GetDisconnect().GetPolicy() {
	case jobv1.DisconnectPolicy_DISCONNECT_POLICY_KEEP_ORIGINAL:
		out.Keep = scheduler.KeepOriginal
	case jobv1.DisconnectPolicy_DISCONNECT_POLICY_BEST:
		out.Keep = scheduler.KeepBest
	}
	out.LostAfter = time.Duration(s.GetDisconnect().GetLostAfterMs()) * time.Millisecond
}

// summaryPB leaves out what a listing does not need.
func summaryPB(j *scheduler.Job) *schedulerv1.Job {
	state, end, reason := j.State()
	out := &schedulerv1.Job{
		Id: j.ID[:], Escrow: j.Escrow[:], Submitted: millis(j.Submitted),
		State: jobv1.State(state), EndReason: jobv1.EndReason(end), Reason: reason,
		TraceId: traceID(j.Traceparent),
		Revision: &jobv1.SignedRevision{Revision: &jobv1.Revision{
			Number: 1, Spec: &jobv1.JobSpec{Name: j.Spec.Name},
		}},
	}
	n := j.Counts()
	out.Counts = &schedulerv1.RunCounts{
		Pending: n[scheduler.Pending], Leased: n[scheduler.Leased], Starting: n[scheduler.Starting],
		Running: n[scheduler.Running], Asleep: n[scheduler.Asleep], Ended: n[scheduler.Ended],
	}
	if count := j.Spec.Tasks; count > 0 {
		out.Array = &schedulerv1.ArrayProgress{
			Count: count, Completed: j.Array.Completed, Failed: j.Array.Failed,
			Waiting: count - j.Array.Next,
		}
	}
	for _, r := range inline(j) {
		out.Runs = append(out.Runs, runPB(r))
	}
	return out
}

// maxInline is how many runs stand in a job's own message.
const maxInline = 10

// inline picks the runs that are told with the job: those that have not ended come first.
func inline(j *scheduler.Job) []*scheduler.Run {
	var runs []*scheduler.Run
	for _, ended := range []bool{false, true} {
		for i := range j.Runs {
			if r := &j.Runs[i]; (r.State == scheduler.Ended) == ended && len(runs) < maxInline {
				runs = append(runs, r)
			}
		}
	}
	slices.SortFunc(runs, func(a, b *scheduler.Run) int { return cmp.Compare(a.Slot, b.Slot) })
	return runs
}

// runPB tells a run without its attempts.
func runPB(r *scheduler.Run) *schedulerv1.Run {
	return &schedulerv1.Run{
		Id: r.ID[:], State: jobv1.State(r.State), EndReason: jobv1.EndReason(r.End),
		Reason: r.Reason, Created: millis(r.Created), Ended: millis(r.Ended),
		Slot: r.Slot, Task: r.Task, Tries: r.Tries,
	}
}

// traceID is the second field of a W3C traceparent.
func traceID(traceparent string) string {
	const start, end = 3, 35
	if len(traceparent) < end {
		return ""
	}
	return traceparent[start:end]
}

func jobPB(j *scheduler.Job) (*schedulerv1.Job, error) {
	out := summaryPB(j)
	out.Revision = &jobv1.SignedRevision{}
	if err := canon.Unmarshal(j.Revision, out.Revision); err != nil {
		return nil, fmt.Errorf("decode a stored revision: %w", err)
	}
	if j.Update != nil {
		out.Update = &jobv1.SignedRevision{}
		if err := canon.Unmarshal(j.Update, out.Update); err != nil {
			return nil, fmt.Errorf("decode a stored revision: %w", err)
		}
	}
	return out, tellAttempts(out.Runs, inline(j))
}

// tellAttempts fills in the attempts of runs.
func tellAttempts(out []*schedulerv1.Run, runs []*scheduler.Run) error {
	room := maxStatuses
	for i := len(runs) - 1; i >= 0; i-- {
		for k := len(runs[i].Attempts) - 1; k >= 0; k-- {
			a := runs[i].Attempts[k]
			if room -= len(a.Status); room < 0 {
				a.Status = nil
			}
			told, err := attemptPB(&a)
			if err != nil {
				return err
			}
			out[i].Attempts = append(out[i].Attempts, told)
		}
		slices.Reverse(out[i].Attempts)
	}
	return nil
}

// maxStatuses bounds the bytes of hosts' statuses in one answer, newest first; older ones are left
// out, since an answer that is too large is none.
const maxStatuses = 1 << 20

func attemptPB(a *scheduler.Attempt) (*schedulerv1.Attempt, error) {
	out := &schedulerv1.Attempt{
		Id: a.ID[:], State: jobv1.State(a.State), Reason: a.Reason,
		Prices: a.Prices.PB(), Subject: a.Host.Subject, Host: a.Host.Name,
		Created: millis(a.Created), Ended: millis(a.Ended),
		SignedLease: &marketv1.SignedLease{
			Lease: a.Lease.Lease.PB(), Signature: a.Lease.Signature[:],
		},
		Executor: &identityv1.Certificate{},
	}
	if a.Placed {
		out.Lease = a.Lease.ID[:]
	}
	if out.Kept = a.Kept; a.Continues != (scheduler.AttemptID{}) {
		out.Continues = a.Continues[:]
	}
	if err := canon.Unmarshal(a.Host.Certificate, out.Executor); err != nil {
		return nil, fmt.Errorf("decode a stored certificate: %w", err)
	}
	if a.Status != nil {
		out.Status = &jobv1.AttemptStatus{}
		if err := canon.Unmarshal(a.Status, out.Status); err != nil {
			return nil, fmt.Errorf("decode a stored status: %w", err)
		}
	}
	return out, nil
}

// offerHash is the hash that leases name: SHA-256 of the canonical offer.
func offerHash(raw []byte) [32]byte { return sha256.Sum256(raw) }

// maxNotice bounds the notice that is understood; more is cut.
const maxNotice = 24 * time.Hour

func milliseconds(ms uint64) time.Duration {
	return time.Duration(min(ms, uint64(maxNotice.Milliseconds()))) * time.Millisecond
}
