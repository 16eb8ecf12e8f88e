package server

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/united-containers/ucn/chain/canon"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
	"github.com/united-containers/ucn/services/executor"
)

// Encoder makes the wire forms of what an executor posts. It is immutable.
type Encoder struct{ certificate *identityv1.Certificate }

var _ executor.Encoder = (*Encoder)(nil)

// NewEncoder returns an encoder whose offers carry the certificate with the canonical bytes given.
func NewEncoder(certificate []byte) (*Encoder, error) {
	c := new(identityv1.Certificate)
	if err := canon.Unmarshal(certificate, c); err != nil {
		return nil, fmt.Errorf("decode the certificate: %w", err)
	}
	return &Encoder{certificate: c}, nil
}

// Status implements executor.Encoder.
func (e *Encoder) Status(s executor.Status) ([]byte, error) {
	m, err := statusPB(&s)
	if err != nil {
		return nil, err
	}
	return canon.Marshal(m)
}

// Policy implements executor.Encoder.
func (e *Encoder) Policy(c executor.PolicyChange) ([]byte, error) {
	m := policyPB(c.Policy.Policy)
	raw, err := canon.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode the policy: %w", err)
	}
	hash := hmac.New(sha256.New, c.Policy.Salt)
	_, _ = hash.Write(raw) // never fails
	return canon.Marshal(&executorv1.PolicyChanged{
		Version: c.Policy.Version, Hash: hash.Sum(nil), Entries: m.GetEntries(),
		MaxRunTimeMs: m.GetMaxRunTimeMs(), Time: millis(c.Time),
	})
}

// Offer implements executor.Encoder.
func (e *Encoder) Offer(o executor.Offer) ([]byte, executor.Hash, error) {
	raw, err := canon.Marshal(e.offerPB(&o))
	if err != nil {
		return nil, executor.Hash{}, fmt.Errorf("encode offer: %w", err)
	}
	return raw, executor.Hash(hashOf(raw)), nil
}

func (e *Encoder) offerPB(o *executor.Offer) *marketv1.Offer {
	m := &marketv1.Offer{
		Executor: o.Executor[:], Payee: o.Payee[:], Operator: o.Operator[:],
		Expires: millis(o.Expires), Prices: o.Prices.Rules().PB(), Free: resourcesPB(o.Free),
		Total: resourcesPB(o.Total), Platforms: o.Platforms, Host: o.Host,
		Certificate: e.certificate, Notice: uint64(o.Notice.Milliseconds()), Draining: o.Draining,
	}
	for _, class := range o.Isolation {
		m.Isolation = append(m.Isolation, isolationPB(class))
	}
	for _, image := range o.Images {
		m.Images = append(m.Images, string(image))
	}
	for _, chain := range o.Chains {
		m.Chains = append(m.Chains, &marketv1.AcceptedChain{Chain: chain})
	}
	for name, value := range o.Labels {
		m.Labels = append(m.Labels, &jobv1.Label{Name: name, Value: value})
	}
	slices.SortFunc(m.Labels, func(a, b *jobv1.Label) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return m
}

func millis(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(max(t.UnixMilli(), 0))
}

func isolationPB(i executor.Isolation) jobv1.Isolation {
	if i == executor.IsolationStrict {
		return jobv1.Isolation_ISOLATION_STRICT
	}
	return jobv1.Isolation_ISOLATION_STANDARD
}

func resourcesPB(r executor.Resources) *jobv1.Resources {
	return &jobv1.Resources{
		CpuMilli: r.CPUMilli, Memory: r.Memory, Disk: r.Disk, Network: r.Network,
	}
}

func statusPB(s *executor.Status) (*jobv1.AttemptStatus, error) {
	run, err1 := hex.DecodeString(string(s.Run))
	attempt, err2 := hex.DecodeString(string(s.Attempt))
	if err1 != nil || err2 != nil {
		return nil, fmt.Errorf("run %q or attempt %q is not in hex", s.Run, s.Attempt)
	}
	continues, err3 := hex.DecodeString(string(s.Continues))
	if err3 != nil {
		return nil, fmt.Errorf("continued attempt %q is not in hex", s.Continues)
	}
	m := &jobv1.AttemptStatus{
		Job: s.Job[:], Run: run, Attempt: attempt, State: statePB(s.State), Reason: s.Reason,
		Time: millis(s.Time), Lease: s.Lease[:], Usage: s.Usage.PB(), Amount: s.Amount,
		EvictAt: millis(s.EvictAt), HeldUntil: millis(s.HeldUntil), Continues: continues,
	}
	if s.Outcome != nil {
		m.Outcome = outcomePB(s.Outcome)
	}
	return m, nil
}

func statePB(s executor.AttemptState) jobv1.State {
	switch s {
	case executor.AttemptLeased:
		return jobv1.State_STATE_LEASED
	case executor.AttemptStarting:
		return jobv1.State_STATE_STARTING
	case executor.AttemptRunning:
		return jobv1.State_STATE_RUNNING
	default:
		return jobv1.State_STATE_ENDED
	}
}

func reasonPB(r executor.EndReason) jobv1.EndReason {
	switch r {
	case executor.EndCompleted:
		return jobv1.EndReason_END_REASON_COMPLETED
	case executor.EndFailed:
		return jobv1.EndReason_END_REASON_FAILED
	case executor.EndCancelled:
		return jobv1.EndReason_END_REASON_CANCELLED
	case executor.EndExhausted:
		return jobv1.EndReason_END_REASON_EXHAUSTED
	case executor.EndExpired:
		return jobv1.EndReason_END_REASON_EXPIRED
	case executor.EndEvicted:
		return jobv1.EndReason_END_REASON_EVICTED
	case executor.EndHostLost:
		return jobv1.EndReason_END_REASON_HOST_LOST
	default:
		return jobv1.EndReason_END_REASON_REFUSED
	}
}

func outcomePB(o *executor.Outcome) *jobv1.Outcome {
	m := &jobv1.Outcome{
		Reason: reasonPB(o.Reason), ExitCode: int32(o.Code), Message: o.Message, LogCid: o.LogCID,
		Usage: o.Usage.PB(), Amount: o.Amount,
	}
	for _, f := range o.Outputs {
		m.Outputs = append(m.Outputs, &jobv1.OutputFile{Path: f.Path, Cid: f.CID, Size: f.Size})
	}
	return m
}

// updatePB makes the message of an update for a client.
func updatePB(u executor.Update) (*executorv1.TaskUpdate, error) {
	switch {
	case u.Status != nil:
		m, err := statusPB(u.Status)
		return &executorv1.TaskUpdate{Kind: &executorv1.TaskUpdate_Status{Status: m}}, err
	case u.Log != nil:
		return &executorv1.TaskUpdate{Kind: &executorv1.TaskUpdate_Log{Log: chunkPB(u.Log)}}, nil
	default:
		return &executorv1.TaskUpdate{Kind: &executorv1.TaskUpdate_Note{Note: notePB(u.Note)}}, nil
	}
}

func chunkPB(c *executor.LogChunk) *executorv1.LogChunk {
	m := &executorv1.LogChunk{NextOffset: c.Next}
	for _, line := range c.Lines {
		stream := executorv1.Stream_STREAM_STDOUT
		if line.Stream == executor.Stderr {
			stream = executorv1.Stream_STREAM_STDERR
		}
		m.Lines = append(m.Lines, &executorv1.LogLine{
			Time: millis(line.Time), Stream: stream, Text: line.Text, Partial: line.Partial,
		})
	}
	return m
}

func notePB(n *executor.NoteAsk) *jobv1.SignedNote {
	return &jobv1.SignedNote{
		Note: n.Note.Note.TX().PB(), Signature: n.Note.Signature[:], Usage: n.Note.Usage.PB(),
		Prices: n.Prices.Rules().PB(), Final: n.Note.Final,
	}
}

func leasePB(l *executor.SignedLease) *marketv1.SignedLease {
	return &marketv1.SignedLease{Lease: l.Lease.TX().PB(), Signature: l.Signature[:]}
}

func statsPB(s *executor.Stats) (*executorv1.StatsResponse, error) {
	run, err1 := hex.DecodeString(string(s.Run))
	attempt, err2 := hex.DecodeString(string(s.Attempt))
	if err1 != nil || err2 != nil {
		return nil, fmt.Errorf("run %q or attempt %q is not in hex", s.Run, s.Attempt)
	}
	return &executorv1.StatsResponse{
		Attempt: attempt, Run: run, Lease: s.Lease[:], State: statePB(s.State), Time: millis(s.Time),
		Usage: s.Usage.PB(), Amount: s.Amount, Paid: s.Paid, Budget: s.Budget, Rate: s.Rate,
		CpuMilli: s.Now.CPUMilli, Memory: s.Now.Memory, Disk: s.Now.Disk,
		BytesInPerS: s.Now.InPerS, BytesOutPerS: s.Now.OutPerS, Reserved: resourcesPB(s.Reserved),
		Started: millis(s.Started), EvictAt: millis(s.EvictAt), Waiting: s.Waiting,
	}, nil
}
