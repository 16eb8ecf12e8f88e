package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
	"github.com/united-containers/ucn/services/scheduler"
)

// The events of executors that the scheduler follows.
const (
	typeOffer   = "offer.posted"
	typeAttempt = "attempt.changed"
)

// Topics of executors that must be followed.
func Topics() []event.Topic { return []event.Topic{event.TopicMarket, event.TopicJob} }

const executorService = "executor"

// Bounds of what an offer may list.
const (
	maxHeld   = 1000
	maxLabels = 64
	maxName   = 128
)

// Bounds of what an attempt's status may hold.
const (
	maxStatus = 128 << 10 // bytes
	maxWords  = 400       // bytes of what people read; more is cut
)

// printable cuts a stranger's words and leaves out what would steer a terminal.
func printable(text string, most int) string {
	text = strings.ToValidUTF8(text[:min(len(text), most)], "")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
}

// handle takes one verified event of a host. What it does is idempotent. A payload that makes no
// sense is refused for good.
func (s *Server) handle(ctx context.Context, in event.Incoming) error {
	switch in.Type() {
	case typeOffer:
		offer := &marketv1.Offer{}
		if err := in.Payload(offer); err != nil {
			return fmt.Errorf("%w: %w", event.ErrRefused, err)
		}
		o, err := offerOf(offer, in)
		if err != nil {
			return fmt.Errorf("%w: offer: %w", event.ErrRefused, err)
		}
		s.engine.Offer(o)
	case typeAttempt:
		status := &jobv1.AttemptStatus{}
		if err := in.Payload(status); err != nil {
			return fmt.Errorf("%w: %w", event.ErrRefused, err)
		}
		report, err := reportOf(status, in)
		if err != nil {
			return fmt.Errorf("%w: attempt status: %w", event.ErrRefused, err)
		}
		return s.engine.Report(ctx, report)
	}
	return nil
}

// offerOf reads an offer and holds it against the envelope that brought it.
func offerOf(m *marketv1.Offer, in event.Incoming) (*scheduler.Offer, error) {
	raw, err := canon.Marshal(m.GetCertificate())
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	c, id, err := cert.Decode(raw)
	if err != nil {
		return nil, err
	}
	target, err := bus.TargetOf(c, executorService)
	if err != nil {
		return nil, err
	}
	switch {
	case string(m.GetExecutor()) != string(in.Body.GetInstanceKey()):
		return nil, fmt.Errorf("is of another executor than its envelope")
	case string(in.Body.GetCertificateId()) != string(id[:]) ||
		c.InstanceKey != sig.PublicKey(in.Body.GetInstanceKey()) || c.Operator != in.Operator:
		return nil, fmt.Errorf("its certificate is another's")
	case string(m.GetOperator()) != string(in.Operator[:]):
		return nil, fmt.Errorf("names another operator than its certificate")
	case len(m.GetPayee()) != len(sig.AccountID{}):
		return nil, fmt.Errorf("payee must be an account id of 32 bytes")
	case len(m.GetImages()) > maxHeld, len(m.GetFiles()) > maxHeld,
		len(m.GetLabels()) > maxLabels, len(m.GetHost()) > maxName,
		len(m.GetPlatforms()) > maxLabels, len(m.GetChains()) > maxLabels:
		return nil, fmt.Errorf("lists too much")
	case !within(m.GetTotal(), m.GetFree()):
		return nil, fmt.Errorf("has more free than there is")
	}
	prices := price.PricesFromPB(m.GetPrices())
	if err := prices.Validate(); err != nil {
		return nil, err
	}
	out := &scheduler.Offer{
		Host: scheduler.Host{
			Executor: c.InstanceKey, Operator: c.Operator, Name: printable(m.GetHost(), maxName),
			Subject: target.RPC(), Certificate: raw,
		},
		Payee: sig.AccountID(m.GetPayee()), Posted: in.Time(), Prices: prices,
		Expires: fromMillis(m.GetExpires()),
		Free:    price.ResourcesFromPB(m.GetFree()), Total: price.ResourcesFromPB(m.GetTotal()),
		Platforms: m.GetPlatforms(), Position: position(m.GetPosition()),
		Images: m.GetImages(), Files: m.GetFiles(), Labels: labels(m.GetLabels()),
		Notice: milliseconds(m.GetNotice()), Draining: m.GetDraining(),
		Standard: slices.Contains(m.GetIsolation(), jobv1.Isolation_ISOLATION_STANDARD),
		Strict:   slices.Contains(m.GetIsolation(), jobv1.Isolation_ISOLATION_STRICT),
		Raw:      in.Body.GetPayload(),
	}
	out.Hash = offerHash(out.Raw)
	for _, chain := range m.GetChains() {
		out.Chains = append(out.Chains, chain.GetChain())
	}
	return out, nil
}

// within tells whether part is no more than whole.
func within(whole, part *jobv1.Resources) bool {
	return part.GetCpuMilli() <= whole.GetCpuMilli() && part.GetMemory() <= whole.GetMemory() &&
		part.GetDisk() <= whole.GetDisk() && part.GetNetwork() <= whole.GetNetwork()
}

// reportOf reads an attempt's status. Who may report is for the engine to judge.
func reportOf(m *jobv1.AttemptStatus, in event.Incoming) (scheduler.Report, error) {
	out := scheduler.Report{
		Executor: sig.PublicKey(in.Body.GetInstanceKey()),
		Reason:   printable(m.GetReason(), maxWords),
		State:    scheduler.State(m.GetState()), Time: fromMillis(m.GetTime()),
		Ran: m.GetUsage().GetWallMs() > 0 || m.GetOutcome().GetUsage().GetWallMs() > 0,
		Raw: in.Body.GetPayload(),
	}
	switch {
	case len(out.Raw) > maxStatus:
		return out, fmt.Errorf("has %d bytes, at most %d", len(out.Raw), maxStatus)
	case out.Time.After(in.Time().Add(time.Minute)):
		return out, fmt.Errorf("is of a time after its event's")
	}
	if len(m.GetJob()) != len(job.ID{}) || len(m.GetRun()) != len(out.Run) ||
		len(m.GetAttempt()) != len(out.Attempt) {
		return out, fmt.Errorf("ids of the wrong length")
	}
	out.Job, out.Run = job.ID(m.GetJob()), scheduler.RunID(m.GetRun())
	out.Attempt = scheduler.AttemptID(m.GetAttempt())
	if at := m.GetEvictAt(); at != 0 {
		out.EvictAt = fromMillis(at)
	}
	if at := m.GetHeldUntil(); at != 0 {
		out.HeldUntil = fromMillis(at)
	}
	if out.State < scheduler.Starting || out.State > scheduler.Ended {
		return out, fmt.Errorf("a host cannot report the state %s", out.State)
	}
	if out.State == scheduler.Ended {
		out.End = scheduler.EndReason(m.GetOutcome().GetReason())
		out.Amount = m.GetOutcome().GetAmount()
		out.WallMS = m.GetOutcome().GetUsage().GetWallMs()
		out.CPUNS = m.GetOutcome().GetUsage().GetCpuNs()
		if out.End < scheduler.Completed || out.End > scheduler.Fraud {
			return out, fmt.Errorf("ended for no reason")
		}
		if text := m.GetOutcome().GetMessage(); text != "" {
			out.Reason = printable(text, maxWords)
		}
	}
	return out, nil
}

// EventOf makes the event that tells the world of a change (topic job).
func EventOf(e *scheduler.Event, chain string) (event.Event, error) {
	j := e.Job
	state, end, reason := j.State()
	change := &jobv1.JobChange{
		Job: j.ID[:], Owner: j.Owner[:], Escrow: j.Escrow[:], State: jobv1.State(state),
		EndReason: jobv1.EndReason(end), Reason: reason,
	}
	if a := e.Run.Current(); a != nil {
		change.Attempt, change.Executor = a.ID[:], a.Host.Executor[:]
		if a.Placed {
			change.Lease = a.Lease.ID[:]
		}
	}
	payload, err := canon.Marshal(change)
	if err != nil {
		return event.Event{}, fmt.Errorf("encode a job's change: %w", err)
	}
	return event.Event{
		Topic: event.TopicJob, Type: e.Type, Time: e.Time, Chain: chain, Payload: payload,
		Traceparent: j.Traceparent,
	}, nil
}
