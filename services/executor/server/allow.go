package server

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/token"
	"github.com/united-containers/ucn/services/executor"
)

// Actions of an operator, as scopes name them.
const (
	actionRead    = "read"
	actionDrain   = "drain"
	actionUndrain = "undrain"
	actionEvict   = "evict"
	actionPolicy  = "policy"
)

// Reasons why an operator's call is refused.
const (
	// ReasonNotOperator: somebody else than the host's operator asks.
	ReasonNotOperator fault.Reason = "NOT_OPERATOR"
	// ReasonNotSigned: the token is bound to another request.
	ReasonNotSigned fault.Reason = "REQUEST_NOT_SIGNED"
	// ReasonWrongHost: the request is for another host.
	ReasonWrongHost fault.Reason = "WRONG_HOST"
)

// operated is a request of an operator.
type operated interface {
	proto.Message
	GetExecutor() []byte
}

// allow lets through what the operator's own account signed for: all with scope "admin", what a
// narrower token allows on this host, or the one request that it is bound to. Whoever carried the
// request here, such as a gateway, has no say.
func (s *Server) allow(ctx context.Context, action string, m operated) error {
	scope := token.AdminScope(s.deps.Instance, action)
	caller, _ := rpc.CallerFrom(ctx)
	if err := requireFor(ctx, scope, m); err != nil {
		return err
	}
	if sig.AccountID(caller.Account) != s.deps.Operator {
		return fault.New(fault.PermissionDenied, ReasonNotOperator,
			"only the operator of this host may look into it")
	}
	if named := m.GetExecutor(); len(named) > 0 && string(named) != string(s.deps.Instance[:]) {
		return fault.New(fault.InvalidArgument, ReasonWrongHost,
			"the request is for another host than this")
	}
	return nil
}

// requireFor is rpc.RequireScope, where a token bound to m will do.
func requireFor(ctx context.Context, scope string, m proto.Message) error {
	refused := rpc.RequireScope(ctx, scope)
	caller, _ := rpc.CallerFrom(ctx)
	if refused == nil || !slices.ContainsFunc(caller.Scopes, func(granted string) bool {
		return strings.HasPrefix(granted, scope+":")
	}) {
		return refused
	}
	bound, err := token.Bound(scope, m)
	if err != nil {
		return fault.New(fault.InvalidArgument, executor.ReasonBadArgument,
			"the request has no canonical form").Because(err)
	}
	if !caller.HasScope(bound) {
		return fault.New(fault.PermissionDenied, ReasonNotSigned,
			"the token was made for another request than this: sign this one")
	}
	return nil
}
