package session

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/token"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
)

// Errors about hosts.
var (
	ErrHost    = errors.New("the instance cannot prove its operator")
	ErrNotMine = errors.New("the instance is another operator's")
)

// Host judges the certificate that a scheduler names for an executor and returns where to ask it.
// Errors wrap ErrHost.
func (s *Session) Host(ctx context.Context, m *identityv1.Certificate) (bus.Target, error) {
	return s.Instance(ctx, m, "executor")
}

// Instance judges the certificate of an instance of a service and returns where to ask it. Errors
// wrap ErrHost.
func (s *Session) Instance(
	ctx context.Context, m *identityv1.Certificate, service string,
) (bus.Target, error) {
	if m == nil {
		return bus.Target{}, fmt.Errorf("%w: none is named", ErrHost)
	}
	raw, err := canon.Marshal(proto.CloneOf(m))
	if err != nil {
		return bus.Target{}, fmt.Errorf("%w: %w", ErrHost, err)
	}
	c, _, err := s.Judge().Verify(ctx, raw)
	if err != nil {
		return bus.Target{}, fmt.Errorf("%w: %w", ErrHost, err)
	}
	target, err := bus.TargetOf(c, service)
	if err != nil {
		return bus.Target{}, fmt.Errorf("%w: %w", ErrHost, err)
	}
	return target, nil
}

// Operate returns a client for one of the wallet's own instances. Its token opens an operator's
// doors at that one alone; no instance of another operator is shown one: ErrNotMine.
func (s *Session) Operate(at bus.Target) (*bus.Client, error) {
	if at.Operator != s.Account {
		return nil, ErrNotMine
	}
	key, err := s.Key()
	if err != nil {
		return nil, err
	}
	admin := &token.Source{
		Signer: keys.SingleSigner(key), Chain: s.Chain, Now: s.cfg.Now,
		Scopes: []string{token.AdminScope(at.Instance, "")},
	}
	return s.client(func(ctx context.Context, operator sig.AccountID) (string, error) {
		if operator != s.Account {
			return "", ErrNotMine
		}
		return admin.TokenFor(ctx, operator)
	})
}
