package clitest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// Host is the name of the one executor.
const Host = "alpha-1"

// Script is what the executor does with a task: it sends updates and charges through the Visit.
type Script func(v *Visit) *jobv1.Outcome

// Market is a scheduler with one executor, which follows a script.
type Market struct {
	schedulerv1.UnimplementedSchedulerServiceServer

	n      *Network
	script Script
	// PlaceBy is how long its leases stand at least; 0 is a moment.
	PlaceBy time.Duration
	// Idle is how many leases more a job gets, in lanes in which nothing runs.
	Idle int
	// Refuse makes SubmitJob fail with this error.
	Refuse error
	// Lie changes what GetJob answers.
	Lie func(*schedulerv1.Job)
	// Priced is called when the market is asked for, with how often that was; what it returns is the
	// answer. Nil answers.
	Priced func(n int) error
	// LeaseFee is what it takes for a lease, grains.
	LeaseFee tx.Grains

	mu      sync.Mutex // guards what follows
	jobs    map[job.ID]*schedulerv1.Job
	changed chan struct{} // closed and replaced at every change
	acks    []*executorv1.AcknowledgeRequest
	stop    chan struct{} // closed when a job is cancelled
	updated *jobv1.SignedRevision
	priced  int
}

var _ schedulerv1.SchedulerServiceServer = (*Market)(nil)

// Prices of the executor: one grain per ms of a core, and a run.
func Prices() price.Prices {
	return price.Prices{Model: price.Linear, CoreHour: 3_600_000, Run: 1_000_000}
}

// Jobs returns how many jobs were queued.
func (m *Market) Jobs() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.jobs)
}

// Forget loses all jobs, as a scheduler does whose disk is gone.
func (m *Market) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.jobs)
}

// Acks returns the countersignatures that arrived.
func (m *Market) Acks() []*executorv1.AcknowledgeRequest {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]*executorv1.AcknowledgeRequest(nil), m.acks...)
}

// GetScheduler implements the service.
func (m *Market) GetScheduler(context.Context, *schedulerv1.GetSchedulerRequest) (
	*schedulerv1.GetSchedulerResponse, error,
) {
	account := sig.AccountOfKey(m.n.scheduler.Key.Public())
	return &schedulerv1.GetSchedulerResponse{
		Assigner: account[:], Certificate: certificateOf(m.n.scheduler),
		LeaseFee: uint64(m.LeaseFee),
	}, nil
}

// GetMarket implements the service.
func (m *Market) GetMarket(context.Context, *schedulerv1.GetMarketRequest) (
	*schedulerv1.GetMarketResponse, error,
) {
	m.mu.Lock()
	m.priced++
	n := m.priced
	m.mu.Unlock()
	if m.Priced != nil {
		if err := m.Priced(n); err != nil {
			return nil, err
		}
	}
	core := Prices().PB()
	return &schedulerv1.GetMarketResponse{
		Time: uint64(time.Now().UnixMilli()), Hosts: 1, Operators: 1, Pending: uint64(n),
		LeaseFee: uint64(m.LeaseFee),
		Platforms: []*schedulerv1.PlatformMarket{{
			Platform: "linux/amd64", Hosts: 1, Best: core, Median: core,
		}},
	}, nil
}

// ListOffers implements the service.
func (m *Market) ListOffers(context.Context, *schedulerv1.ListOffersRequest) (
	*schedulerv1.ListOffersResponse, error,
) {
	operator := m.n.Operator()
	key := m.n.executor.Key.Public()
	return &schedulerv1.ListOffersResponse{Offers: []*schedulerv1.PostedOffer{{
		Hash: make([]byte, 32),
		Offer: &marketv1.Offer{
			Executor: key[:], Operator: operator[:], Payee: operator[:], Prices: Prices().PB(),
			Host: Host, Platforms: []string{"linux/amd64"}, Certificate: certificateOf(m.n.executor),
			Free:      &jobv1.Resources{CpuMilli: 2000, Memory: 1 << 30},
			Isolation: []jobv1.Isolation{jobv1.Isolation_ISOLATION_STANDARD},
		},
	}}}, nil
}

// SubmitJob implements the service: it places the lease at once.
func (m *Market) SubmitJob(_ context.Context, r *schedulerv1.SubmitJobRequest) (
	*schedulerv1.SubmitJobResponse, error,
) {
	if m.Refuse != nil {
		return nil, m.Refuse
	}
	id, err := job.Verify(r.GetRevision(), sig.KeySet{})
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, "JOB_SIGNATURE", "%v", err)
	}
	j := &schedulerv1.Job{
		Id: id[:], Revision: r.GetRevision(), Escrow: r.GetEscrow(),
		Submitted: uint64(time.Now().UnixMilli()), State: jobv1.State_STATE_LEASED,
		Reason: "leased to " + Host, Runs: []*schedulerv1.Run{{Id: []byte{1}}},
	}
	attempt, err := m.place(id, j)
	if err != nil {
		return nil, err
	}
	j.Runs[0].Attempts = []*schedulerv1.Attempt{attempt}
	m.mu.Lock()
	m.jobs[id] = j
	m.mu.Unlock()
	return &schedulerv1.SubmitJobResponse{Job: id[:], Run: []byte{1}}, nil
}

// place makes a lease and puts it on the chain.
func (m *Market) place(id job.ID, j *schedulerv1.Job) (*schedulerv1.Attempt, error) {
	escrow, ok := m.n.Ledger.state.Escrow(tx.EscrowID(j.GetEscrow()))
	if !ok {
		return nil, notFound("escrow")
	}
	spec := j.GetRevision().GetRevision().GetSpec()
	rate, upfront, err := price.SingleRun(Prices(), price.ResourcesFromPB(spec.GetResources()))
	if err != nil {
		return nil, err
	}
	now := m.n.Ledger.now()
	placeBy := now + tx.Millis(cmp.Or(m.PlaceBy, 300*time.Millisecond).Milliseconds())
	lease := tx.Lease{
		Escrow: tx.EscrowID(j.GetEscrow()), Subject: id[:], Epoch: 1, Payee: m.n.Operator(),
		AgentKey: m.n.executor.Key.Public(), Upfront: upfront, Rate: rate,
		Budget: (escrow.Balance - tx.Grains(1+m.Idle)*m.LeaseFee) / tx.Grains(1+m.Idle),
		Trust:  upfront + 1_000, Holdback: tx.Grains(spec.GetPayment().GetHoldback()),
		AckKeys: escrow.Terms.AckKeys, ClaimWindow: 86_400_000,
		PriceHash: Prices().Hash(), OfferHash: sha256.Sum256([]byte("offer")),
		PlaceBy: placeBy, Until: now + 3_600_000,
	}
	signature, err := m.lease(lease)
	if err != nil {
		return nil, err
	}
	idle := lease
	idle.Rate, idle.Upfront, idle.Trust = 0, 0, 0 // beside what the terms allow for one
	for int(idle.Slot) < m.Idle {
		idle.Slot++
		if _, err := m.lease(idle); err != nil {
			return nil, err
		}
	}
	leaseID := lease.ID(m.n.Ledger.Genesis.Anchor())
	return &schedulerv1.Attempt{
		Id: []byte{2}, State: jobv1.State_STATE_LEASED, Lease: leaseID[:], Host: Host,
		SignedLease: &marketv1.SignedLease{Lease: lease.PB(), Signature: signature[:]},
		Prices:      Prices().PB(), Executor: certificateOf(m.n.executor),
	}, nil
}

// PlaceMore puts a further lease of a job on the chain, in a lane of its own, for half of what its
// escrow has free. It returns why the chain refused it.
func (m *Market) PlaceMore(id job.ID) error {
	m.mu.Lock()
	j := m.jobs[id]
	m.mu.Unlock()
	escrow, ok := m.n.Ledger.state.Escrow(tx.EscrowID(j.GetEscrow()))
	if !ok {
		return notFound("escrow")
	}
	now := m.n.Ledger.now()
	_, err := m.lease(tx.Lease{
		Escrow: tx.EscrowID(j.GetEscrow()), Subject: id[:], Slot: escrow.Live, Epoch: 1,
		Payee: m.n.Operator(), AgentKey: m.n.executor.Key.Public(),
		Budget: (escrow.Balance - escrow.Reserved) / 2, AckKeys: escrow.Terms.AckKeys,
		ClaimWindow: 86_400_000, PriceHash: Prices().Hash(),
		OfferHash: sha256.Sum256([]byte("offer")), PlaceBy: now + 300, Until: now + 3_600_000,
	})
	return err
}

// lease puts a lease on the chain.
func (m *Market) lease(l tx.Lease) (sig.Signature, error) {
	signature := m.n.executor.Key.Sign(l.Preimage(m.n.Ledger.Genesis.Anchor()))
	result := m.n.send(m.n.scheduler.Key, &tx.PlaceLease{
		Lease: l, Signature: signature, Fee: m.LeaseFee,
	})
	if r := result.GetReceipt(); r.GetStatus() != 1 {
		return signature, fmt.Errorf("place the lease: %v", result)
	}
	return signature, nil
}

// ListJobs implements the service, without filters, in one page.
func (m *Market) ListJobs(context.Context, *schedulerv1.ListJobsRequest) (
	*schedulerv1.ListJobsResponse, error,
) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := &schedulerv1.ListJobsResponse{}
	for _, j := range m.jobs {
		out.Jobs = append(out.Jobs, proto.CloneOf(j))
	}
	return out, nil
}

func (m *Market) find(id []byte) (*schedulerv1.Job, <-chan struct{}, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j, ok := m.jobs[job.ID(id)]
	if !ok {
		return nil, nil, notFound("job")
	}
	return proto.Clone(j).(*schedulerv1.Job), m.changed, nil
}

// change changes a job and tells those who watch.
func (m *Market) change(id []byte, f func(*schedulerv1.Job)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m.jobs[job.ID(id)])
	close(m.changed)
	m.changed = make(chan struct{})
}

// GetJob implements the service.
func (m *Market) GetJob(_ context.Context, r *schedulerv1.GetJobRequest) (
	*schedulerv1.GetJobResponse, error,
) {
	j, _, err := m.find(r.GetJob())
	if m.Lie != nil && err == nil {
		m.Lie(j)
	}
	return &schedulerv1.GetJobResponse{Job: j}, err
}

// WatchJob implements the service.
func (m *Market) WatchJob(
	r *schedulerv1.WatchJobRequest, stream grpc.ServerStreamingServer[schedulerv1.WatchJobResponse],
) error {
	for {
		j, changed, err := m.find(r.GetJob())
		if err != nil {
			return err
		}
		if err := stream.Send(&schedulerv1.WatchJobResponse{Job: j}); err != nil {
			return err
		}
		if j.GetState() == jobv1.State_STATE_ENDED {
			return nil
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// CancelJob implements the service: the script sees it.
func (m *Market) CancelJob(_ context.Context, r *schedulerv1.CancelJobRequest) (
	*schedulerv1.CancelJobResponse, error,
) {
	j, _, err := m.find(r.GetJob())
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.stop:
	default:
		close(m.stop)
	}
	return &schedulerv1.CancelJobResponse{Job: j}, nil
}

// acknowledge is the executor's.
func (m *Market) acknowledge(_ context.Context, r *executorv1.AcknowledgeRequest) (
	*executorv1.AcknowledgeResponse, error,
) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acks = append(m.acks, r)
	close(m.changed)
	m.changed = make(chan struct{})
	return &executorv1.AcknowledgeResponse{}, nil
}

// task is the executor's: it runs the script, ends the lease, and tells the scheduler.
func (m *Market) task(
	ctx context.Context, r *executorv1.TaskRequest, send func(*executorv1.TaskUpdate) error,
) error {
	id, err := job.Verify(r.GetRevision(), sig.KeySet{})
	if err != nil {
		return err
	}
	v := &Visit{m: m, ctx: ctx, send: send, Task: r, Job: id, Lease: tx.LeaseID(r.GetLease())}
	outcome := m.script(v)
	status := &jobv1.AttemptStatus{
		Job: id[:], Run: r.GetRun(), Attempt: r.GetAttempt(), State: jobv1.State_STATE_ENDED,
		Lease: r.GetLease(), Outcome: outcome, Time: 1,
	}
	if err := send(&executorv1.TaskUpdate{
		Kind: &executorv1.TaskUpdate_Status{Status: status},
	}); err != nil {
		return err
	}
	m.change(id[:], func(j *schedulerv1.Job) {
		j.State, j.EndReason = jobv1.State_STATE_ENDED, outcome.GetReason()
		j.Reason = outcome.GetMessage()
		j.Runs[0].Attempts[0].State, j.Runs[0].Attempts[0].Status = jobv1.State_STATE_ENDED, status
	})
	return nil
}

// Visit is a script's hand on the executor.
type Visit struct {
	m     *Market
	ctx   context.Context
	send  func(*executorv1.TaskUpdate) error
	Task  *executorv1.TaskRequest
	Job   job.ID
	Lease tx.LeaseID
}

// Cancelled is closed when the owner cancels.
func (v *Visit) Cancelled() <-chan struct{} { return v.m.stop }

// Running tells that the program runs.
func (v *Visit) Running() {
	_ = v.send(&executorv1.TaskUpdate{Kind: &executorv1.TaskUpdate_Status{
		Status: &jobv1.AttemptStatus{State: jobv1.State_STATE_RUNNING, Time: 1},
	}})
}

// Log sends a line of output.
func (v *Visit) Log(offset uint64, text string) {
	_ = v.send(&executorv1.TaskUpdate{Kind: &executorv1.TaskUpdate_Log{Log: &executorv1.LogChunk{
		NextOffset: offset, Lines: []*executorv1.LogLine{{
			Stream: executorv1.Stream_STREAM_STDOUT, Text: []byte(text),
		}},
	}}})
}

// Note signs usage for an amount, which an honest host computes, and sends it.
func (v *Visit) Note(usage price.Usage, cumulative tx.Grains, final bool) tx.Note {
	note := tx.Note{
		Lease: v.Lease, Revision: tx.Hash(v.Job), Upto: v.m.n.Ledger.now(),
		Cumulative: cumulative, UsageHash: usage.Hash(),
	}
	signature := v.m.n.executor.Key.Sign(note.Preimage(v.m.n.Ledger.Genesis.Anchor()))
	_ = v.send(&executorv1.TaskUpdate{Kind: &executorv1.TaskUpdate_Note{Note: &jobv1.SignedNote{
		Note: note.PB(), Signature: signature[:], Usage: usage.PB(), Prices: Prices().PB(),
		Final: final,
	}}})
	return note
}

// AwaitAck waits for the countersignature of a note and returns it; nil when none comes.
func (v *Visit) AwaitAck(note tx.Note) *tx.Countersignature {
	limit := time.NewTimer(5 * time.Second)
	defer limit.Stop()
	for {
		v.m.mu.Lock()
		changed := v.m.changed
		for _, a := range v.m.acks {
			if got, err := tx.NoteFromPB(a.GetNote()); err == nil && got == note {
				signature, _ := sig.ParseSignature(a.GetCountersignature().GetSignature())
				v.m.mu.Unlock()
				return &tx.Countersignature{
					Index: a.GetCountersignature().GetIndex(), Signature: signature,
				}
			}
		}
		v.m.mu.Unlock()
		select {
		case <-changed:
		case <-limit.C:
			return nil
		case <-v.ctx.Done():
			return nil
		}
	}
}

// Charge charges a note, with its countersignature if there is one.
func (v *Visit) Charge(note tx.Note, ack *tx.Countersignature, final bool) {
	charge := &tx.Charge{
		Note: note, Final: final,
		Signature: v.m.n.executor.Key.Sign(note.Preimage(v.m.n.Ledger.Genesis.Anchor())),
	}
	if ack != nil {
		charge.Countersignature = *ack
	}
	v.m.n.send(v.m.n.executor.Key, charge)
}
