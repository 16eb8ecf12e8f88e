package server

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/token"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/gateway"
)

const (
	// maxAdminToken is how long a token for a host may be good from now on: so long could whoever
	// saw it here repeat the request.
	maxAdminToken = 15*time.Minute + 2*token.Skew
	hostWait      = 10 * time.Second // for one answer

	schedulerService = "scheduler"
)

// Actions of an operator at a host, as scopes name them. Reading changes nothing, so a token for it
// need not be bound to one request.
const (
	actionRead    = "read"
	actionDrain   = "drain"
	actionUndrain = "undrain"
	actionEvict   = "evict"
	actionPolicy  = "policy"
)

// hosts passes on what operators ask and tell their hosts, over the bus. It carries the operator's
// own token and lends no right of its own: the host judges as if it had been called directly. So
// that a gateway which was broken into has nothing to use, it takes no token that allows more than
// reading one host, or than the very request, and shows it to a host of the token's account alone.
type hosts struct{ server *Server }

var _ executorv1.ExecutorServiceClient = hosts{}

func (h hosts) GetHost(
	ctx context.Context, m *executorv1.GetHostRequest, _ ...grpc.CallOption,
) (*executorv1.GetHostResponse, error) {
	return pass(ctx, h, hostOrder("GetHost", actionRead, m), &executorv1.GetHostResponse{})
}

func (h hosts) ListAttempts(
	ctx context.Context, m *executorv1.ListAttemptsRequest, _ ...grpc.CallOption,
) (*executorv1.ListAttemptsResponse, error) {
	return pass(ctx, h, hostOrder("ListAttempts", actionRead, m), &executorv1.ListAttemptsResponse{})
}

func (h hosts) Drain(
	ctx context.Context, m *executorv1.DrainRequest, _ ...grpc.CallOption,
) (*executorv1.DrainResponse, error) {
	return pass(ctx, h, hostOrder("Drain", actionDrain, m), &executorv1.DrainResponse{})
}

func (h hosts) Undrain(
	ctx context.Context, m *executorv1.UndrainRequest, _ ...grpc.CallOption,
) (*executorv1.UndrainResponse, error) {
	return pass(ctx, h, hostOrder("Undrain", actionUndrain, m), &executorv1.UndrainResponse{})
}

func (h hosts) Evict(
	ctx context.Context, m *executorv1.EvictRequest, _ ...grpc.CallOption,
) (*executorv1.EvictResponse, error) {
	return pass(ctx, h, hostOrder("Evict", actionEvict, m), &executorv1.EvictResponse{})
}

func (h hosts) GetPolicy(
	ctx context.Context, m *executorv1.GetPolicyRequest, _ ...grpc.CallOption,
) (*executorv1.GetPolicyResponse, error) {
	return pass(ctx, h, hostOrder("GetPolicy", actionRead, m), &executorv1.GetPolicyResponse{})
}

func (h hosts) SetPolicy(
	ctx context.Context, m *executorv1.SetPolicyRequest, _ ...grpc.CallOption,
) (*executorv1.SetPolicyResponse, error) {
	return pass(ctx, h, hostOrder("SetPolicy", actionPolicy, m), &executorv1.SetPolicyResponse{})
}

// history passes on what operators ask of what their instances said.
type history struct{ server *Server }

var _ eventv1.EventServiceClient = history{}

func (e history) Fetch(
	ctx context.Context, m *eventv1.FetchRequest, _ ...grpc.CallOption,
) (*eventv1.FetchResponse, error) {
	o := order{"event.v1/Fetch", actionRead, sig.PublicKey(m.GetInstance()), m}
	return pass(ctx, hosts(e), o, &eventv1.FetchResponse{})
}

// order is a request to an instance, and what a token must allow for it.
type order struct {
	method, action string
	instance       sig.PublicKey
	request        proto.Message
}

// hostOrder is one to a host.
func hostOrder(method, action string, m interface {
	proto.Message
	GetExecutor() []byte
}) order {
	return order{"executor.v1/" + method, action, sig.PublicKey(m.GetExecutor()), m}
}

// pass passes an order on and returns the host's answer in out.
func pass[Out proto.Message](ctx context.Context, h hosts, o order, out Out) (Out, error) {
	asked, _ := ctx.Value(askedKey{}).(asking)
	claims, err := h.server.signed(ctx, asked.token, o)
	if err != nil {
		return out, err
	}
	target, err := h.server.find(ctx, o)
	if err != nil {
		return out, err
	}
	if err := mine(claims, target); err != nil {
		return out, err
	}
	return out, h.server.tell(ctx, target, asked.token, o, out)
}

// signed returns what the token says if it allows the order and nothing else.
func (s *Server) signed(ctx context.Context, text string, o order) (token.Claims, error) {
	if text == "" {
		return token.Claims{}, fault.New(fault.Unauthenticated, rpc.ReasonTokenMissing,
			"a host is told by its operator alone, with a token: see ucn host token")
	}
	claims, err := token.Decode(text)
	if err != nil {
		return claims, err
	}
	scope := token.AdminScope(o.instance, o.action)
	exact := scope
	if o.action != actionRead {
		if exact, err = token.Bound(scope, o.request); err != nil {
			return claims, fault.New(fault.InvalidArgument, gateway.ReasonRequest,
				"the request has no canonical form").Because(err)
		}
	}
	caller := rpc.Caller{Account: claims.Account, Scopes: claims.Scopes}
	if !caller.HasScope(exact) {
		for _, granted := range claims.Scopes {
			if strings.HasPrefix(granted, scope+":") {
				return claims, fault.New(fault.PermissionDenied, gateway.ReasonNotSigned,
					"the token was made for another request than this: ucn host token with --body "+
						"makes one for it")
			}
		}
		return claims, rpc.RequireScope(rpc.WithCaller(ctx, caller), scope)
	}
	return claims, s.narrow(claims, exact)
}

// narrow refuses a token that would be of use to whoever sees it here.
func (s *Server) narrow(claims token.Claims, exact string) error {
	wider := slices.IndexFunc(claims.Scopes, func(granted string) bool { return granted != exact })
	left := claims.NotAfter.Sub(s.deps.Now())
	says := ""
	switch {
	case wider >= 0:
		says = "allows \"" + claims.Scopes[wider] + "\", which is more than this request"
	case left > maxAdminToken:
		says = "is good for " + left.Round(time.Minute).String() + ", at most 15m"
	default:
		return nil
	}
	return fault.New(fault.PermissionDenied, gateway.ReasonTokenWide,
		"no gateway is given a token that it could use: this one %s. Make one with ucn host token",
		says)
}

// find finds the instance that an order is for: a host, or for what all instances answer also the
// gateway's scheduler.
func (s *Server) find(ctx context.Context, o order) (bus.Target, error) {
	target, err := s.host(ctx, o.instance)
	if !errors.Is(err, gateway.ReasonHost) || strings.HasPrefix(o.method, "executor.") {
		return target, err
	}
	got, failed := s.scheduler.GetScheduler(rpc.WithToken(ctx, ""),
		&schedulerv1.GetSchedulerRequest{})
	if failed != nil {
		return bus.Target{}, failed
	}
	if string(got.GetCertificate().GetBody().GetInstanceKey()) != string(o.instance[:]) {
		return bus.Target{}, err
	}
	return s.certified(ctx, got.GetCertificate(), schedulerService)
}

// host finds a host by its key, and judges its certificate.
func (s *Server) host(ctx context.Context, key sig.PublicKey) (bus.Target, error) {
	// Offers are public, and the scheduler may be another operator's than the host.
	got, err := s.scheduler.ListOffers(rpc.WithToken(ctx, ""),
		&schedulerv1.ListOffersRequest{Executor: key[:]})
	if err != nil {
		return bus.Target{}, err
	}
	for _, posted := range got.GetOffers() {
		certificate := posted.GetOffer().GetCertificate()
		if certificate == nil || string(certificate.GetBody().GetInstanceKey()) != string(key[:]) {
			continue
		}
		return s.executor(ctx, certificate)
	}
	return bus.Target{}, fault.New(fault.NotFound, gateway.ReasonHost,
		"no host of this key is known: it has been away for long, or never was; GET "+
			"/v1/hosts?operator=ucn1... lists an operator's")
}

// mine tells whether the token is of the host's own operator, and meant for its hosts.
func mine(claims token.Claims, target bus.Target) error {
	operator := id.Bech32(id.Account, target.Operator)
	switch {
	case claims.Account != target.Operator:
		return fault.New(fault.PermissionDenied, gateway.ReasonNotOperator,
			"the host is of operator %s, and only that account may look into it", operator)
	case claims.Audience != target.Operator:
		return fault.New(fault.Unauthenticated, rpc.ReasonWrongAudience,
			"the token is not for the hosts of %s: name it as audience", operator).
			With("audience", operator)
	}
	return nil
}

// tell asks the host with the token, and with nothing of the gateway's own.
func (s *Server) tell(
	ctx context.Context, target bus.Target, text string, o order, out proto.Message,
) error {
	client := bus.NewClient(s.deps.Bus, bus.TokenProof(
		func(context.Context, sig.AccountID) (string, error) { return text, nil },
	), bus.ClientOptions{Tracer: s.deps.Tracers.Tracer(
		"github.com/united-containers/ucn/kit/bus"), Clock: s.deps.Now})
	within, cancel := context.WithTimeout(ctx, hostWait)
	defer cancel()
	err := client.Call(within, target, o.method, o.request, out)
	if err != nil && ctx.Err() == nil && fault.KindOf(err) == fault.DeadlineExceeded {
		return fault.New(fault.Unavailable, rpc.ReasonUnavailable,
			"the host does not answer: it may still do what it was told; look, and try again").
			Because(err)
	}
	return err
}
