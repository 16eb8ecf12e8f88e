package server

import (
	"context"
	"errors"
	"testing"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/rpc"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	"github.com/united-containers/ucn/services/executor"
)

func TestPeer(t *testing.T) {
	account := sig.AccountID{1}
	scheduler := cert.Certificate{
		Operator: sig.AccountID{2}, InstanceKey: sig.PublicKey{3}, Services: []string{"scheduler"},
	}
	storage := scheduler
	storage.Services = []string{"storage"}
	tests := map[string]struct {
		ctx  context.Context
		want executor.Peer
		err  error
	}{
		"nobody": {t.Context(), executor.Peer{}, rpc.ReasonTokenMissing},
		"owner": {rpc.WithCaller(t.Context(), rpc.Caller{Account: account, Scopes: []string{"job"}}),
			executor.Peer{Account: account}, nil},
		"token for files": {rpc.WithCaller(t.Context(),
			rpc.Caller{Account: account, Scopes: []string{"file"}}),
			executor.Peer{}, rpc.ReasonScopeMissing},
		"token for hosts": {rpc.WithCaller(t.Context(),
			rpc.Caller{Account: account, Scopes: []string{"job:host"}}),
			executor.Peer{Account: account}, nil},
		"token for reading": {rpc.WithCaller(t.Context(),
			rpc.Caller{Account: account, Scopes: []string{"job:read"}}),
			executor.Peer{}, rpc.ReasonScopeMissing},
		"scheduler": {bus.WithInstance(t.Context(), scheduler),
			executor.Peer{Instance: sig.PublicKey{3}, Operator: sig.AccountID{2}}, nil},
		"another service": {bus.WithInstance(t.Context(), storage), executor.Peer{}, ReasonNotScheduler},
	}
	for name, tt := range tests {
		got, err := peer(tt.ctx, scopeHost)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: %+v, %v, want %+v, %v", name, got, err, tt.want, tt.err)
		}
	}
}

// TestReaders: a log, and what an attempt uses, is read with a token for its job, or by a gateway
// of the host's own operator for somebody. Nobody else is believed to read for another.
func TestReaders(t *testing.T) {
	owner, of := sig.AccountID{1}, executor.JobID{7}
	with := func(scope string) context.Context {
		return rpc.WithCaller(t.Context(), rpc.Caller{Account: owner, Scopes: []string{scope}})
	}
	instance := func(operator byte, service string) context.Context {
		return bus.WithInstance(t.Context(), cert.Certificate{Operator: sig.AccountID{operator},
			InstanceKey: sig.PublicKey{3}, Services: []string{service}})
	}
	tests := map[string]struct {
		ctx     context.Context
		account []byte
		err     error
	}{
		"for jobs":    {with("job"), nil, nil},
		"for reading": {with("job:read"), nil, nil},
		"for the job": {with("job:read:" + id.Bech32(id.Job, of)), nil, nil},
		"for another job": {with("job:read:" + id.Bech32(id.Job, [32]byte{8})), nil,
			rpc.ReasonScopeMissing},
		"for hosts":          {with("job:host"), nil, rpc.ReasonScopeMissing},
		"nobody":             {t.Context(), nil, rpc.ReasonTokenMissing},
		"own gateway":        {instance(9, "gateway"), owner[:], nil},
		"no account":         {instance(9, "gateway"), owner[:3], fault.InvalidArgument},
		"gateway for itself": {instance(9, "gateway"), nil, ReasonNotScheduler},
		"another's gateway":  {instance(8, "gateway"), owner[:], ReasonNotOwnGateway},
		"own scheduler":      {instance(9, "scheduler"), owner[:], ReasonNotOwnGateway},
		"an account":         {with("job"), owner[:], ReasonNotOwnGateway},
		"nobody, for one":    {t.Context(), owner[:], ReasonNotOwnGateway},
	}
	b := &busMethods{operator: sig.AccountID{9}}
	for name, tt := range tests {
		for _, m := range []reading{
			&executorv1.LogsRequest{Job: of[:], Account: tt.account},
			&executorv1.StatsRequest{Job: of[:], Account: tt.account},
		} {
			got, err := b.readerFor(tt.ctx, m)
			if !errors.Is(err, tt.err) || err == nil && got != (executor.Peer{Account: owner}) {
				t.Errorf("%s: %+v, %v, want %v", name, got, err, tt.err)
			}
		}
	}
}

// TestOnlySchedulersAsk refuses an owner who asks a host directly.
func TestOnlySchedulersAsk(t *testing.T) {
	ctx := rpc.WithCaller(t.Context(), rpc.Caller{Scopes: []string{"job"}, Account: [32]byte{1}})
	b := &busMethods{}
	if _, err := b.ask(ctx, &executorv1.AskRequest{}); !errors.Is(err, ReasonNotScheduler) {
		t.Errorf("ask = %v, want %s", err, ReasonNotScheduler)
	}
}

// noSets holds no key sets.
type noSets struct{ err error }

func (n noSets) KeySet(context.Context, string, sig.AccountID) (sig.KeySet, error) {
	return sig.KeySet{}, n.err
}

func TestRevisionMustBeSigned(t *testing.T) {
	b := &busMethods{sets: noSets{}}
	if _, err := b.revision(t.Context(), goodAsk().Revision); !errors.Is(err, ReasonBadRevision) ||
		fault.KindOf(err) != fault.InvalidArgument {
		t.Errorf("an unsigned revision: %v", err)
	}
	b.sets = noSets{errors.New("away")}
	if _, err := b.revision(t.Context(), goodAsk().Revision); !errors.Is(err, fault.Unavailable) {
		t.Errorf("keys that cannot be looked up: %v", err)
	}
}

func TestOnlyTheOperatorLooksIn(t *testing.T) {
	s := New(Deps{Operator: sig.AccountID{1}})
	for name, tt := range map[string]struct {
		caller rpc.Caller
		want   error
	}{
		"owner of a job": {rpc.Caller{Account: [32]byte{2}, Scopes: []string{"admin"}},
			ReasonNotOperator},
		"without scope": {rpc.Caller{Account: [32]byte{1}, Scopes: []string{"job"}},
			rpc.ReasonScopeMissing},
	} {
		ctx := rpc.WithCaller(t.Context(), tt.caller)
		if _, err := s.GetHost(ctx, nil); !errors.Is(err, tt.want) {
			t.Errorf("%s: GetHost = %v, want %v", name, err, tt.want)
		}
		if _, err := s.ListAttempts(ctx, nil); !errors.Is(err, tt.want) {
			t.Errorf("%s: ListAttempts = %v, want %v", name, err, tt.want)
		}
		if _, err := s.Drain(ctx, nil); !errors.Is(err, tt.want) {
			t.Errorf("%s: Drain = %v, want %v", name, err, tt.want)
		}
		if _, err := s.Undrain(ctx, nil); !errors.Is(err, tt.want) {
			t.Errorf("%s: Undrain = %v, want %v", name, err, tt.want)
		}
		if _, err := s.Evict(ctx, nil); !errors.Is(err, tt.want) {
			t.Errorf("%s: Evict = %v, want %v", name, err, tt.want)
		}
		if _, err := s.SetPolicy(ctx, nil); !errors.Is(err, tt.want) {
			t.Errorf("%s: SetPolicy = %v, want %v", name, err, tt.want)
		}
	}
	ctx := rpc.WithCaller(t.Context(), rpc.Caller{Account: [32]byte{1}, Scopes: []string{"admin"}})
	for name, call := range map[string]func() error{
		"a drain of more than 366 days": func() error {
			_, err := s.Drain(ctx, &executorv1.DrainRequest{EvictAfterMs: 366*24*3_600_000 + 1})
			return err
		},
		"an eviction of nothing": func() error {
			_, err := s.Evict(ctx, &executorv1.EvictRequest{})
			return err
		},
		"a notice of more than a day": func() error {
			_, err := s.Evict(ctx, &executorv1.EvictRequest{Attempt: []byte{1}, NoticeMs: 1 << 63})
			return err
		},
		"a run time of more than ten years": func() error {
			m := &executorv1.HostPolicy{MaxRunTimeMs: 1 << 62}
			_, err := s.SetPolicy(ctx, &executorv1.SetPolicyRequest{Policy: m})
			return err
		},
		"stats of no job": func() error {
			_, err := heardStats(&executorv1.StatsRequest{Attempt: []byte{1}}, executor.Peer{})
			return err
		},
		"stats of a long attempt id": func() error {
			m := &executorv1.StatsRequest{Job: make([]byte, 32), Attempt: make([]byte, 33)}
			_, err := heardStats(m, executor.Peer{})
			return err
		},
	} {
		if err := call(); !errors.Is(err, executor.ReasonBadArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
