package rpc

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/united-containers/ucn/kit/fault"
)

// Caller is who makes a call, as proven by its token.
type Caller struct {
	// Account is the id of the account that signed the token.
	Account [32]byte
	// Scopes are what the token allows, e.g. "job" or "file:read".
	Scopes []string
	// NotAfter is when the token expires. A stream ends then.
	NotAfter time.Time
}

// HasScope reports whether the caller may do what scope names: some scope of the token is equal
// to it or to a beginning of it at a colon. "file" covers "file:read"; never the other way.
func (c Caller) HasScope(scope string) bool {
	return slices.ContainsFunc(c.Scopes, func(granted string) bool {
		return scope == granted || granted != "" && strings.HasPrefix(scope, granted+":")
	})
}

// Authenticator proves tokens.
type Authenticator interface {
	// Authenticate returns who the bearer text speaks for. Errors are faults of kind
	// Unauthenticated with one of the TOKEN_ reasons; any other error is an internal one and
	// refuses the call as well. Safe for concurrent use; it may take a while (key set look-up)
	// and must obey ctx.
	Authenticate(ctx context.Context, bearer string) (Caller, error)
}

// Rememberer is an Authenticator that has proven tokens before. Nobody who waits for a proof keeps
// out who needs none.
type Rememberer interface {
	// Remembered returns who the bearer text speaks for, if that is known without waiting. Safe for
	// concurrent use.
	Remembered(bearer string) (Caller, bool)
}

// TokenSource gives the token that a client sends.
type TokenSource interface {
	// Token returns a token for the named service, not yet expired. It is called once per RPC, so
	// it caches. "" sends none. Safe for concurrent use.
	Token(ctx context.Context, service string) (string, error)
}

type callerKey struct{}

// WithCaller returns ctx with a caller. The server's interceptor calls it; tests may.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerFrom returns who makes the call. It is false on public methods.
func CallerFrom(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// RequireScope returns nil if the call carries a token with the scope, and otherwise a fault:
// TOKEN_MISSING without caller, SCOPE_MISSING without the scope.
func RequireScope(ctx context.Context, scope string) error {
	c, ok := CallerFrom(ctx)
	if !ok {
		return tokenMissing()
	}
	if !c.HasScope(scope) {
		return fault.New(fault.PermissionDenied, ReasonScopeMissing,
			"the token does not allow %q: make one that names this scope", scope).
			With("scope", scope)
	}
	return nil
}

type tokenKey struct{}

// WithToken returns ctx so that calls made with it carry this token instead of the client's own.
// A gateway passes on its users' tokens this way.
func WithToken(ctx context.Context, token string) context.Context {
	return context.WithValue(ctx, tokenKey{}, token)
}

func tokenMissing() *fault.Error {
	return fault.New(fault.Unauthenticated, ReasonTokenMissing,
		"this call needs a token: send \"authorization: Bearer <token>\", see ucn auth token")
}

// bearerToken takes the token out of the call's metadata.
func bearerToken(ctx context.Context) (string, error) {
	values := metadata.ValueFromIncomingContext(ctx, authorizationName)
	if len(values) == 0 {
		return "", tokenMissing()
	}
	token, isBearer := "", len(values) == 1 && len(values[0]) > len(bearer) &&
		strings.EqualFold(values[0][:len(bearer)], bearer)
	if isBearer {
		token = values[0][len(bearer):]
	}
	if !isBearer || len(token) > maxToken || strings.ContainsAny(token, " \t,") {
		return "", fault.New(fault.Unauthenticated, ReasonTokenMalformed,
			"the authorization metadata is not one \"Bearer <token>\" of at most %d bytes", maxToken)
	}
	return token, nil
}

// publicMethods answers whether a method needs no token.
type publicMethods struct {
	exact    map[string]bool
	services []string // "/package.Service/"
}

// newPublicMethods takes full method names "/pkg.Service/Method" and whole services
// "/pkg.Service/". Health and reflection are always public.
func newPublicMethods(names []string) publicMethods {
	p := publicMethods{exact: map[string]bool{}, services: []string{
		"/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/",
		"/grpc.reflection.v1alpha.ServerReflection/",
	}}
	for _, name := range names {
		if strings.HasSuffix(name, "/") {
			p.services = append(p.services, name)
		} else {
			p.exact[name] = true
		}
	}
	return p
}

func (p publicMethods) has(method string) bool {
	return p.exact[method] || slices.ContainsFunc(p.services, func(service string) bool {
		return strings.HasPrefix(method, service)
	})
}

// unknown returns a public name that no registered service has, "" if there is none.
func (p publicMethods) unknown(registered map[string]grpc.ServiceInfo) string {
	known := map[string]bool{}
	for service, info := range registered {
		known["/"+service+"/"] = true
		for _, method := range info.Methods {
			known["/"+service+"/"+method.Name] = true
		}
	}
	for name := range p.exact {
		if !known[name] {
			return name
		}
	}
	i := slices.IndexFunc(p.services, func(name string) bool { return !known[name] })
	if i < 0 {
		return ""
	}
	return p.services[i]
}
