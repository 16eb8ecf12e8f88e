package server

import (
	"context"
	"errors"
	"testing"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/fault"
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
		"scheduler": {bus.WithInstance(t.Context(), scheduler),
			executor.Peer{Instance: sig.PublicKey{3}, Operator: sig.AccountID{2}}, nil},
		"another service": {bus.WithInstance(t.Context(), storage), executor.Peer{}, ReasonNotScheduler},
	}
	for name, tt := range tests {
		got, err := peer(tt.ctx)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: %+v, %v, want %+v, %v", name, got, err, tt.want, tt.err)
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
	}
	ctx := rpc.WithCaller(t.Context(), rpc.Caller{Account: [32]byte{1}, Scopes: []string{"admin"}})
	_, err := s.Drain(ctx, &executorv1.DrainRequest{EvictAfterMs: 1})
	if !errors.Is(err, fault.Unimplemented) {
		t.Errorf("a drain with a deadline: %v", err)
	}
	if _, err := readPage("zz"); fault.KindOf(err) != fault.InvalidArgument {
		t.Errorf("a foreign page token: %v", err)
	}
}
