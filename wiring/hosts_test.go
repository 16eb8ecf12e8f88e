package wiring_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/token"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	"github.com/united-containers/ucn/wiring"
)

// restDesk tells the hosts of one operator over REST.
type restDesk struct {
	ctx      context.Context
	url      string
	operator keys.Signer
	key      sig.PublicKey // of one of its hosts
}

func newRESTDesk(ctx context.Context, t *testing.T, cfg wiring.Config, url, name string) *restDesk {
	t.Helper()
	stored, err := keys.Read(filepath.Join(cfg.Data, "operators", name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	signing, err := stored.Signing(nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &restDesk{ctx: ctx, url: url, operator: keys.SingleSigner(signing)}
	path := "/v1/hosts?operator=" + id.Bech32(id.Account, d.operator.Account)
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		var list struct {
			Offers []struct {
				Offer struct{ Executor, Operator []byte }
			}
		}
		code, body := d.ask(t, "GET", path, "", "")
		if err := json.Unmarshal(body, &list); err != nil || code != 200 {
			t.Fatalf("status %d, %v: %s", code, err, body)
		}
		for _, o := range list.Offers {
			if sig.AccountID(o.Offer.Operator) != d.operator.Account {
				t.Fatalf("a host of another operator is listed: %s", body)
			}
			d.key = sig.PublicKey(o.Offer.Executor)
			return d
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatal("no offer of ", name)
		}
	}
}

func (d *restDesk) path(rest string) string {
	return "/v1/hosts/" + hex.EncodeToString(d.key[:]) + rest
}

func (d *restDesk) ask(
	t *testing.T, method, path, body, bearer string,
) (int, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(d.ctx, method, d.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	got, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = got.Body.Close() }()
	answer, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	return got.StatusCode, answer
}

// token is one of the operator for its hosts.
func (d *restDesk) token(t *testing.T, scope string) string {
	t.Helper()
	text, err := token.Issue(d.operator, token.Claims{
		Chain: "main", Audience: d.operator.Account, Scopes: []string{scope},
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// bound is a token for m alone.
func (d *restDesk) bound(t *testing.T, action string, m proto.Message) string {
	t.Helper()
	scope, err := token.Bound(token.AdminScope(d.key, action), m)
	if err != nil {
		t.Fatal(err)
	}
	return d.token(t, scope)
}

// read asks what a token for reading opens.
func (d *restDesk) read(t *testing.T, rest string, into proto.Message) {
	t.Helper()
	code, body := d.ask(t, "GET", d.path(rest), "", d.token(t, token.AdminScope(d.key, "read")))
	if err := protojson.Unmarshal(body, into); err != nil || code != 200 {
		t.Fatalf("%s: status %d, %v: %s", rest, code, err, body)
	}
}

// tell sends m with a token for m alone, and wants the status and the text in the answer.
func (d *restDesk) tell(t *testing.T, o restOrder) {
	t.Helper()
	body, err := protojson.Marshal(o.m)
	if err != nil {
		t.Fatal(err)
	}
	code, answer := d.ask(t, o.method, d.path(o.rest), string(body), d.bound(t, o.action, o.m))
	if code != o.code || !bytes.Contains(answer, []byte(o.says)) {
		t.Errorf("%s of %s: status %d, %s; want %d, %s", o.action, body, code, answer, o.code, o.says)
	}
}

type restOrder struct {
	action, method, rest string
	m                    proto.Message
	code                 int
	says                 string
}

// TestHostsOverREST: both operators of a network tell their hosts over the gateway of one of them;
// the hosts themselves find that it is their operator.
func TestHostsOverREST(t *testing.T) {
	cfg := local(t)
	n, down := up(t, cfg)
	defer func() {
		if err := down(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	url := n.Where().REST
	if !strings.HasPrefix(url, "http") {
		url = "http://" + url
	}
	alpha := newRESTDesk(ctx, t, cfg, url, wiring.Alpha)
	beta := newRESTDesk(ctx, t, cfg, url, wiring.Beta)
	drainByREST(t, alpha)
	drainByREST(t, beta)
	policyByREST(t, beta)
	saidByREST(t, beta)
	schedulerByREST(t, alpha)
	// A host of another operator, and a host to which another one's token was sent.
	m := &executorv1.DrainRequest{Executor: beta.key[:]}
	thief := &restDesk{ctx: ctx, url: url, operator: alpha.operator, key: beta.key}
	thief.tell(t, restOrder{"drain", "POST", ":drain", m, 403, "NOT_OPERATOR"})
	code, answer := alpha.ask(t, "POST", alpha.path(":drain"), "", beta.bound(t, "drain", m))
	if code != 403 || !bytes.Contains(answer, []byte("SCOPE_MISSING")) {
		t.Errorf("a token for another host: status %d, %s", code, answer)
	}
	code, answer = beta.ask(t, "POST", beta.path(":drain"), `{"evict_after_ms":"1"}`,
		beta.bound(t, "drain", m))
	if code != 403 || !bytes.Contains(answer, []byte("REQUEST_NOT_SIGNED")) {
		t.Errorf("another request: status %d, %s", code, answer)
	}
	host := &executorv1.GetHostResponse{}
	if beta.read(t, "", host); host.GetDraining() {
		t.Error("a refused order was obeyed")
	}
}

func drainByREST(t *testing.T, d *restDesk) {
	t.Helper()
	at := d.key[:]
	d.tell(t, restOrder{"drain", "POST", ":drain", &executorv1.DrainRequest{
		Executor: at, EvictAfterMs: 3_600_000, Reason: "new disks"}, 200, "evict_at"})
	host := &executorv1.GetHostResponse{}
	d.read(t, "", host)
	if !host.GetDraining() || host.GetReason() != "new disks" || host.GetEvictAt() == 0 ||
		string(host.GetOffer().GetExecutor()) != string(at) || len(host.GetAbilities()) == 0 {
		t.Errorf("after the drain: %v", host)
	}
	d.tell(t, restOrder{"undrain", "POST", ":undrain",
		&executorv1.UndrainRequest{Executor: at}, 200, "{}"})
	host = &executorv1.GetHostResponse{}
	if d.read(t, "", host); host.GetDraining() {
		t.Errorf("after the undrain: %v", host)
	}
	attempts := &executorv1.ListAttemptsResponse{}
	if d.read(t, "/attempts?page_size=5", attempts); len(attempts.GetAttempts()) != 0 {
		t.Errorf("attempts of nobody: %v", attempts)
	}
	for _, o := range []restOrder{
		{"drain", "POST", ":drain", &executorv1.DrainRequest{Executor: at,
			EvictAfterMs: 367 * 24 * 3_600_000}, 400, "BAD_ARGUMENT"},
		{"drain", "POST", ":drain", &executorv1.DrainRequest{Executor: at,
			Reason: strings.Repeat("x", 201)}, 400, "reason"},
		{"evict", "POST", "/attempts/abcd:evict", &executorv1.EvictRequest{Executor: at,
			Attempt: []byte{0xab, 0xcd}, NoticeMs: 60_000}, 404, "NO_ATTEMPT"},
		{"evict", "POST", "/attempts/abcd:evict", &executorv1.EvictRequest{Executor: at,
			Attempt: []byte{0xab, 0xcd}, NoticeMs: 25 * 3_600_000}, 400, "notice_ms"},
	} {
		d.tell(t, o)
	}
}

func policyByREST(t *testing.T, d *restDesk) {
	t.Helper()
	owner := id.Bech32(id.Account, [32]byte{5})
	set := func(base uint64, deny ...string) proto.Message {
		return &executorv1.SetPolicyRequest{Executor: d.key[:], Base: base,
			Policy: &executorv1.HostPolicy{DenyOwners: deny, MaxRunTimeMs: 7_200_000}}
	}
	put := func(m proto.Message, code int, says string) {
		t.Helper()
		d.tell(t, restOrder{"policy", "PUT", "/policy", m, code, says})
	}
	put(set(0, owner), 200, "version")
	put(set(0, owner), 200, "version") // the same again is done
	put(set(0), 409, "POLICY_CHANGED")
	put(set(7, owner), 409, "POLICY_CHANGED")
	put(set(1, "nobody"), 400, "nobody")
	policy := &executorv1.GetPolicyResponse{}
	d.read(t, "/policy", policy)
	if policy.GetSetVersion() != 1 || len(policy.GetSetPolicy().GetDenyOwners()) != 1 ||
		policy.GetSetPolicy().GetMaxRunTimeMs() != 7_200_000 || policy.GetSetSince() == 0 {
		t.Errorf("the policy is %v", policy)
	}
	put(set(1), 200, "version")
}

// saidByREST: what a host told of its policy can be read by its operator, and by no other.
func saidByREST(t *testing.T, d *restDesk) {
	t.Helper()
	path := "/v1/instances/" + hex.EncodeToString(d.key[:]) + "/events?topic=operator"
	code, body := d.ask(t, "GET", path, "", d.token(t, token.AdminScope(d.key, "read")))
	out := &eventv1.FetchResponse{}
	if err := protojson.Unmarshal(body, out); err != nil || code != 200 {
		t.Fatalf("status %d, %v: %s", code, err, body)
	}
	changes := 0
	for _, raw := range out.GetEnvelopes() {
		e, err := event.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		if e.Body.Type == "policy.changed" {
			changes++
		}
	}
	if changes != 2 {
		t.Errorf("%d changes of the policy are told, want 2: %s", changes, body)
	}
	code, body = d.ask(t, "GET", path, "", d.token(t, token.AdminScope(d.key, "drain")))
	if code != 403 {
		t.Errorf("with a token for something else: status %d, %s", code, body)
	}
}

// schedulerByREST: the gateway finds its scheduler by its key, and no instance that it cannot know.
func schedulerByREST(t *testing.T, d *restDesk) {
	t.Helper()
	_, body := d.ask(t, "GET", "/v1/scheduler", "", "")
	var m struct {
		Certificate struct {
			Body struct {
				Key []byte `json:"instance_key"`
			}
		}
	}
	if err := json.Unmarshal(body, &m); err != nil || len(m.Certificate.Body.Key) != 32 {
		t.Fatalf("%v: %s", err, body)
	}
	for key, want := range map[sig.PublicKey]int{
		sig.PublicKey(m.Certificate.Body.Key): 200, {5}: 404,
	} {
		path := "/v1/instances/" + hex.EncodeToString(key[:]) + "/events?topic=job"
		code, body := d.ask(t, "GET", path, "", d.token(t, token.AdminScope(key, "read")))
		if code != want {
			t.Errorf("%x: status %d, want %d: %s", key[:4], code, want, body)
		}
	}
}
