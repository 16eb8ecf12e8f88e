package rpc_test

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
)

// authFunc makes a function an Authenticator.
type authFunc func(bearer string) (rpc.Caller, error)

func (f authFunc) Authenticate(_ context.Context, bearer string) (rpc.Caller, error) {
	return f(bearer)
}

// whoami answers with the caller's account.
func whoami(ctx context.Context, _ string) (string, error) {
	c, ok := rpc.CallerFrom(ctx)
	if !ok {
		return "nobody", nil
	}
	return hex.EncodeToString(c.Account[:2]), nil
}

func TestTokensAreDemanded(t *testing.T) {
	expired := fault.New(fault.Unauthenticated, rpc.ReasonTokenExpired, "expired")
	auth := authFunc(func(bearer string) (rpc.Caller, error) {
		switch bearer {
		case "good":
			return rpc.Caller{Account: [32]byte{0xab, 0xcd}}, nil
		case "expired":
			return rpc.Caller{}, expired
		}
		return rpc.Caller{}, errors.New("database of hunter2 is down")
	})
	r := newRig(t, &echo{call: whoami}, func(_ *rpc.ServerConfig, d *rpc.ServerDeps) {
		d.Auth = auth
	})
	cases := []struct {
		name, method string
		values       []string
		want         string
		reason       fault.Reason
	}{
		{"good", echoCall, []string{"Bearer good"}, "abcd", ""},
		{"scheme in lower case", echoCall, []string{"bearer good"}, "abcd", ""},
		{"none", echoCall, []string{""}, "", rpc.ReasonTokenMalformed},
		{"another scheme", echoCall, []string{"Basic good"}, "", rpc.ReasonTokenMalformed},
		{"only the scheme", echoCall, []string{"Bearer "}, "", rpc.ReasonTokenMalformed},
		{"two", echoCall, []string{"Bearer good", "Bearer good"}, "", rpc.ReasonTokenMalformed},
		{"two in one", echoCall, []string{"Bearer good,good"}, "", rpc.ReasonTokenMalformed},
		{"huge", echoCall, []string{"Bearer " + strings.Repeat("x", 5000)}, "",
			rpc.ReasonTokenMalformed},
		{"expired", echoCall, []string{"Bearer expired"}, "", rpc.ReasonTokenExpired},
		{"authenticator down", echoCall, []string{"Bearer other"}, "", rpc.ReasonInternal},
		{"public", echoPublic, []string{"Bearer expired"}, "nobody", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ctx := metadata.NewOutgoingContext(t.Context(),
				metadata.MD{"authorization": c.values})
			got, err := call(ctx, r.conn, c.method, "")
			if got != c.want || fault.ReasonOf(err) != c.reason {
				t.Errorf("%q, %v; want %q, reason %q", got, err, c.want, c.reason)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the wire carried %q", err)
			}
		})
	}
}

func TestWhichTokenIsSent(t *testing.T) {
	var seen string
	r := newRig(t, &echo{call: whoami}, func(_ *rpc.ServerConfig, d *rpc.ServerDeps) {
		d.Auth = authFunc(func(bearer string) (rpc.Caller, error) {
			seen = bearer
			return rpc.Caller{}, nil
		})
	})
	own := t.Context()
	forwarded := metadata.AppendToOutgoingContext(own, "authorization", "Bearer forwarded",
		"other", "kept")
	cases := []struct {
		name string
		ctx  context.Context
		want string
	}{
		{"the client's own", own, "t0ken"},
		{"forwarded metadata", forwarded, "forwarded"},
		{"explicit", rpc.WithToken(forwarded, "explicit"), "explicit"},
	}
	for _, c := range cases {
		if _, err := call(c.ctx, r.conn, echoCall, ""); err != nil || seen != c.want {
			t.Errorf("%s: sent %q, %v; want %q", c.name, seen, err, c.want)
		}
	}
	_, err := call(rpc.WithToken(own, ""), r.conn, echoCall, "")
	if !errors.Is(err, rpc.ReasonTokenMissing) || !errors.Is(err, fault.Unauthenticated) {
		t.Errorf("no token: error %v", err)
	}
}

func TestHealthIsPublicAndFollowsTheServer(t *testing.T) {
	r := newRig(t, &echo{}, func(_ *rpc.ServerConfig, d *rpc.ServerDeps) { d.Auth = nil })
	for _, service := range []string{"", "test.Echo"} {
		response, err := healthpb.NewHealthClient(r.conn).Check(rpc.WithToken(t.Context(), ""),
			&healthpb.HealthCheckRequest{Service: service})
		if err != nil || response.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v, %v", service, response, err)
		}
	}
	_, err := call(t.Context(), r.conn, echoCall, "")
	if !errors.Is(err, fault.Unauthenticated) {
		t.Errorf("a server without authenticator answered %v", err)
	}
}

func TestRequireScope(t *testing.T) {
	cases := []struct {
		granted []string
		scope   string
		want    bool
	}{
		{[]string{"job"}, "job", true},
		{[]string{"job"}, "job:read", true},
		{[]string{"job:read"}, "job", false},
		{[]string{"job"}, "jobs", false},
		{[]string{"file:read", "job"}, "file:read:cid", true},
		{[]string{"file:read:cid"}, "file:read", false},
		{[]string{""}, ":job", false},
		{nil, "job", false},
	}
	for _, c := range cases {
		ctx := rpc.WithCaller(t.Context(), rpc.Caller{Scopes: c.granted})
		err := rpc.RequireScope(ctx, c.scope)
		if (err == nil) != c.want {
			t.Errorf("%q with %q: %v", c.scope, c.granted, err)
		}
		if err != nil && (!errors.Is(err, rpc.ReasonScopeMissing) ||
			!errors.Is(err, fault.PermissionDenied) ||
			fault.From(err).Value("scope") != c.scope) {
			t.Errorf("%q with %q: %v", c.scope, c.granted, err)
		}
	}
	if err := rpc.RequireScope(t.Context(), "job"); !errors.Is(err, rpc.ReasonTokenMissing) {
		t.Errorf("without caller: %v", err)
	}
}

func TestStreamEndsWithItsToken(t *testing.T) {
	r := newRig(t, &echo{stream: untilDone}, func(_ *rpc.ServerConfig, d *rpc.ServerDeps) {
		d.Auth = authFunc(func(string) (rpc.Caller, error) {
			return rpc.Caller{NotAfter: time.Now().Add(100 * time.Millisecond)}, nil
		})
	})
	stream := openStream(t.Context(), t, r.conn)
	err := stream.RecvMsg(new(wrapperspb.StringValue))
	if !errors.Is(err, rpc.ReasonTokenExpired) {
		t.Errorf("error %v, want TOKEN_EXPIRED", err)
	}
}

func TestRateLimitPerAccount(t *testing.T) {
	r := newRig(t, &echo{call: whoami}, func(c *rpc.ServerConfig, d *rpc.ServerDeps) {
		c.RatePerSecond, c.RateBurst = 0.001, 2
		d.Auth = authFunc(func(bearer string) (rpc.Caller, error) {
			return rpc.Caller{Account: [32]byte{bearer[0]}}, nil
		})
	})
	count := func(token string) (allowed int, last error) {
		for range 5 {
			if _, err := call(rpc.WithToken(t.Context(), token), r.conn, echoCall, ""); err != nil {
				last = err
				continue
			}
			allowed++
		}
		return allowed, last
	}
	for _, account := range []string{"a", "b"} {
		allowed, err := count(account)
		if allowed != 2 || !errors.Is(err, rpc.ReasonRateLimited) ||
			!errors.Is(err, fault.ResourceExhausted) || fault.From(err).Retry() < time.Minute {
			t.Errorf("account %s: %d calls, then %v", account, allowed, err)
		}
	}
}

func TestRateLimiterForgetsTheQuietest(t *testing.T) {
	limiter := rpc.NewRateLimiter(0.001, 1)
	ctx := func(n int) context.Context {
		account := [32]byte{byte(n), byte(n >> 8), byte(n >> 16)}
		return rpc.WithCaller(t.Context(), rpc.Caller{Account: account})
	}
	for n := range rpc.MaxBuckets {
		if err := limiter.Allow(ctx(n), ""); err != nil {
			t.Fatal(err)
		}
	}
	if limiter.Allow(ctx(0), "") == nil {
		t.Fatal("the first account was forgotten too early")
	}
	if err := limiter.Allow(ctx(rpc.MaxBuckets), ""); err != nil {
		t.Fatal(err)
	}
	if limiter.Allow(ctx(0), "") == nil {
		t.Error("a busy account was forgotten")
	}
	if err := limiter.Allow(ctx(1), ""); err != nil {
		t.Errorf("the quietest account is still remembered: %v", err)
	}
}
