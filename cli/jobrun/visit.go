package jobrun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/ack"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/fault"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// Methods of executors on the bus.
const (
	methodTask        = "executor.v1/Task"
	methodAcknowledge = "executor.v1/Acknowledge"
	methodLogs        = "executor.v1/Logs"
)

// Bounds of a visit.
const (
	ackTries   = 4
	ackTimeout = 5 * time.Second
	leaseTries = 10
)

// ErrHost: the host that the scheduler names is not one the owner deals with.
var ErrHost = errors.New("the host does not prove that it holds the lease")

// visit speaks with the host of one attempt. run is its goroutine; the fields below it are the
// following's own.
type visit struct {
	f     *following
	runID []byte
	task  *schedulerv1.Attempt // as it was when the visit began
	lease tx.LeaseID
	host  string
	ended chan struct{} // closed when run has returned
	again chan struct{} // holds a nudge to break the stream off and ask anew

	done    bool
	status  *jobv1.AttemptStatus
	due     tx.Grains
	usages  map[tx.Hash]price.Usage
	attempt *schedulerv1.Attempt // newest from the scheduler
}

func newVisit(f *following, run []byte, a *schedulerv1.Attempt) *visit {
	return &visit{
		f: f, runID: run, task: a, attempt: a, lease: tx.LeaseID(a.GetLease()), host: a.GetHost(),
		ended: make(chan struct{}), again: make(chan struct{}, 1), usages: map[tx.Hash]price.Usage{},
	}
}

// tell hands a report over unless ctx ends.
func (v *visit) tell(ctx context.Context, rep report) {
	rep.from = v
	select {
	case v.f.reports <- rep:
	case <-ctx.Done():
	}
}

// run delivers the task and hears the host out until the attempt has ended.
func (v *visit) run(ctx context.Context) {
	defer close(v.ended)
	defer v.tell(ctx, report{done: true})
	target, checker, err := v.agree(ctx)
	if err == nil {
		var client *bus.Client
		if client, err = v.f.r.Session.Bus(); err == nil {
			err = v.converse(ctx, client, target, checker)
		}
	}
	forgotten := errors.Is(err, fault.NotFound) && v.task.GetState() == jobv1.State_STATE_ENDED
	if err != nil && ctx.Err() == nil && !forgotten {
		v.tell(ctx, report{warning: err.Error()})
	}
}

// agree holds what the scheduler says of the host against the certificate of the host's operator,
// the lease on the chain, and what the owner signed.
func (v *visit) agree(ctx context.Context) (bus.Target, *ack.Checker, error) {
	s := v.f.r.Session
	raw, err := canon.Marshal(v.task.GetExecutor())
	if err != nil {
		return bus.Target{}, nil, fmt.Errorf("%w: %w", ErrHost, err)
	}
	c, _, err := s.Judge().Verify(ctx, raw)
	if err != nil {
		return bus.Target{}, nil, fmt.Errorf("%w: %w", ErrHost, err)
	}
	target, err := bus.TargetOf(c, "executor")
	if err != nil {
		return bus.Target{}, nil, fmt.Errorf("%w: %w", ErrHost, err)
	}
	state, err := v.leaseState(ctx)
	if err != nil {
		return bus.Target{}, nil, err
	}
	checker, err := v.checker(&c, state)
	return target, checker, err
}

// leaseState reads the lease from the chain; the scheduler names it once it is committed.
func (v *visit) leaseState(ctx context.Context) (*tx.LeaseState, error) {
	s := v.f.r.Session
	var err error
	for range leaseTries {
		var answer *ledgerv1.GetLeaseResponse
		answer, err = s.Ledger.GetLease(ctx, &ledgerv1.GetLeaseRequest{
			Chain: s.Chain, Lease: v.lease[:],
		})
		if err == nil {
			state, err := tx.LeaseStateFromPB(answer.GetLease())
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrHost, err)
			}
			return &state, nil
		}
		if errors.Is(err, fault.NotFound) && v.task.GetState() == jobv1.State_STATE_ENDED {
			break // settled and gone
		}
		if !pause(ctx, firstBackoff) {
			break
		}
	}
	return nil, fmt.Errorf("read the lease: %w", err)
}

func (v *visit) checker(c *cert.Certificate, state *tx.LeaseState) (*ack.Checker, error) {
	e, s := v.f.e, v.f.r.Session
	placement := e.spec.GetPlacement()
	allowed := func(list [][]byte) bool {
		return slices.ContainsFunc(list, func(o []byte) bool { return bytes.Equal(o, c.Operator[:]) })
	}
	wrong := ""
	switch {
	case state.Lease.ID(s.Anchor) != v.lease:
		wrong = "the ledger shows another lease"
	case state.Lease.AgentKey != c.InstanceKey:
		wrong = "the lease is another instance's"
	case len(placement.GetOperatorsAllow()) > 0 && !allowed(placement.GetOperatorsAllow()),
		allowed(placement.GetOperatorsDeny()):
		wrong = "its operator is not one you want"
	}
	if wrong != "" {
		return nil, fmt.Errorf("%w: %s", ErrHost, wrong)
	}
	is := ack.Agreement{
		Anchor: s.Anchor, Lease: state.Lease, From: state.From, Budget: state.Budget,
		Prices: price.PricesFromPB(v.task.GetPrices()), Revision: tx.Hash(e.id),
		Escrow: e.escrow, Job: e.id, Key: e.key,
	}
	if most := e.spec.GetPayment().GetCap(); most != nil {
		prices := price.PricesFromPB(most)
		is.Cap = &prices
	}
	return ack.New(is, s.Now)
}

// converse asks for the stream again until the attempt has ended or the host knows it no more.
func (v *visit) converse(
	ctx context.Context, client *bus.Client, target bus.Target, checker *ack.Checker,
) error {
	offset := uint64(0)
	told := false // that the host is away
	for wait := firstBackoff; ; wait = min(2*wait, lastBackoff) {
		heard, ended, err := v.hear(ctx, client, target, checker, &offset)
		switch {
		case ended || ctx.Err() != nil:
			return nil
		case err != nil && Lasting(err):
			return fmt.Errorf("the host refuses the task: %w", err)
		case heard:
			wait, told = firstBackoff, false
		case !told && err != nil && wait > firstBackoff:
			told = true
			v.tell(ctx, report{warning: fmt.Sprintf("it cannot be heard, trying again: %v", err)})
		}
		if !pause(ctx, wait) {
			return nil
		}
	}
}

// hear reads one stream of updates to its end.
func (v *visit) hear(
	ctx context.Context, client *bus.Client, target bus.Target, checker *ack.Checker,
	offset *uint64,
) (heard, ended bool, err error) {
	e := v.f.e
	request := &executorv1.TaskRequest{
		Revision: e.revision, Run: v.runID, Attempt: v.task.GetId(), Lease: v.lease[:],
		StorageToken: e.token, LogOffset: *offset, RegistryCredentials: e.registryCredentials(),
	}
	for _, name := range e.spec.GetSecrets() {
		if value, ok := e.secrets[name]; ok {
			request.Secrets = append(request.Secrets, &executorv1.Secret{Name: name, Value: value})
		}
	}
	ctx, leave := v.untilNudged(ctx)
	defer leave()
	stream, err := client.Stream(ctx, target, methodTask, request, bus.ForJob(e.id))
	if err != nil {
		return false, false, err
	}
	defer stream.Close()
	for {
		update := &executorv1.TaskUpdate{}
		if err := stream.Next(update); errors.Is(err, io.EOF) {
			return heard, ended, nil
		} else if err != nil {
			return heard, ended, err
		}
		heard = true
		switch kind := update.GetKind().(type) {
		case *executorv1.TaskUpdate_Log:
			*offset = kind.Log.GetNextOffset()
			v.tell(ctx, report{log: kind.Log})
		case *executorv1.TaskUpdate_Note:
			v.acknowledge(ctx, client, target, checker, kind.Note)
		case *executorv1.TaskUpdate_Status:
			ended = ended || kind.Status.GetState() == jobv1.State_STATE_ENDED
			v.tell(ctx, report{status: kind.Status})
		}
	}
}

// untilNudged returns a context that also ends with a nudge. leave must be called.
func (v *visit) untilNudged(ctx context.Context) (_ context.Context, leave func()) {
	ctx, cancel := context.WithCancel(ctx)
	left := make(chan struct{})
	go func() {
		defer close(left)
		select {
		case <-v.again:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel()
		<-left
	}
}

// acknowledge checks a note and brings the countersignature to the host. One that is lost is made
// up for by the next note, or costs the host its trust.
func (v *visit) acknowledge(
	ctx context.Context, client *bus.Client, target bus.Target, checker *ack.Checker,
	note *jobv1.SignedNote,
) {
	if len(bytes.Trim(note.GetNote().GetLease(), "\x00")) == 0 {
		return // the attempt ended before any usage was signed
	}
	checked, err := checker.Check(note)
	if err != nil {
		v.tell(ctx, report{refused: err})
		return
	}
	v.tell(ctx, report{note: &noted{amount: checked.Amount, usage: checked.Usage}})
	request := &executorv1.AcknowledgeRequest{
		Lease: v.lease[:], Note: checked.Note.PB(), Countersignature: checked.Countersignature.PB(),
	}
	for try := range ackTries {
		err := v.acknowledgeOnce(ctx, client, target, request)
		if err == nil || ctx.Err() != nil || errors.Is(err, fault.NotFound) {
			return // the last: the attempt is closed and its last charge was made
		}
		if Lasting(err) || try == ackTries-1 {
			v.tell(ctx, report{warning: fmt.Sprintf("a countersignature did not arrive: %v", err)})
			return
		}
		if !pause(ctx, firstBackoff) {
			return
		}
	}
}

func (v *visit) acknowledgeOnce(
	ctx context.Context, client *bus.Client, target bus.Target,
	request *executorv1.AcknowledgeRequest,
) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	return client.Call(ctx, target, methodAcknowledge, request, &executorv1.AcknowledgeResponse{})
}

// lastUsage is the usage of the outcome, which a bill without countersignatures is made of.
func (v *visit) lastUsage() *jobv1.Usage {
	if usage := v.status.GetOutcome().GetUsage(); usage != nil {
		return usage
	}
	return v.attempt.GetStatus().GetOutcome().GetUsage()
}
