package server

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/telemetry"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/scheduler"
)

// Scope that a token needs for the calls about jobs.
const Scope = "job"

// Bounds of requests.
const (
	maxToken    = 4 << 10
	maxReason   = 200
	defaultJobs = 50
	maxPage     = 1000
	maxScanned  = 10_000    // jobs looked at for one page of those in some state
	maxRevision = 256 << 10 // canonical bytes; it must also fit a request on the bus
)

// Reasons that this service refuses with.
const (
	ReasonSpec       fault.Reason = "JOB_SPEC_INVALID"
	ReasonNotBuilt   fault.Reason = "JOB_FIELD_NOT_BUILT"
	ReasonSignature  fault.Reason = "JOB_SIGNATURE"
	ReasonNotOwner   fault.Reason = "JOB_OF_ANOTHER"
	ReasonEscrow     fault.Reason = "ESCROW_UNFIT"
	ReasonLeaseFee   fault.Reason = "LEASE_FEE_TOO_LOW"
	ReasonConflict   fault.Reason = "JOB_CONFLICT"
	ReasonNotFound   fault.Reason = "JOB_NOT_FOUND"
	ReasonOver       fault.Reason = "JOB_OVER"
	ReasonFull       fault.Reason = "TOO_MANY"
	ReasonQueueFull  fault.Reason = "QUEUE_FULL"
	ReasonOwnerFull  fault.Reason = "TOO_MANY_PENDING"
	ReasonBadRequest fault.Reason = "BAD_SCHEDULER_REQUEST"
	ReasonOtherQuery fault.Reason = "PAGE_TOKEN_OF_ANOTHER_QUERY"
)

// GetScheduler implements SchedulerServiceServer.
func (s *Server) GetScheduler(
	context.Context, *schedulerv1.GetSchedulerRequest,
) (*schedulerv1.GetSchedulerResponse, error) {
	return &schedulerv1.GetSchedulerResponse{
		Assigner: s.deps.Engine.Assigner[:], Certificate: s.deps.Certificate,
		LeaseFee: s.leaseFee,
	}, nil
}

// SubmitJob implements SchedulerServiceServer.
func (s *Server) SubmitJob(
	ctx context.Context, r *schedulerv1.SubmitJobRequest,
) (*schedulerv1.SubmitJobResponse, error) {
	caller, err := owner(ctx)
	if err != nil {
		return nil, err
	}
	j, err := s.readJob(ctx, caller, r)
	if err != nil {
		return nil, err
	}
	trace.SpanFromContext(ctx).SetAttributes(ownerAttribute(caller))
	queued, err := s.engine.Submit(ctx, j)
	if err != nil {
		return nil, translate(err)
	}
	run := queued.Current().ID
	return &schedulerv1.SubmitJobResponse{Job: queued.ID[:], Run: run[:]}, nil
}

// readJob checks what was submitted and makes the engine's job of it.
func (s *Server) readJob(
	ctx context.Context, caller sig.AccountID, r *schedulerv1.SubmitJobRequest,
) (*scheduler.Job, error) {
	spec := r.GetRevision().GetRevision().GetSpec()
	if err := job.Check(spec); err != nil {
		return nil, translate(err)
	}
	if string(spec.GetOwner()) != string(caller[:]) {
		return nil, fault.New(fault.PermissionDenied, ReasonNotOwner,
			"the job's owner is another account than the token's")
	}
	if spec.GetChain() != s.deps.Chain {
		return nil, fault.New(fault.InvalidArgument, ReasonSpec,
			"chain: this scheduler takes jobs paid on %q", s.deps.Chain)
	}
	if len(r.GetEscrow()) != len(tx.EscrowID{}) || len(r.GetStorageToken()) > maxToken {
		return nil, fault.New(fault.InvalidArgument, ReasonBadRequest,
			"escrow must be 32 bytes and storage_token at most %d", maxToken)
	}
	var held sig.KeySet
	if s.deps.KeySets != nil {
		var err error
		if held, err = s.deps.KeySets.KeySet(ctx, spec.GetChain(), caller); err != nil {
			return nil, fmt.Errorf("read the owner's key set: %w", err)
		}
	}
	id, err := job.Verify(r.GetRevision(), held)
	if err != nil {
		return nil, translate(err)
	}
	raw, err := canon.Marshal(r.GetRevision())
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, ReasonSpec, "revision: %v", err)
	}
	if len(raw) > maxRevision {
		return nil, fault.New(fault.InvalidArgument, ReasonSpec,
			"revision has %d bytes, at most %d", len(raw), maxRevision)
	}
	delivery, err := deliveryOf(r.GetDelivery())
	if err != nil {
		return nil, err
	}
	return &scheduler.Job{
		ID: id, Owner: caller, Escrow: tx.EscrowID(r.GetEscrow()), Revision: raw,
		Spec: specOf(spec), StorageToken: r.GetStorageToken(), Delivery: delivery,
		Traceparent: telemetry.Inject(ctx),
	}, nil
}

func deliveryOf(d schedulerv1.Delivery) (scheduler.Delivery, error) {
	switch d {
	case schedulerv1.Delivery_DELIVERY_UNSPECIFIED, schedulerv1.Delivery_DELIVERY_CLIENT:
		return scheduler.ByClient, nil
	case schedulerv1.Delivery_DELIVERY_SCHEDULER:
		return scheduler.ByScheduler, nil
	}
	return 0, fault.New(fault.Unimplemented, ReasonNotBuilt,
		"delivery: %d is not served by this network yet", d)
}

// GetJob implements SchedulerServiceServer.
func (s *Server) GetJob(
	ctx context.Context, r *schedulerv1.GetJobRequest,
) (*schedulerv1.GetJobResponse, error) {
	j, err := s.find(ctx, r.GetJob())
	if err != nil {
		return nil, err
	}
	out, err := jobPB(j)
	if err != nil {
		return nil, err
	}
	return &schedulerv1.GetJobResponse{Job: out}, nil
}

// find returns the caller's job.
func (s *Server) find(ctx context.Context, id []byte) (*scheduler.Job, error) {
	caller, err := owner(ctx)
	if err != nil {
		return nil, err
	}
	if len(id) != len(job.ID{}) {
		return nil, fault.New(fault.InvalidArgument, ReasonBadRequest, "a job id has 32 bytes")
	}
	j, err := s.engine.Job(ctx, caller, job.ID(id))
	if err != nil {
		return nil, translate(err)
	}
	return j, nil
}

// CancelJob implements SchedulerServiceServer.
func (s *Server) CancelJob(
	ctx context.Context, r *schedulerv1.CancelJobRequest,
) (*schedulerv1.CancelJobResponse, error) {
	j, err := s.find(ctx, r.GetJob())
	if err != nil {
		return nil, err
	}
	reason := r.GetReason()
	switch {
	case len(reason) > maxReason:
		return nil, fault.New(fault.InvalidArgument, ReasonBadRequest,
			"reason has %d bytes, at most %d", len(reason), maxReason)
	case reason == "":
		reason = "cancelled by its owner"
	}
	if j, err = s.engine.Cancel(ctx, j, reason); err != nil {
		return nil, translate(err)
	}
	out, err := jobPB(j)
	if err != nil {
		return nil, err
	}
	return &schedulerv1.CancelJobResponse{Job: out}, nil
}

// WatchJob implements SchedulerServiceServer.
func (s *Server) WatchJob(
	r *schedulerv1.WatchJobRequest, stream grpc.ServerStreamingServer[schedulerv1.WatchJobResponse],
) error {
	ctx := stream.Context()
	if _, err := s.find(ctx, r.GetJob()); err != nil {
		return err
	}
	changed, stop, err := s.engine.Watch(job.ID(r.GetJob()))
	if err != nil {
		return translate(err)
	}
	defer stop()
	for {
		j, err := s.find(ctx, r.GetJob())
		if err != nil {
			return err
		}
		out, err := jobPB(j)
		if err != nil {
			return err
		}
		if err := stream.Send(&schedulerv1.WatchJobResponse{Job: out}); err != nil {
			return err
		}
		if state, _, _ := j.State(); state == scheduler.Ended {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// owner returns the caller that proved itself for calls about jobs.
func owner(ctx context.Context) (sig.AccountID, error) {
	if err := rpc.RequireScope(ctx, Scope); err != nil {
		return sig.AccountID{}, err
	}
	caller, _ := rpc.CallerFrom(ctx)
	return caller.Account, nil
}

func pageSize(asked uint32, otherwise int) (int, error) {
	switch {
	case asked == 0:
		return otherwise, nil
	case asked > maxPage:
		return 0, fault.New(fault.InvalidArgument, ReasonBadRequest,
			"page_size is %d, at most %d", asked, maxPage)
	}
	return int(asked), nil
}

// translate makes faults of the errors a peer must act on.
func translate(err error) error {
	var field *job.FieldError
	switch {
	case errors.As(err, &field) && errors.Is(err, job.ErrNotBuilt):
		return fault.New(fault.Unimplemented, ReasonNotBuilt, "%s", field)
	case errors.As(err, &field):
		return fault.New(fault.InvalidArgument, ReasonSpec, "%s", field)
	case errors.Is(err, job.ErrSignature), errors.Is(err, job.ErrRevision):
		return fault.New(fault.InvalidArgument, ReasonSignature, "%v", err)
	case errors.Is(err, scheduler.ErrLeaseFee):
		return fault.New(fault.FailedPrecondition, ReasonLeaseFee, "%v", err)
	case errors.Is(err, scheduler.ErrEscrow):
		return fault.New(fault.FailedPrecondition, ReasonEscrow, "%v", err)
	case errors.Is(err, scheduler.ErrOver):
		return fault.New(fault.FailedPrecondition, ReasonOver, "%v", err)
	case errors.Is(err, scheduler.ErrConflict), errors.Is(err, scheduler.ErrOvertaken):
		return fault.New(fault.AlreadyExists, ReasonConflict, "%v", err)
	case errors.Is(err, scheduler.ErrNotFound):
		return fault.New(fault.NotFound, ReasonNotFound, "there is no such job of this account")
	case errors.Is(err, scheduler.ErrQueueFull):
		return fault.New(fault.ResourceExhausted, ReasonQueueFull, "%v", err)
	case errors.Is(err, scheduler.ErrOwnerFull):
		return fault.New(fault.ResourceExhausted, ReasonOwnerFull, "%v", err)
	case errors.Is(err, scheduler.ErrFull):
		return fault.New(fault.ResourceExhausted, ReasonFull, "%v", err)
	}
	return err
}
