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
	ErrHost    = errors.New("the host cannot prove its operator")
	ErrNotMine = errors.New("the host is another operator's")
)

// scopeAdmin opens what is for an operator alone.
const scopeAdmin = "admin"

// Host judges the certificate that a scheduler names for an executor and returns where to ask it.
// Errors wrap ErrHost.
func (s *Session) Host(ctx context.Context, m *identityv1.Certificate) (bus.Target, error) {
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
	target, err := bus.TargetOf(c, "executor")
	if err != nil {
		return bus.Target{}, fmt.Errorf("%w: %w", ErrHost, err)
	}
	return target, nil
}

// Operate returns a client for the wallet's own hosts. Its token opens an operator's doors, so no
// host of another is shown one: calls to those fail with ErrNotMine.
func (s *Session) Operate() (*bus.Client, error) {
	key, err := s.Key()
	if err != nil {
		return nil, err
	}
	if s.admin == nil {
		s.admin = &token.Source{
			Signer: keys.SingleSigner(key), Chain: s.Chain, Scopes: []string{scopeAdmin}, Now: s.cfg.Now,
		}
	}
	return s.client(func(ctx context.Context, operator sig.AccountID) (string, error) {
		if operator != s.Account {
			return "", ErrNotMine
		}
		return s.admin.TokenFor(ctx, operator)
	})
}
