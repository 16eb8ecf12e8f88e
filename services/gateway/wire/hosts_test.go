package wire_test

import (
	"context"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/token"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// ListOffers is public; asked for one host it names that one's, as schedulers do.
func (f *fakeScheduler) ListOffers(
	ctx context.Context, m *schedulerv1.ListOffersRequest,
) (*schedulerv1.ListOffersResponse, error) {
	f.mu.Lock()
	out := &schedulerv1.ListOffersResponse{}
	for _, o := range f.offers {
		if string(o.GetOffer().GetExecutor()) == string(m.GetExecutor()) {
			out.Offers = append(out.Offers, o)
		}
	}
	f.mu.Unlock()
	return out, f.calls.note(ctx, "ListOffers", m)
}

// offer lists a host under a key with a certificate, which should be its own.
func (f *fakeScheduler) offer(t *testing.T, key sig.PublicKey, certificate []byte) {
	t.Helper()
	c := &identityv1.Certificate{}
	if err := canon.Unmarshal(certificate, c); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.offers = append(f.offers, &schedulerv1.PostedOffer{
		Offer: &marketv1.Offer{Executor: key[:], Certificate: c},
	})
}

// operated answers the operator's calls, which the fake judges no further than its token.
func (h *fakeHost) operated(s *bus.Server) {
	answer(s, h, "GetHost", &executorv1.GetHostRequest{},
		&executorv1.GetHostResponse{Draining: true, Reason: "disks"})
	answer(s, h, "ListAttempts", &executorv1.ListAttemptsRequest{},
		&executorv1.ListAttemptsResponse{NextPageToken: "more"})
	answer(s, h, "Drain", &executorv1.DrainRequest{}, &executorv1.DrainResponse{Attempts: 2})
	answer(s, h, "Undrain", &executorv1.UndrainRequest{}, &executorv1.UndrainResponse{})
	answer(s, h, "Evict", &executorv1.EvictRequest{}, &executorv1.EvictResponse{EvictAt: 7})
	answer(s, h, "GetPolicy", &executorv1.GetPolicyRequest{},
		&executorv1.GetPolicyResponse{SetVersion: 3})
	answer(s, h, "SetPolicy", &executorv1.SetPolicyRequest{},
		&executorv1.SetPolicyResponse{Version: 4})
	answerAs(s, h, "event.v1/Fetch", &eventv1.FetchRequest{},
		&eventv1.FetchResponse{Newest: 6, Envelopes: [][]byte{{1}}})
}

func answer[In, Out proto.Message](s *bus.Server, h *fakeHost, method string, in In, out Out) {
	answerAs(s, h, "executor.v1/"+method, in, out)
}

func answerAs[In, Out proto.Message](
	s *bus.Server, h *fakeHost, on string, _ In, out Out,
) {
	_, method, _ := strings.Cut(on, "/")
	bus.Unary(s, on, func(ctx context.Context, in In) (Out, error) {
		if err := h.calls.note(ctx, method, in); err != nil {
			return out, err
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		return out, h.fault
	})
}

func (h *fakeHost) refuse(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = err
}

// order is a request to a host and what it must hear; its action is what the token must allow.
type order struct {
	route
	action string
	says   string // in the answer
}

// orders are one of each for the host with the key in hex.
func orders(host string) []order {
	key, _ := hex.DecodeString(host)
	at := "/v1/hosts/" + host
	return []order{
		{route{"GET", at, "", "GetHost", &executorv1.GetHostRequest{Executor: key}}, "read",
			`"reason":"disks"`},
		{route{"GET", at + "/attempts?page_size=3&page_token=x", "", "ListAttempts",
			&executorv1.ListAttemptsRequest{Executor: key, PageSize: 3, PageToken: "x"}}, "read",
			`"more"`},
		{route{"POST", at + ":drain", `{"evict_after_ms":"5000","reason":"new disks"}`, "Drain",
			&executorv1.DrainRequest{Executor: key, EvictAfterMs: 5000, Reason: "new disks"}},
			"drain", `"attempts":2`},
		{route{"POST", at + ":drain", "", "Drain", &executorv1.DrainRequest{Executor: key}},
			"drain", `"attempts":2`},
		{route{"POST", at + ":undrain", "{}", "Undrain", &executorv1.UndrainRequest{Executor: key}},
			"undrain", "{}"},
		{route{"POST", at + "/attempts/abcd:evict", `{"notice_ms":"9","attempt":"AA=="}`, "Evict",
			&executorv1.EvictRequest{Executor: key, Attempt: []byte{0xab, 0xcd}, NoticeMs: 9}},
			"evict", `"evict_at":"7"`},
		{route{"GET", at + "/policy", "", "GetPolicy",
			&executorv1.GetPolicyRequest{Executor: key}}, "read", `"set_version":"3"`},
		{route{"PUT", at + "/policy",
			`{"policy":{"deny_owners":["ucn1x"],"max_run_time_ms":"1000"},"base":"3"}`, "SetPolicy",
			&executorv1.SetPolicyRequest{Executor: key, Base: 3, Policy: &executorv1.HostPolicy{
				DenyOwners: []string{"ucn1x"}, MaxRunTimeMs: 1000}}}, "policy", `"version":"4"`},
		{route{"GET", "/v1/instances/" + host + "/events?topic=operator&epoch=1&from=4", "", "Fetch",
			&eventv1.FetchRequest{Topic: "operator", Epoch: 1, From: 4, Instance: key}}, "read",
			`"newest":"6"`},
	}
}

// scope is the narrowest that the order needs.
func (o order) scope(t *testing.T, host string) string {
	t.Helper()
	scope := "admin:" + host + ":" + o.action
	if o.action == "read" {
		return scope
	}
	scope, err := token.Bound(scope, o.want)
	if err != nil {
		t.Fatal(err)
	}
	return scope
}

// operatorToken is one of an operator for its own hosts, short-lived.
func operatorToken(t *testing.T, of eventtest.Operator, change func(*token.Claims),
	scopes ...string,
) map[string]string {
	t.Helper()
	c := token.Claims{
		Chain: eventtest.Chain, Audience: of.Signer.Account, Scopes: scopes,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(5 * time.Minute),
	}
	if change != nil {
		change(&c)
	}
	text, err := token.Issue(of.Signer, c)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{"Authorization": "Bearer " + text}
}

// TestOperatorsTellTheirHosts: with a token for no more than the request, an operator reaches its
// hosts, also through the gateway of another; the host hears the operator, not the gateway.
func TestOperatorsTellTheirHosts(t *testing.T) {
	w := newWorld(t, nil)
	foreign := startHost(t, w, w.broker, eventtest.NewOperator(2))
	for name, at := range map[string]struct {
		host *fakeHost
		of   eventtest.Operator
	}{"own": {w.host, w.operator}, "foreign": {foreign, eventtest.NewOperator(2)}} {
		key := at.host.Key.Public()
		w.jobs.offer(t, key, at.host.Certificate)
		host := hex.EncodeToString(key[:])
		for _, o := range orders(host) {
			t.Run(name+" "+o.method+" "+o.path, func(t *testing.T) {
				w.calls.take()
				got, body := w.do(t, request{method: o.method, path: o.path, anonymous: true,
					body:   strings.NewReader(o.body),
					header: operatorToken(t, at.of, nil, o.scope(t, host))})
				if got.StatusCode != http.StatusOK || !strings.Contains(string(body), o.says) {
					t.Fatalf("status %d, %s", got.StatusCode, body)
				}
				if o.call == "ListAttempts" &&
					!strings.Contains(got.Header.Get("Link"), "page_token=more") {
					t.Errorf("Link %q", got.Header.Get("Link"))
				}
				asked := w.calls.take()
				if len(asked) != 2 || asked[0].method != "ListOffers" || asked[1].method != o.call {
					t.Fatalf("became %v", asked)
				}
				if diff := cmp.Diff(o.want, asked[1].request, protocmp.Transform()); diff != "" {
					t.Error(diff)
				}
				if asked[0].account != [32]byte{} || asked[1].account != at.of.Signer.Account {
					t.Errorf("the scheduler heard %x, the host %x", asked[0].account,
						asked[1].account)
				}
			})
		}
	}
}

// TestHostsAreShownNoMore: a token that somebody could use elsewhere, or for something else, never
// leaves the gateway.
func TestHostsAreShownNoMore(t *testing.T) {
	w := newWorld(t, nil)
	key := w.host.Key.Public()
	host := hex.EncodeToString(key[:])
	w.jobs.offer(t, key, w.host.Certificate)
	all := orders(host)
	drain := all[2]
	exact, stranger := drain.scope(t, host), eventtest.NewOperator(9)
	other := "admin:" + strings.Repeat("ab", 32)
	late := func(c *token.Claims) { c.NotAfter = time.Now().Add(20 * time.Minute) }
	forStranger := func(c *token.Claims) { c.Audience = stranger.Signer.Account }
	for name, tt := range map[string]struct {
		header map[string]string
		status int
		reason string
	}{
		"no token":      {nil, 401, "TOKEN_MISSING"},
		"not a token":   {map[string]string{"Authorization": "Bearer x"}, 401, "TOKEN_MALFORMED"},
		"for all hosts": {operatorToken(t, w.operator, nil, "admin"), 403, "TOKEN_TOO_WIDE"},
		"for all of it": {operatorToken(t, w.operator, nil, "admin:"+host), 403, "TOKEN_TOO_WIDE"},
		"for any drain": {operatorToken(t, w.operator, nil, "admin:"+host+":drain"), 403,
			"TOKEN_TOO_WIDE"},
		"for jobs too": {operatorToken(t, w.operator, nil, exact, "job"), 403, "TOKEN_TOO_WIDE"},
		"for long":     {operatorToken(t, w.operator, late, exact), 403, "TOKEN_TOO_WIDE"},
		"for reading": {operatorToken(t, w.operator, nil, "admin:"+host+":read"), 403,
			"SCOPE_MISSING"},
		"for jobs":     {operatorToken(t, w.operator, nil, "job"), 403, "SCOPE_MISSING"},
		"another host": {operatorToken(t, w.operator, nil, other), 403, "SCOPE_MISSING"},
		"another request": {operatorToken(t, w.operator, nil, all[3].scope(t, host)), 403,
			"REQUEST_NOT_SIGNED"},
		"a stranger's": {operatorToken(t, stranger, nil, exact), 403, "NOT_OPERATOR"},
		"of a stranger for it": {operatorToken(t, stranger, func(c *token.Claims) {
			c.Audience = w.operator.Signer.Account
		}, exact), 403, "NOT_OPERATOR"},
		"for another operator": {operatorToken(t, w.operator, forStranger, exact), 401,
			"TOKEN_WRONG_AUDIENCE"},
	} {
		w.calls.take()
		got, body := w.do(t, request{method: drain.method, path: drain.path, anonymous: true,
			body: strings.NewReader(drain.body), header: tt.header})
		if f := failureOf(t, body); got.StatusCode != tt.status || f.Reason != tt.reason {
			t.Errorf("%s: status %d, %+v", name, got.StatusCode, f)
		}
		for _, c := range w.calls.take() {
			if c.method != "ListOffers" {
				t.Errorf("%s: the host heard %v", name, c)
			}
		}
	}
	wide := operatorToken(t, w.operator, nil, "admin:"+host)
	got, body := w.do(t, request{method: "GET", path: "/v1/hosts/" + host, anonymous: true,
		header: wide})
	if f := failureOf(t, body); got.StatusCode != 403 || f.Reason != "TOKEN_TOO_WIDE" {
		t.Errorf("reading with a wide token: status %d, %+v", got.StatusCode, f)
	}
}

// TestHostsThatCannotBeTold: unknown, away, not certified, certified for somebody else, and what a
// host itself refuses.
func TestHostsThatCannotBeTold(t *testing.T) {
	w := newWorld(t, nil)
	key := w.host.Key.Public()
	away := eventtest.NewOperator(1).Instance(t, "scheduler") // as key only
	gone := eventtest.NewOperator(3).Instance(t, "executor")
	w.jobs.offer(t, key, w.host.Certificate)
	w.jobs.offer(t, gone.Key.Public(), gone.Certificate)
	w.jobs.offer(t, away.Key.Public(), away.Certificate)
	claimed := sig.FromSeed([32]byte{77}).Public()
	papers, err := cert.Issue(eventtest.NewOperator(9).Signer, cert.Certificate{
		Chain: eventtest.Chain, InstanceKey: claimed, SealKey: w.host.Cert.SealKey,
		Services: []string{"executor"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), Serial: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.jobs.offer(t, claimed, papers)
	swapped := sig.PublicKey{5}
	w.jobs.offer(t, swapped, w.host.Certificate)
	for name, tt := range map[string]struct {
		key    sig.PublicKey
		of     eventtest.Operator
		fault  error
		status int
		reason string
	}{
		"unknown": {sig.PublicKey{1}, w.operator, nil, 404, "HOST_UNKNOWN"},
		"away": {gone.Key.Public(), eventtest.NewOperator(3), nil, 503,
			"INSTANCE_NOT_CONNECTED"},
		"not an executor":           {away.Key.Public(), w.operator, nil, 503, "EXECUTOR_NOT_CERTIFIED"},
		"another's papers":          {swapped, w.operator, nil, 404, "HOST_UNKNOWN"},
		"that a stranger certified": {claimed, w.operator, nil, 403, "NOT_OPERATOR"},
		"changed meanwhile": {key, w.operator, fault.New(fault.FailedPrecondition,
			"POLICY_CHANGED", "version 4 is in force"), 409, "POLICY_CHANGED"},
		"a bad rule": {key, w.operator, fault.New(fault.InvalidArgument, "BAD_ARGUMENT",
			"no account"), 400, "BAD_ARGUMENT"},
	} {
		w.host.refuse(tt.fault)
		host := hex.EncodeToString(tt.key[:])
		all := orders(host)
		put := all[len(all)-2]
		got, body := w.do(t, request{method: put.method, path: put.path, anonymous: true,
			body:   strings.NewReader(put.body),
			header: operatorToken(t, tt.of, nil, put.scope(t, host))})
		if f := failureOf(t, body); got.StatusCode != tt.status || f.Reason != tt.reason {
			t.Errorf("%s: status %d, %+v", name, got.StatusCode, f)
		}
	}
}

// TestForgedAndExpiredTokensForHosts: the gateway passes them on and the host refuses them.
func TestForgedAndExpiredTokensForHosts(t *testing.T) {
	w := newWorld(t, nil)
	key := w.host.Key.Public()
	host := hex.EncodeToString(key[:])
	w.jobs.offer(t, key, w.host.Certificate)
	drain := orders(host)[2]
	forged := operatorToken(t, w.operator, nil, drain.scope(t, host))["Authorization"]
	forged = forged[:len(forged)-8] + "AAAAAAAA"
	old := operatorToken(t, w.operator, func(c *token.Claims) {
		c.NotBefore, c.NotAfter = time.UnixMilli(1000), time.UnixMilli(2000)
	}, drain.scope(t, host))["Authorization"]
	for _, text := range []string{forged, old} {
		got, body := w.do(t, request{method: drain.method, path: drain.path, anonymous: true,
			body: strings.NewReader(drain.body), header: map[string]string{"Authorization": text}})
		if f := failureOf(t, body); got.StatusCode != 401 {
			t.Errorf("status %d, %+v", got.StatusCode, f)
		}
	}
	if slices.ContainsFunc(w.calls.take(), func(c called) bool { return c.method == "Drain" }) {
		t.Error("the host obeyed")
	}
}

// TestOrdersAreRepeated: with an Idempotency-Key the host is told once.
func TestOrdersAreRepeated(t *testing.T) {
	w := newWorld(t, nil)
	key := w.host.Key.Public()
	host := hex.EncodeToString(key[:])
	w.jobs.offer(t, key, w.host.Certificate)
	drain := orders(host)[2]
	for i := range 2 {
		header := operatorToken(t, w.operator, nil, drain.scope(t, host))
		header["Idempotency-Key"] = "one"
		got, body := w.do(t, request{method: drain.method, path: drain.path, anonymous: true,
			body: strings.NewReader(drain.body), header: header})
		if got.StatusCode != 200 || (got.Header.Get("Idempotency-Replayed") == "true") != (i == 1) {
			t.Errorf("time %d: status %d, %s", i, got.StatusCode, body)
		}
	}
	told := 0
	for _, c := range w.calls.take() {
		if c.method == "Drain" {
			told++
		}
	}
	if told != 1 {
		t.Errorf("the host was told %d times", told)
	}
}
