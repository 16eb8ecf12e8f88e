package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/rpc"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/gateway"
)

// executorTokenHeader carries the token for a host whose operator is not the gateway's: tokens
// name the operator that they are for. No host ever sees the ordinary token.
const executorTokenHeader = "Ucn-Executor-Token"

// hostAsk is a request that the host of an attempt answers, over the bus.
type hostAsk struct {
	server  *Server
	job     [32]byte
	attempt []byte // empty: the newest
	token   string // the caller's
	other   string // for a host of another operator
}

func (s *Server) hostAskOf(r *http.Request, job [32]byte) (hostAsk, error) {
	ask := hostAsk{server: s, job: job}
	var err error
	if text := r.URL.Query().Get("attempt"); text != "" {
		if ask.attempt, err = gateway.ParseShortID(text); err != nil {
			return ask, err
		}
	}
	if ask.token, err = bearerToken(r.Header); err != nil {
		return ask, err
	}
	if values := r.Header.Values(executorTokenHeader); len(values) > 0 {
		ask.other, err = tokenOf([]string{bearer + strings.Join(values, ",")})
	}
	return ask, err
}

// find returns the attempt that is asked for, and may wait until a host has it.
func (a *hostAsk) find(ctx context.Context, wait bool) (*schedulerv1.Attempt, error) {
	got, err := a.server.scheduler.GetJob(ctx, &schedulerv1.GetJobRequest{Job: a.job[:]})
	if err != nil {
		return nil, err
	}
	attempt := attemptOf(got.GetJob(), a.attempt)
	if attempt.GetExecutor() != nil || attempt != nil && ended(attempt) {
		return attempt, nil
	}
	if !wait || got.GetJob().GetState() == jobv1.State_STATE_ENDED {
		return nil, fault.New(fault.NotFound, gateway.ReasonNoAttempt,
			"the job has no such attempt on a host: a stream (follow=true) waits for one")
	}
	return a.await(ctx, func(at *schedulerv1.Attempt) bool { return at.GetExecutor() != nil })
}

// await watches the job until its attempt is as wanted.
func (a *hostAsk) await(
	ctx context.Context, wanted func(*schedulerv1.Attempt) bool,
) (*schedulerv1.Attempt, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch, err := a.server.scheduler.WatchJob(ctx, &schedulerv1.WatchJobRequest{Job: a.job[:]})
	if err != nil {
		return nil, err
	}
	for {
		m, err := watch.Recv()
		if errors.Is(err, io.EOF) {
			return nil, fault.New(fault.NotFound, gateway.ReasonNoAttempt,
				"the job ended without such an attempt")
		}
		if err != nil {
			return nil, err
		}
		if at := attemptOf(m.GetJob(), a.attempt); at != nil && wanted(at) {
			return at, nil
		}
	}
}

// attemptOf returns an attempt of a job, the newest if named is empty, nil if there is none.
func attemptOf(job *schedulerv1.Job, named []byte) *schedulerv1.Attempt {
	var found *schedulerv1.Attempt
	for _, run := range job.GetRuns() {
		for _, at := range run.GetAttempts() {
			if len(named) == 0 || string(at.GetId()) == string(named) {
				found = at
			}
		}
	}
	return found
}

func ended(at *schedulerv1.Attempt) bool { return at.GetState() == jobv1.State_STATE_ENDED }

// forOtherOperator says whose token is wanted.
func forOtherOperator(err error, target bus.Target) error {
	if f := fault.From(err); f != nil && errors.Is(err, rpc.ReasonWrongAudience) {
		return f.With("audience", id.Bech32(id.Account, target.Operator)).
			With("header", executorTokenHeader)
	}
	return err
}

// executor judges the certificate that the scheduler names and returns where to ask.
func (s *Server) executor(
	ctx context.Context, named *identityv1.Certificate,
) (bus.Target, error) {
	if named == nil {
		return bus.Target{}, fault.New(fault.Unavailable, gateway.ReasonNoLog,
			"the attempt was never on a host")
	}
	return s.certified(ctx, named, executorService)
}

// certified judges the certificate of an instance of a service and returns where to ask it.
func (s *Server) certified(
	ctx context.Context, named *identityv1.Certificate, service string,
) (bus.Target, error) {
	raw, err := canon.Marshal(proto.CloneOf(named))
	if err != nil {
		return bus.Target{}, notCertified(err)
	}
	// The user's token is not for whoever knows operators' keys.
	certificate, _, err := s.deps.Executors.Verify(rpc.WithToken(ctx, ""), raw)
	if err != nil {
		return bus.Target{}, notCertified(err)
	}
	target, err := bus.TargetOf(certificate, service)
	if err != nil {
		return bus.Target{}, notCertified(err)
	}
	return target, nil
}

func notCertified(err error) error {
	return fault.New(fault.Unavailable, gateway.ReasonExecutor,
		"the host cannot prove its operator").Because(err)
}
