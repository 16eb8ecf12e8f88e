package server

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/rpc"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	"github.com/united-containers/ucn/services/executor"
)

// TestNarrowTokens: a token for one host, one action or one request opens that and nothing else,
// whoever carries the request to the host. What passes ends at the request's own fault here.
func TestNarrowTokens(t *testing.T) {
	operator, here := sig.AccountID{1}, sig.PublicKey{7, 0xfb}
	s := New(Deps{Operator: operator, Instance: here})
	// Too long a time, so that who is allowed is told so.
	drain := &executorv1.DrainRequest{EvictAfterMs: 1 << 60, Reason: "disks", Executor: here[:]}
	hash, err := canon.Hash(drain)
	if err != nil {
		t.Fatal(err)
	}
	host := "admin:" + hex.EncodeToString(here[:])
	other := "admin:" + hex.EncodeToString(operator[:])
	bound := host + ":drain:" + base64.RawURLEncoding.EncodeToString(hash[:])
	changed := &executorv1.DrainRequest{EvictAfterMs: 1 << 61, Reason: "disks", Executor: here[:]}
	elsewhere := &executorv1.DrainRequest{EvictAfterMs: 1 << 60, Executor: operator[:]}
	passes := executor.ReasonBadArgument
	for name, tt := range map[string]struct {
		scope string
		m     *executorv1.DrainRequest
		want  error
	}{
		"all hosts":            {"admin", drain, passes},
		"this host":            {host, drain, passes},
		"this action":          {host + ":drain", drain, passes},
		"this request":         {bound, drain, passes},
		"another host":         {other, drain, rpc.ReasonScopeMissing},
		"another host's drain": {other + ":drain", drain, rpc.ReasonScopeMissing},
		"another action":       {host + ":undrain", drain, rpc.ReasonScopeMissing},
		"reading":              {host + ":read", drain, rpc.ReasonScopeMissing},
		"the hash as an evict": {host + ":evict" + bound[len(host+":drain"):], drain,
			rpc.ReasonScopeMissing},
		"another request":        {bound, changed, ReasonNotSigned},
		"no hash":                {host + ":drain:x", drain, ReasonNotSigned},
		"a request for another":  {host + ":drain", elsewhere, ReasonWrongHost},
		"with all, for another":  {"admin", elsewhere, ReasonWrongHost},
		"a beginning of the key": {host[:20], drain, rpc.ReasonScopeMissing},
		"the host unnamed": {host + ":drain", &executorv1.DrainRequest{EvictAfterMs: 1 << 60},
			passes},
	} {
		ctx := rpc.WithCaller(t.Context(),
			rpc.Caller{Account: operator, Scopes: []string{tt.scope}})
		if _, err := s.Drain(ctx, tt.m); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	stranger := rpc.WithCaller(t.Context(),
		rpc.Caller{Account: [32]byte{9}, Scopes: []string{bound}})
	if _, err := s.Drain(stranger, drain); !errors.Is(err, ReasonNotOperator) {
		t.Errorf("a stranger's: %v", err)
	}
}

// TestActions: each call needs its own action.
func TestActions(t *testing.T) {
	operator, here := sig.AccountID{1}, sig.PublicKey{7}
	s := New(Deps{Operator: operator, Instance: here})
	calls := map[string]func(context.Context) error{
		"drain": func(ctx context.Context) error {
			_, err := s.Drain(ctx, &executorv1.DrainRequest{EvictAfterMs: 1 << 60})
			return err
		},
		"undrain": func(ctx context.Context) error {
			_, err := s.Undrain(ctx, &executorv1.UndrainRequest{Executor: operator[:]})
			return err
		},
		"evict": func(ctx context.Context) error {
			_, err := s.Evict(ctx, &executorv1.EvictRequest{})
			return err
		},
		"policy": func(ctx context.Context) error {
			m := &executorv1.HostPolicy{MaxRunTimeMs: 1 << 62}
			_, err := s.SetPolicy(ctx, &executorv1.SetPolicyRequest{Policy: m})
			return err
		},
		"read": func(ctx context.Context) error {
			_, err := s.ListAttempts(ctx, &executorv1.ListAttemptsRequest{PageSize: 1001})
			return err
		},
	}
	reads := map[string]func(context.Context) error{
		"GetHost": func(ctx context.Context) error {
			_, err := s.GetHost(ctx, &executorv1.GetHostRequest{Executor: operator[:]})
			return err
		},
		"GetPolicy": func(ctx context.Context) error {
			_, err := s.GetPolicy(ctx, &executorv1.GetPolicyRequest{Executor: operator[:]})
			return err
		},
	}
	for granted := range calls {
		ctx := rpc.WithCaller(t.Context(), rpc.Caller{Account: operator,
			Scopes: []string{"admin:" + hex.EncodeToString(here[:]) + ":" + granted}})
		for action, call := range calls {
			if err := call(ctx); errors.Is(err, rpc.ReasonScopeMissing) != (action != granted) {
				t.Errorf("%s with a token to %s: %v", action, granted, err)
			}
		}
		for name, call := range reads {
			if err := call(ctx); errors.Is(err, rpc.ReasonScopeMissing) != (granted != "read") {
				t.Errorf("%s with a token to %s: %v", name, granted, err)
			}
		}
	}
}

// TestPagesOfAnotherHost: a list of attempts is not gone on with at another host, whose attempts
// before that time would be left out.
func TestPagesOfAnotherHost(t *testing.T) {
	operator, here, there := sig.AccountID{1}, sig.PublicKey{7}, sig.PublicKey{8}
	s, other := New(Deps{Operator: operator, Instance: here}), New(Deps{Instance: there})
	ctx := rpc.WithCaller(t.Context(), rpc.Caller{Account: operator, Scopes: []string{"admin"}})
	for _, token := range []string{other.pageToken(time.Unix(9, 0)), "0011223344556677", "no"} {
		m := &executorv1.ListAttemptsRequest{PageToken: token}
		if _, err := s.ListAttempts(ctx, m); !errors.Is(err, executor.ReasonBadArgument) {
			t.Errorf("page token %q: %v", token, err)
		}
	}
	if at, err := s.readPage(s.pageToken(time.Unix(9, 0))); err != nil || !at.Equal(time.Unix(9, 0)) {
		t.Errorf("its own page begins at %v, %v", at, err)
	}
}
