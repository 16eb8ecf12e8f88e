// Package hostbus speaks to executors over the bus: sealed requests on the subject of the host,
// proved by the scheduler's own certificate. Hosts need no open port.
package hostbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/fault"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
	"github.com/united-containers/ucn/services/scheduler"
)

// The methods of an executor.
const (
	methodAsk  = "executor.v1/Ask"
	methodTask = "executor.v1/Task"
	methodStop = "executor.v1/Stop"
)

const service = "executor"

// codeNotContinuable: the host has no program that the ask's continues means.
const codeNotContinuable = "NOT_CONTINUABLE"

// Hosts implements scheduler.Hosts.
type Hosts struct {
	client *bus.Client
}

var _ scheduler.Hosts = (*Hosts)(nil)

// New returns hosts that are reached through client.
func New(client *bus.Client) *Hosts { return &Hosts{client: client} }

// Ask implements scheduler.Hosts.
func (h *Hosts) Ask(
	ctx context.Context, host scheduler.Host, a scheduler.Ask,
) (scheduler.SignedLease, error) {
	revision, err := decodeRevision(a.Revision)
	if err != nil {
		return scheduler.SignedLease{}, err
	}
	request := &executorv1.AskRequest{
		Revision: revision, Run: a.Run[:], Attempt: a.Attempt[:], OfferHash: a.OfferHash[:],
		Terms: termsPB(a.Terms), Task: a.Task,
	}
	if a.Continues != (scheduler.AttemptID{}) {
		request.Continues = a.Continues[:]
	}
	response := &executorv1.AskResponse{}
	if err := h.call(ctx, host, methodAsk, request, response); err != nil {
		return scheduler.SignedLease{}, err
	}
	if d := response.GetDeclined(); d != nil {
		declined := scheduler.ErrDeclined
		if d.GetCode() == codeNotContinuable && request.Continues != nil {
			declined = fmt.Errorf("%w: %w", declined, scheduler.ErrNotContinuable)
		}
		return scheduler.SignedLease{}, fmt.Errorf("%w: %s: %s", declined,
			printable(d.GetCode(), maxCode), printable(d.GetMessage(), maxWords))
	}
	return signedLease(response.GetLease())
}

func signedLease(m *marketv1.SignedLease) (scheduler.SignedLease, error) {
	lease, err := tx.LeaseFromPB(m.GetLease())
	if err != nil {
		return scheduler.SignedLease{}, fmt.Errorf("%w: %w", scheduler.ErrBadLease, err)
	}
	out := scheduler.SignedLease{Lease: lease}
	if len(m.GetSignature()) != len(out.Signature) {
		return scheduler.SignedLease{}, fmt.Errorf("%w: a signature of %d bytes",
			scheduler.ErrBadLease, len(m.GetSignature()))
	}
	copy(out.Signature[:], m.GetSignature())
	return out, nil
}

func termsPB(t scheduler.Terms) *marketv1.LeaseTerms {
	keys := make([][]byte, len(t.AckKeys))
	for i := range t.AckKeys {
		keys[i] = t.AckKeys[i][:]
	}
	out := &marketv1.LeaseTerms{
		Escrow: t.Escrow[:], Subject: t.Subject[:], Slot: t.Slot, Epoch: t.Epoch,
		Budget: t.Budget, Trust: t.Trust, Holdback: t.Holdback, AckKeys: keys,
		ClaimWindow: uint64(t.ClaimWindow.Milliseconds()),
		PlaceBy:     uint64(t.PlaceBy.UnixMilli()), Until: uint64(t.Until.UnixMilli()),
	}
	if t.Supersedes != (tx.LeaseID{}) {
		out.Supersedes = t.Supersedes[:]
	}
	return out
}

// maxUpdates is how many updates are read in search of the host's word on the attempt: an attempt
// that is over is told with its last note first.
const maxUpdates = 4

// Deliver implements scheduler.Hosts: it sends the task and leaves once the host has said how the
// attempt stands.
func (h *Hosts) Deliver(
	ctx context.Context, host scheduler.Host, t scheduler.Task,
) (*scheduler.Report, error) {
	target, err := targetOf(host)
	if err != nil {
		return nil, err
	}
	revision, err := decodeRevision(t.Revision)
	if err != nil {
		return nil, err
	}
	stream, err := h.client.Stream(ctx, target, methodTask, &executorv1.TaskRequest{
		Revision: revision, Run: t.Run[:], Attempt: t.Attempt[:], Lease: t.Lease[:],
		StorageToken: t.StorageToken, LogOffset: math.MaxUint64, // logs are the client's
	})
	if err != nil {
		return nil, translate(host, err)
	}
	defer stream.Close()
	for n := range maxUpdates {
		update := &executorv1.TaskUpdate{}
		err := stream.Next(update)
		switch {
		case err != nil && n > 0:
			return nil, nil // it has confirmed already
		case errors.Is(err, fault.NotFound):
			return nil, fmt.Errorf("%w: %s", scheduler.ErrForgotten, host.Name)
		case err != nil:
			return nil, translate(host, err)
		}
		if status := update.GetStatus(); status != nil {
			return reportOf(status, host, t)
		}
	}
	return nil, nil
}

// reportOf reads what a host says of an attempt; nil when it is nothing that changes anything, or
// is of another attempt.
func reportOf(
	m *jobv1.AttemptStatus, host scheduler.Host, t scheduler.Task,
) (*scheduler.Report, error) {
	out := &scheduler.Report{
		Run: t.Run, Attempt: t.Attempt, Executor: host.Executor, State: scheduler.State(m.GetState()),
		Reason: printable(m.GetReason(), maxWords), Time: timeOf(m.GetTime()),
		Ran: m.GetUsage().GetWallMs() > 0 || m.GetOutcome().GetUsage().GetWallMs() > 0,
	}
	if len(m.GetJob()) != len(out.Job) || !bytes.Equal(m.GetRun(), t.Run[:]) ||
		!bytes.Equal(m.GetAttempt(), t.Attempt[:]) ||
		out.State < scheduler.Starting || out.State > scheduler.Ended {
		return nil, nil
	}
	out.Job = job.ID(m.GetJob())
	if at := m.GetEvictAt(); at != 0 {
		out.EvictAt = timeOf(at)
	}
	if at := m.GetHeldUntil(); at != 0 {
		out.HeldUntil = timeOf(at)
	}
	if out.State == scheduler.Ended {
		out.End = scheduler.EndReason(m.GetOutcome().GetReason())
		out.Amount = m.GetOutcome().GetAmount()
		out.WallMS = m.GetOutcome().GetUsage().GetWallMs()
		out.CPUNS = m.GetOutcome().GetUsage().GetCpuNs()
		if out.End < scheduler.Completed || out.End > scheduler.Fraud {
			return nil, nil
		}
		if text := m.GetOutcome().GetMessage(); text != "" {
			out.Reason = printable(text, maxWords)
		}
	}
	raw, err := canon.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode the status of %s: %w", host.Name, err)
	}
	out.Raw = raw
	return out, nil
}

// Bounds of what hosts say.
const (
	maxCode  = 64
	maxWords = 400
	// maxTime is the last time that is told apart, in the year 9999, so that it can be written down.
	maxTime = 253_402_300_799_000
)

func timeOf(ms uint64) time.Time { return time.UnixMilli(int64(min(ms, maxTime))) }

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

// Stop implements scheduler.Hosts.
func (h *Hosts) Stop(ctx context.Context, host scheduler.Host, s scheduler.Stop) error {
	return h.call(ctx, host, methodStop, &executorv1.StopRequest{
		Job: s.Job[:], Attempt: s.Attempt[:], Reason: s.Reason,
		GraceMs: uint64(s.Grace.Milliseconds()),
	}, &executorv1.StopResponse{})
}

func (h *Hosts) call(
	ctx context.Context, host scheduler.Host, method string, req, resp proto.Message,
) error {
	target, err := targetOf(host)
	if err != nil {
		return err
	}
	if err := h.client.Call(ctx, target, method, req, resp); err != nil {
		return translate(host, err)
	}
	return nil
}

// translate names what the engine must tell apart.
func translate(host scheduler.Host, err error) error {
	var told *fault.Error
	switch {
	case errors.Is(err, bus.ReasonNotConnected):
		return fmt.Errorf("%w: %s: %w", scheduler.ErrUnreachable, host.Name, scheduler.ErrAbsent)
	case errors.Is(err, fault.Unavailable), errors.Is(err, fault.DeadlineExceeded),
		errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %s", scheduler.ErrUnreachable, host.Name)
	case errors.As(err, &told):
		return fmt.Errorf("%w: %s: %s", scheduler.ErrDeclined, told.Reason(),
			printable(told.Message(), maxWords))
	}
	return fmt.Errorf("ask %s: %w", host.Name, err)
}

func targetOf(host scheduler.Host) (bus.Target, error) {
	c, _, err := cert.Decode(host.Certificate) // judged when the offer came in
	if err != nil {
		return bus.Target{}, fmt.Errorf("certificate of %s: %w", host.Name, err)
	}
	target, err := bus.TargetOf(c, service)
	if err != nil {
		return bus.Target{}, fmt.Errorf("certificate of %s: %w", host.Name, err)
	}
	return target, nil
}

func decodeRevision(raw []byte) (*jobv1.SignedRevision, error) {
	revision := &jobv1.SignedRevision{}
	if err := canon.Unmarshal(raw, revision); err != nil {
		return nil, fmt.Errorf("decode revision: %w", err)
	}
	return revision, nil
}
