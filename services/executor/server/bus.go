package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/registry"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/telemetry"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	"github.com/united-containers/ucn/services/executor"
)

// Methods of an executor on the bus.
const (
	MethodAsk         = "executor.v1/Ask"
	MethodTask        = "executor.v1/Task"
	MethodAcknowledge = "executor.v1/Acknowledge"
	MethodLogs        = "executor.v1/Logs"
	MethodStop        = "executor.v1/Stop"
	MethodStats       = "executor.v1/Stats"
)

const (
	serviceScheduler = "scheduler" // what an instance that asks must be certified for
	serviceGateway   = "gateway"   // the same of one that reads a log for somebody

	// What a token must allow: scopeRead with ":<job id>" to read, scopeHost for all else but Ask.
	// "job" covers both. They open nothing at a scheduler, so that a host cannot use them there.
	scopeHost = "job:host"
	scopeRead = "job:read"
)

// Reasons of faults of this package.
const (
	ReasonBadRevision  fault.Reason = "BAD_REVISION"
	ReasonNotScheduler fault.Reason = "NOT_SCHEDULER"
	// ReasonNotOwnGateway: only a gateway of the host's operator reads in somebody's name.
	ReasonNotOwnGateway fault.Reason = "NOT_OWN_GATEWAY"
)

// busMethods answers on the bus.
type busMethods struct {
	agent    *executor.Agent
	sets     keys.Sets
	operator sig.AccountID
}

// RegisterBus registers the executor's methods on the instance's bus server. sets tells the key
// sets of job owners; operator is the host's own, whose gateways are believed.
func RegisterBus(s *bus.Server, agent *executor.Agent, sets keys.Sets, operator sig.AccountID) {
	b := &busMethods{agent: agent, sets: sets, operator: operator}
	bus.Unary(s, MethodAsk, b.ask)
	bus.ServerStream(s, MethodTask, b.task)
	bus.Unary(s, MethodAcknowledge, b.acknowledge)
	bus.ServerStream(s, MethodLogs, b.logs)
	bus.Unary(s, MethodStop, b.stop)
	bus.Unary(s, MethodStats, b.stats)
}

// RegisterOperator registers the operator's calls on the bus as well: hosts need no open port.
func RegisterOperator(s *bus.Server, o *Server) {
	bus.Unary(s, "executor.v1/GetHost", o.GetHost)
	bus.Unary(s, "executor.v1/ListAttempts", o.ListAttempts)
	bus.Unary(s, "executor.v1/Drain", o.Drain)
	bus.Unary(s, "executor.v1/Undrain", o.Undrain)
	bus.Unary(s, "executor.v1/Evict", o.Evict)
	bus.Unary(s, "executor.v1/GetPolicy", o.GetPolicy)
	bus.Unary(s, "executor.v1/SetPolicy", o.SetPolicy)
}

// reader is peer for what only reads job.
func reader(ctx context.Context, job []byte) (executor.Peer, error) {
	of, err := fixed[executor.JobID]("job", job)
	if err != nil {
		return executor.Peer{}, err
	}
	return peer(ctx, scopeRead+":"+id.Bech32(id.Job, of))
}

// reading is a request that a gateway may make in somebody's name.
type reading interface {
	GetJob() []byte
	GetAccount() []byte
}

// readerFor is reader, or whom a gateway of this host's operator reads for.
func (b *busMethods) readerFor(ctx context.Context, m reading) (executor.Peer, error) {
	if len(m.GetAccount()) == 0 {
		return reader(ctx, m.GetJob())
	}
	c, ok := bus.InstanceFrom(ctx)
	if !ok || !c.Covers(serviceGateway) || c.Operator != b.operator {
		return executor.Peer{}, fault.New(fault.PermissionDenied, ReasonNotOwnGateway,
			"only a gateway of this host's operator reads in somebody's name: show a token")
	}
	account, err := fixed[sig.AccountID]("account", m.GetAccount())
	return executor.Peer{Account: account}, err
}

// peer tells who asks: an account whose token allows the scope, or a certified scheduler.
func peer(ctx context.Context, scope string) (executor.Peer, error) {
	if c, ok := bus.InstanceFrom(ctx); ok {
		if !c.Covers(serviceScheduler) {
			return executor.Peer{}, fault.New(fault.PermissionDenied, ReasonNotScheduler,
				"the instance that asks is not certified as a scheduler")
		}
		return executor.Peer{Instance: c.InstanceKey, Operator: c.Operator}, nil
	}
	if err := rpc.RequireScope(ctx, scope); err != nil {
		return executor.Peer{}, err
	}
	caller, _ := rpc.CallerFrom(ctx)
	return executor.Peer{Account: caller.Account}, nil
}

// revision verifies that the owner signed the revision, and returns the job's id.
func (b *busMethods) revision(ctx context.Context, r *jobv1.SignedRevision) (job.ID, error) {
	spec := r.GetRevision().GetSpec()
	owner, err := fixed[sig.AccountID]("owner", spec.GetOwner())
	if err != nil {
		return job.ID{}, err
	}
	set, err := b.sets.KeySet(ctx, spec.GetChain(), owner)
	if err != nil {
		return job.ID{}, fault.New(fault.Unavailable, ReasonBadRevision,
			"the owner's keys cannot be looked up now: try again").Because(err)
	}
	id, err := job.Verify(r, set)
	if err != nil {
		return job.ID{}, fault.New(fault.InvalidArgument, ReasonBadRevision, "%v", err)
	}
	return id, nil
}

func (b *busMethods) ask(
	ctx context.Context, m *executorv1.AskRequest,
) (*executorv1.AskResponse, error) {
	from, err := peer(ctx, scopeHost)
	if err != nil {
		return nil, err
	}
	if !from.Account.IsZero() {
		return nil, fault.New(fault.PermissionDenied, ReasonNotScheduler,
			"only a scheduler asks; submit the job to one")
	}
	id, err := b.revision(ctx, m.GetRevision())
	if err != nil {
		return nil, err
	}
	if err := job.Check(m.GetRevision().GetRevision().GetSpec()); err != nil {
		return decline(&executor.Decline{Code: codeOf(err), Message: err.Error()}), nil
	}
	if i := m.GetRevision().GetRevision().GetSpec().GetImage(); i.GetReference() != "" {
		if err := registry.Check(i.GetReference(), i.GetDigest()); err != nil {
			return decline(&executor.Decline{
				Code: executor.DeclineInvalid, Message: fault.From(err).Message(),
			}), nil
		}
	}
	ask, err := heardAsk(m, id, from)
	if err != nil {
		return nil, err
	}
	answer, err := b.agent.Ask(ctx, ask)
	if err != nil {
		return nil, fmt.Errorf("ask: %w", err)
	}
	if answer.Declined != nil {
		return decline(answer.Declined), nil
	}
	return &executorv1.AskResponse{Lease: leasePB(answer.Lease)}, nil
}

func codeOf(err error) executor.DeclineCode {
	if errors.Is(err, job.ErrNotBuilt) {
		return executor.DeclineUnsupported
	}
	return executor.DeclineInvalid
}

func decline(d *executor.Decline) *executorv1.AskResponse {
	return &executorv1.AskResponse{
		Declined: &executorv1.Decline{Code: string(d.Code), Message: d.Message},
	}
}

func (b *busMethods) task(
	ctx context.Context, m *executorv1.TaskRequest, send func(*executorv1.TaskUpdate) error,
) error {
	from, err := peer(ctx, scopeHost)
	if err != nil {
		return err
	}
	id, err := b.revision(ctx, m.GetRevision())
	if err != nil {
		return err
	}
	task, err := heardTask(m, id, from)
	if err != nil {
		return err
	}
	owner := m.GetRevision().GetRevision().GetSpec().GetOwner()
	if task.TokenUntil, err = heardToken(task.StorageToken, owner); err != nil {
		return err
	}
	task.Trace = telemetry.Inject(ctx)
	return b.agent.Task(ctx, task, func(u executor.Update) error {
		update, err := updatePB(u)
		if err != nil {
			return err
		}
		return send(update)
	})
}

func (b *busMethods) acknowledge(
	ctx context.Context, m *executorv1.AcknowledgeRequest,
) (*executorv1.AcknowledgeResponse, error) {
	lease, ack, err := heardAck(m)
	if err != nil {
		return nil, err
	}
	if err := b.agent.Acknowledge(ctx, lease, ack); err != nil {
		return nil, err
	}
	return &executorv1.AcknowledgeResponse{}, nil
}

func (b *busMethods) logs(
	ctx context.Context, m *executorv1.LogsRequest, send func(*executorv1.LogChunk) error,
) error {
	from, err := b.readerFor(ctx, m)
	if err != nil {
		return err
	}
	ask, err := heardLogs(m, from)
	if err != nil {
		return err
	}
	return b.agent.Logs(ctx, ask, func(c executor.LogChunk) error { return send(chunkPB(&c)) })
}

func (b *busMethods) stop(
	ctx context.Context, m *executorv1.StopRequest,
) (*executorv1.StopResponse, error) {
	from, err := peer(ctx, scopeHost)
	if err != nil {
		return nil, err
	}
	ask, err := heardStop(m, from)
	if err != nil {
		return nil, err
	}
	if err := b.agent.Stop(ctx, ask); err != nil {
		return nil, err
	}
	return &executorv1.StopResponse{}, nil
}

func (b *busMethods) stats(
	ctx context.Context, m *executorv1.StatsRequest,
) (*executorv1.StatsResponse, error) {
	from, err := b.readerFor(ctx, m)
	if err != nil {
		return nil, err
	}
	ask, err := heardStats(m, from)
	if err != nil {
		return nil, err
	}
	s, err := b.agent.Stats(ctx, ask)
	if err != nil {
		return nil, err
	}
	return statsPB(&s)
}
