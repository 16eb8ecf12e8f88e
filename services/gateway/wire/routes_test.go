package wire_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/token"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// anID has bytes that base64 and base64url write differently.
func anID() [32]byte {
	raw := [32]byte{0xfb, 0xff, 0xfe, 1, 2, 3}
	raw[31] = 0xff
	return raw
}

// route is a request and the call that it must become.
type route struct {
	method, path, body string
	call               string
	want               proto.Message
}

func routes(t *testing.T, file cid.CID) []route {
	t.Helper()
	raw := anID()
	b, digits := raw[:], hex.EncodeToString(raw[:])
	std := base64.StdEncoding.EncodeToString(b)
	text := func(hrp string) string { return id.Bech32(hrp, raw) }
	return []route{
		{"GET", "/v1/chains/main", "", "GetChain", &ledgerv1.GetChainRequest{Chain: "main"}},
		{"POST", "/v1/transactions",
			`{"chain":"main","transaction":"AQID","wait":"FINALITY_ACCEPTED"}`, "Submit",
			&ledgerv1.SubmitRequest{Chain: "main", Transaction: []byte{1, 2, 3},
				Wait: ledgerv1.Finality_FINALITY_ACCEPTED}},
		{"GET", "/v1/transactions/" + digits + "?prove=true", "", "GetTransaction",
			&ledgerv1.GetTransactionRequest{Id: b, Prove: true}},
		{"GET", "/v1/accounts/" + text(id.Account) + "?chain=main&prove=true", "", "GetAccount",
			&ledgerv1.GetAccountRequest{Account: b, Chain: "main", Prove: true}},
		{"GET", "/v1/escrows/" + text(id.Escrow), "", "GetEscrow",
			&ledgerv1.GetEscrowRequest{Escrow: b}},
		{"GET", "/v1/leases/" + text(id.Lease), "", "GetLease",
			&ledgerv1.GetLeaseRequest{Lease: b}},
		{"GET", "/v1/leases?chain=main&leases=" + text(id.Lease) + "&leases=" + digits, "",
			"GetLeases", &ledgerv1.GetLeasesRequest{Chain: "main", Leases: [][]byte{b, b}}},
		{"GET", "/v1/blocks/12?header_only=true", "", "GetBlock",
			&ledgerv1.GetBlockRequest{Height: 12, HeaderOnly: true}},
		{"GET", "/v1/blocks?hash=" + digits, "", "GetBlock", &ledgerv1.GetBlockRequest{Hash: b}},
		{"GET", "/v1/blocks/12:proof?chain=main", "", "GetHistoryProof",
			&ledgerv1.GetHistoryProofRequest{Height: 12, Chain: "main"}},
		{"GET", "/v1/accounts/" + text(id.Account) + "/transactions?kinds=OPERATION_KIND_CHARGE" +
			"&kinds=10&direction=DIRECTION_SENT&page_size=2", "", "ListTransactions",
			&ledgerv1.ListTransactionsRequest{Account: b, Kinds: []ledgerv1.OperationKind{10, 10},
				Direction: ledgerv1.Direction_DIRECTION_SENT, PageSize: 2}},
		{"GET", "/v1/escrows?owner=" + text(id.Account) + "&subject=" + text(id.Job) +
			"&openness=OPENNESS_OPEN", "", "ListEscrows",
			&ledgerv1.ListEscrowsRequest{Owner: b, Subject: b,
				Openness: ledgerv1.Openness_OPENNESS_OPEN}},
		{"GET", "/v1/escrows/" + text(id.Escrow) + "/events?order=ORDER_NEWEST", "",
			"ListEscrowEvents", &ledgerv1.ListEscrowEventsRequest{Escrow: b,
				Order: ledgerv1.Order_ORDER_NEWEST}},
		{"GET", "/v1/escrows/" + digits + "/leases?page_token=x", "", "ListLeases",
			&ledgerv1.ListLeasesRequest{Escrow: b, PageToken: "x"}},
		{"GET", "/v1/leases/" + text(id.Lease) + "/charges", "", "ListCharges",
			&ledgerv1.ListChargesRequest{Lease: b}},
		{"GET", "/v1/search?query=abcdef", "", "Search",
			&ledgerv1.SearchRequest{Query: "abcdef"}},
		{"GET", "/v1/supply?prove=true", "", "GetSupply", &ledgerv1.GetSupplyRequest{Prove: true}},
		{"GET", "/v1/supply?height=7", "", "GetSupply", &ledgerv1.GetSupplyRequest{Height: 7}},
		{"GET", "/v1/fees?operations=3&body_bytes=400&blocks=5", "", "GetFees",
			&ledgerv1.GetFeesRequest{Operations: 3, BodyBytes: 400, Blocks: 5}},
		{"POST", "/v1/faucet", `{"chain":"main"}`, "RequestFaucet",
			&ledgerv1.RequestFaucetRequest{Chain: "main"}},
		{"GET", "/v1/scheduler", "", "GetScheduler", &schedulerv1.GetSchedulerRequest{}},
		{"GET", "/v1/offers?page_size=3&page_token=x", "", "ListOffers",
			&schedulerv1.ListOffersRequest{PageSize: 3, PageToken: "x"}},
		{"GET", "/v1/hosts?operator=" + text(id.Account) + "&executor=" + digits, "", "ListOffers",
			&schedulerv1.ListOffersRequest{Operator: b, Executor: b}},
		{"GET", "/v1/market?platform=linux/arm64", "", "GetMarket",
			&schedulerv1.GetMarketRequest{Platform: "linux/arm64"}},
		{"POST", "/v1/jobs", `{"escrow":"` + std + `","delivery":"DELIVERY_SCHEDULER"}`,
			"SubmitJob", &schedulerv1.SubmitJobRequest{Escrow: b,
				Delivery: schedulerv1.Delivery_DELIVERY_SCHEDULER}},
		{"GET", "/v1/jobs?page_size=2&state=STATE_RUNNING", "", "ListJobs",
			&schedulerv1.ListJobsRequest{PageSize: 2, State: jobv1.State_STATE_RUNNING}},
		{"GET", "/v1/jobs/" + text(id.Job), "", "GetJob", &schedulerv1.GetJobRequest{Job: b}},
		{"GET", "/v1/jobs/" + base64.RawURLEncoding.EncodeToString(b), "", "GetJob",
			&schedulerv1.GetJobRequest{Job: b}},
		{"GET", "/v1/jobs/" + base64.URLEncoding.EncodeToString(b), "", "GetJob",
			&schedulerv1.GetJobRequest{Job: b}},
		{"POST", "/v1/jobs/" + digits + ":cancel", `{"reason":"enough"}`, "CancelJob",
			&schedulerv1.CancelJobRequest{Job: b, Reason: "enough"}},
		{"POST", "/v1/jobs/" + digits + ":update", `{"revision":{}}`, "UpdateJob",
			&schedulerv1.UpdateJobRequest{Job: b, Revision: &jobv1.SignedRevision{}}},
		{"GET", "/v1/jobs/" + digits + "/runs?page_size=3", "", "ListRuns",
			&schedulerv1.ListRunsRequest{Job: b, PageSize: 3}},
		{"GET", "/v1/jobs/" + digits + "/tasks?page_token=x", "", "ListTasks",
			&schedulerv1.ListTasksRequest{Job: b, PageToken: "x"}},
		{"GET", "/v1/files?page_size=5", "", "List", &storagev1.ListRequest{PageSize: 5}},
		{"GET", "/v1/files/" + file.String() + ":stat?image=true", "", "Stat",
			&storagev1.StatRequest{Cid: file.String(), Image: true}},
		{"DELETE", "/v1/files/" + file.String(), "", "Remove",
			&storagev1.RemoveRequest{Cid: file.String()}},
		{"GET", "/v1/storage/events?cid=" + file.String() + "&page_token=x", "", "ListEvents",
			&storagev1.ListEventsRequest{Cid: file.String(), PageToken: "x"}},
		{"GET", "/v1/storage/usage", "", "Usage", &storagev1.UsageRequest{}},
		{"POST", "/v1/files:removeMany", `{"job":"j","dry_run":true}`, "RemoveMany",
			&storagev1.RemoveManyRequest{Job: "j", DryRun: true}},
		{"POST", "/v1/files/" + file.String() + ":pin", "{}", "Pin",
			&storagev1.PinRequest{Cid: file.String()}},
		{"POST", "/v1/files/" + file.String() + ":unpin", "{}", "Unpin",
			&storagev1.UnpinRequest{Cid: file.String()}},
		{"POST", "/v1/files/" + file.String() + ":setExpiry", `{"expires_ms":"7"}`, "SetExpiry",
			&storagev1.SetExpiryRequest{Cid: file.String(), ExpiresMs: 7}},
		{"GET", "/v1/files/" + file.String() + ":list?path=a/b&page_size=2", "", "ListDirectory",
			&storagev1.ListDirectoryRequest{Cid: file.String(), Path: "a/b", PageSize: 2}},
		{"POST", "/v1/uploads", `{"kind":"KIND_FILE","size":"9"}`, "StartUpload",
			&storagev1.StartUploadRequest{Header: &storagev1.PutHeader{
				Kind: storagev1.Kind_KIND_FILE, Size: 9}}},
		{"GET", "/v1/uploads", "", "ListUploads", &storagev1.ListUploadsRequest{}},
		{"GET", "/v1/uploads/abcd", "", "GetUpload", &storagev1.GetUploadRequest{Upload: "abcd"}},
		{"POST", "/v1/uploads/abcd:finish", "{}", "FinishUpload",
			&storagev1.FinishUploadRequest{Upload: "abcd"}},
		{"DELETE", "/v1/uploads/abcd", "", "AbortUpload",
			&storagev1.AbortUploadRequest{Upload: "abcd"}},
		{"POST", "/v1/storage:collect", `{"dry_run":true}`, "CollectGarbage",
			&storagev1.CollectGarbageRequest{DryRun: true}},
	}
}

func TestEveryRouteBecomesItsCall(t *testing.T) {
	w := newWorld(t, nil)
	file := w.files.add(t, cid.File, []byte("x"))
	for _, r := range routes(t, file) {
		t.Run(r.method+" "+r.path, func(t *testing.T) {
			got, body := w.do(t, request{method: r.method, path: r.path,
				body: strings.NewReader(r.body)})
			if got.StatusCode != http.StatusOK || !json.Valid(body) ||
				got.Header.Get("Content-Type") != "application/json" {
				t.Fatalf("status %d, %s", got.StatusCode, body)
			}
			asked := w.calls.take()
			if len(asked) != 1 || asked[0].method != r.call {
				t.Fatalf("became %v", asked)
			}
			if diff := cmp.Diff(r.want, asked[0].request, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
			public := slices.Contains([]string{"GetChain", "GetAccount", "ListOffers"}, r.call)
			if !public && asked[0].account != w.user.Account {
				t.Errorf("made by %x, not by the user", asked[0].account)
			}
		})
	}
}

// TestRoutesCoverTheRules keeps the table above, the OpenAPI document and http.yaml together.
func TestRoutesCoverTheRules(t *testing.T) {
	w := newWorld(t, nil)
	rules, err := os.ReadFile("../../../proto/http.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, body := w.do(t, request{method: "GET", path: "/openapi.json", anonymous: true})
	var document struct {
		Paths map[string]map[string]struct {
			Responses  map[string]any
			Parameters []struct{ Name string }
		}
		Definitions map[string]any
	}
	if err := json.Unmarshal(body, &document); err != nil || got.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %v", got.StatusCode, err)
	}
	named := regexp.MustCompile(`(?m)^ +(?:- )?(get|post|put|delete): (/\S+)$`).
		FindAllStringSubmatch(string(rules), -1)
	if len(named) < 20 {
		t.Fatalf("found %d rules", len(named))
	}
	selectors := regexp.MustCompile(`selector: \S+\.(\w+)`).FindAllStringSubmatch(string(rules), -1)
	tested := map[string]bool{"WatchJob": true, "WatchBlocks": true} // below
	for _, r := range routes(t, w.files.add(t, cid.File, nil)) {
		tested[r.call] = true
	}
	for _, o := range orders("") {
		tested[o.call] = true
	}
	for _, s := range selectors {
		if !tested[s[1]] {
			t.Errorf("the rule of %s has no test", s[1])
		}
	}
	named = append(named, []string{"", "post", "/v1/files"}, []string{"", "get", "/v1/files/{cid}"},
		[]string{"", "get", "/v1/jobs/{job}/logs"},
		[]string{"", "get", "/v1/jobs/{job}/stats"}, []string{"", "patch", "/v1/uploads/{upload}"},
		[]string{"", "get", "/v1/files/{cid}/{path}"})
	for _, rule := range named {
		operation, has := document.Paths[rule[2]][rule[1]]
		if !has {
			t.Errorf("the document lacks %s %s", rule[1], rule[2])
		}
		if operation.Responses["default"] == nil {
			t.Errorf("%s %s says nothing of errors", rule[1], rule[2])
		}
		own := strings.HasSuffix(rule[2], "/files") || rule[1] == "patch"
		keyed := slices.ContainsFunc(operation.Parameters, func(p struct{ Name string }) bool {
			return p.Name == "Idempotency-Key"
		})
		if want := rule[1] != "get" && !own; keyed != want {
			t.Errorf("%s %s takes an Idempotency-Key: %v, want %v", rule[1], rule[2], keyed, want)
		}
	}
	for _, ref := range regexp.MustCompile(`#/definitions/([^"]+)`).FindAllSubmatch(body, -1) {
		if document.Definitions[string(ref[1])] == nil {
			t.Errorf("the document does not define %s", ref[1])
		}
	}
}

func TestAnswersUseProtoNamesAndBase64(t *testing.T) {
	w := newWorld(t, nil)
	raw := anID()
	_, body := w.do(t, request{method: "GET", path: "/v1/accounts/" + id.Bech32(id.Account, raw),
		anonymous: true})
	var got map[string]any
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"id": base64.StdEncoding.EncodeToString(raw[:]), "height": "7",
		"pending_nonce": "9"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// refusal is a request and how it must be refused.
type refusal struct {
	name   string
	r      request
	status int
	reason string
	header string // that must be set
}

func TestRefusals(t *testing.T) {
	w := newWorld(t, nil)
	raw := anID()
	job := "/v1/jobs/" + id.Bech32(id.Job, raw)
	bearer := func(change func(*token.Claims)) map[string]string {
		return map[string]string{"Authorization": "Bearer " + w.token(t, change)}
	}
	other := *w
	other.user = keys.SingleSigner(sig.FromSeed([32]byte{98}))
	forged := w.token(t, nil)
	forged = forged[:len(forged)-8] + "AAAAAAAA"
	tests := []refusal{
		{"no token", request{method: "GET", path: job, anonymous: true}, 401, "TOKEN_MISSING",
			"WWW-Authenticate"},
		{"no token for a stream", request{method: "GET", path: job + ":watch", anonymous: true},
			401, "TOKEN_MISSING", "WWW-Authenticate"},
		{"no token for a log", request{method: "GET", path: job + "/logs", anonymous: true}, 401,
			"TOKEN_MISSING", "WWW-Authenticate"},
		{"no token for a file", request{method: "PUT", path: "/v1/files", anonymous: true,
			body: strings.NewReader("x")}, 401, "TOKEN_MISSING", "WWW-Authenticate"},
		{"expired", request{method: "GET", path: job, header: bearer(func(c *token.Claims) {
			c.NotBefore, c.NotAfter = time.UnixMilli(1000), time.UnixMilli(2000)
		})}, 401, "TOKEN_EXPIRED", "WWW-Authenticate"},
		{"for another operator", request{method: "GET", path: job,
			header: bearer(func(c *token.Claims) { c.Audience = sig.AccountID{5} })}, 401,
			"TOKEN_WRONG_AUDIENCE", "WWW-Authenticate"},
		{"forged", request{method: "GET", path: job,
			header: map[string]string{"Authorization": "Bearer " + forged}}, 401, "", ""},
		{"not a bearer", request{method: "GET", path: job,
			header: map[string]string{"Authorization": "Basic eDp5"}}, 401, "TOKEN_MALFORMED",
			"WWW-Authenticate"},
		{"no such path", request{method: "GET", path: "/v1/nonsense"}, 404, "ROUTE_UNKNOWN", ""},
		{"nothing here", request{method: "GET", path: "/nonsense"}, 404, "ROUTE_UNKNOWN", ""},
		{"long path", request{method: "GET", path: "/v1/" + strings.Repeat("x", 2000)}, 404,
			"ROUTE_UNKNOWN", ""},
		{"wrong method", request{method: "DELETE", path: "/v1/faucet"}, 405,
			"METHOD_NOT_ALLOWED", ""},
		{"another kind of id", request{method: "GET",
			path: "/v1/jobs/" + id.Bech32(id.Account, raw)}, 400, "ID_INVALID", ""},
		{"mistyped id", request{method: "GET", path: job[:len(job)-1] + "b"}, 400, "ID_INVALID",
			""},
		{"no CID", request{method: "GET", path: "/v1/files/../x"}, 404, "ROUTE_UNKNOWN", ""},
		{"bad CID", request{method: "GET", path: "/v1/files/Qmx"}, 400, "BAD_CID", ""},
		{"bad lease of many", request{method: "GET", path: "/v1/leases?leases=" +
			id.Bech32(id.Lease, raw) + "&leases=" + id.Bech32(id.Job, raw)}, 400, "ID_INVALID", ""},
		{"no host", request{method: "GET", path: "/v1/hosts/alpha-1"}, 400, "ID_INVALID", ""},
		{"a host's attempt", request{method: "POST", path: "/v1/hosts/" +
			hex.EncodeToString(raw[:]) + "/attempts/zz!:evict"}, 400, "ID_INVALID", ""},
		{"an operator that is a job", request{method: "GET",
			path: "/v1/hosts?operator=" + id.Bech32(id.Job, raw)}, 400, "ID_INVALID", ""},
		{"bad hash", request{method: "GET", path: "/v1/blocks?hash=zz"}, 400, "ID_INVALID", ""},
		{"an account as subject", request{method: "GET",
			path: "/v1/escrows?subject=" + id.Bech32(id.Account, raw)}, 400, "ID_INVALID", ""},
		{"bad number", request{method: "GET", path: "/v1/blocks/x"}, 400, "REQUEST_INVALID", ""},
		{"bad JSON", request{method: "POST", path: "/v1/faucet", body: strings.NewReader("{")},
			400, "REQUEST_INVALID", ""},
		{"unknown parameter", request{method: "GET", path: "/v1/chains/main?nonsense.x=1"}, 400,
			"PARAMETER_UNKNOWN", ""},
		{"unreadable query", request{method: "GET", path: "/v1/jobs?state=%zz"}, 400,
			"REQUEST_INVALID", ""},
		{"large body", request{method: "POST", path: "/v1/transactions",
			body: strings.NewReader(strings.Repeat("x", 1<<20+1))}, 413, "BODY_TOO_LARGE", ""},
		{"large body of unknown length", request{method: "POST", path: "/v1/transactions",
			body: struct{ *strings.Reader }{strings.NewReader(strings.Repeat("x", 1<<20+1))}},
			413, "BODY_TOO_LARGE", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { refused(t, w, tt) })
	}
}

// TestUnknownParameters: no route passes over a parameter that it does not take, and every one that
// the document names is taken.
func TestUnknownParameters(t *testing.T) {
	w := newWorld(t, nil)
	file := w.files.add(t, cid.File, []byte("x"))
	job := "/v1/jobs/" + id.Bech32(id.Job, anID())
	paths := []string{"PUT /v1/files", "GET /v1/files/" + file.String(),
		"HEAD /v1/files/" + file.String(), "GET /v1/files/" + file.String() + "/a:b/c",
		"GET " + job + "/logs", "GET " + job + "/stats", "GET " + job + ":watch",
		"GET /v1/blocks:watch", "PATCH /v1/uploads/abcd"}
	for _, r := range routes(t, file) {
		path, _, _ := strings.Cut(r.path, "?")
		paths = append(paths, r.method+" "+path)
	}
	for _, o := range orders(hex.EncodeToString(make([]byte, 32))) {
		path, _, _ := strings.Cut(o.path, "?")
		paths = append(paths, o.method+" "+path)
	}
	for _, one := range paths {
		method, path, _ := strings.Cut(one, " ")
		w.calls.take()
		got, body := w.do(t, request{method: method, path: path + "?pagesize=7"})
		if method == http.MethodHead {
			if got.StatusCode != http.StatusBadRequest {
				t.Errorf("%s: status %d", one, got.StatusCode)
			}
			continue
		}
		f := failureOf(t, body)
		if got.StatusCode != 400 || f.Reason != "PARAMETER_UNKNOWN" ||
			f.Metadata["parameter"] != "pagesize" || len(w.calls.take()) != 0 {
			t.Errorf("%s: status %d, %+v", one, got.StatusCode, f)
		}
	}
	got, body := w.do(t, request{method: "GET", path: "/v1/jobs?pageSize=7"})
	if f := failureOf(t, body); got.StatusCode != 400 || !strings.Contains(f.Message, "page_size") {
		t.Errorf("another spelling: status %d, %+v", got.StatusCode, f)
	}
	for _, path := range []string{"/v1/nonsense?x=1", "/v1/jobs:x?x=1"} {
		got, body := w.do(t, request{method: "GET", path: path})
		if f := failureOf(t, body); got.StatusCode != 404 || f.Reason != "ROUTE_UNKNOWN" {
			t.Errorf("%s: status %d, %+v", path, got.StatusCode, f)
		}
	}
}

func refused(t *testing.T, w *world, tt refusal) {
	t.Helper()
	got, body := w.do(t, tt.r)
	if tt.status == 0 {
		if got.StatusCode >= http.StatusInternalServerError {
			t.Errorf("status %d: %s", got.StatusCode, body)
		}
		return
	}
	if got.StatusCode != tt.status {
		t.Fatalf("status %d, want %d: %s", got.StatusCode, tt.status, body)
	}
	f := failureOf(t, body)
	if tt.reason != "" && f.Reason != tt.reason {
		t.Errorf("reason %s, want %s", f.Reason, tt.reason)
	}
	if tt.header != "" && got.Header.Get(tt.header) == "" {
		t.Errorf("no %s", tt.header)
	}
	if got.Header.Get("X-Request-Id") == "" {
		t.Error("no request id")
	}
}

func TestFaultsOfServicesArrive(t *testing.T) {
	w := newWorld(t, nil)
	job := "/v1/jobs/" + id.Bech32(id.Job, anID())
	tests := []struct {
		err    error
		status int
		want   failure
	}{
		{fault.New(fault.PermissionDenied, "SCOPE_MISSING", "make one").With("scope", "job"), 403,
			failure{"PERMISSION_DENIED", "SCOPE_MISSING", "make one",
				map[string]string{"scope": "job"}, 0}},
		{fault.New(fault.NotFound, "NO_JOB", "none"), 404,
			failure{"NOT_FOUND", "NO_JOB", "none", nil, 0}},
		{fault.New(fault.ResourceExhausted, "RATE_LIMITED", "slow").WithRetry(2500 *
			time.Millisecond), 429, failure{"RESOURCE_EXHAUSTED", "RATE_LIMITED", "slow", nil, 2500}},
	}
	for _, tt := range tests {
		w.calls.fail(tt.err)
		for _, path := range []string{job, job + ":watch", job + "/logs"} {
			got, body := w.do(t, request{method: "GET", path: path})
			if diff := cmp.Diff(tt.want, failureOf(t, body)); diff != "" ||
				got.StatusCode != tt.status {
				t.Errorf("%s: status %d, %s", path, got.StatusCode, diff)
			}
			if tt.status == 429 && got.Header.Get("Retry-After") != "3" {
				t.Errorf("%s: Retry-After %q", path, got.Header.Get("Retry-After"))
			}
		}
	}
	w.calls.fail(os.ErrPermission) // a secret of a service
	got, body := w.do(t, request{method: "GET", path: job})
	if f := failureOf(t, body); got.StatusCode != 500 || f.Reason != "INTERNAL" ||
		strings.Contains(f.Message, "permission") {
		t.Errorf("status %d: %+v", got.StatusCode, f)
	}
}

func TestHeadersDoNotReachServices(t *testing.T) {
	w := newWorld(t, nil)
	got, _ := w.do(t, request{method: "GET", path: "/v1/scheduler", anonymous: true,
		header: map[string]string{"Grpc-Metadata-Authorization": "Bearer " + w.token(t, nil)}})
	if got.StatusCode != http.StatusUnauthorized {
		t.Errorf("status %d: a metadata header was passed on", got.StatusCode)
	}
	for name := range maps.Keys(got.Header) {
		if strings.HasPrefix(name, "Grpc-") {
			t.Errorf("header %s came back", name)
		}
	}
	if !slices.Contains(got.Header.Values("X-Content-Type-Options"), "nosniff") {
		t.Error("content types may be guessed")
	}
}

// TestWatchedBlocks come one JSON object per line, as they are made.
func TestWatchedBlocks(t *testing.T) {
	w := newWorld(t, nil)
	got, body := w.do(t, request{method: "GET", path: "/v1/blocks:watch?from=5&bodies=true"})
	lines := strings.Split(strings.TrimSpace(string(body)), "\n")
	if got.StatusCode != http.StatusOK || len(lines) != 2 {
		t.Fatalf("status %d, %d lines: %s", got.StatusCode, len(lines), body)
	}
	for i, line := range lines {
		var m struct {
			Result struct {
				Block struct{ Header struct{ Height string } }
			}
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil ||
			m.Result.Block.Header.Height != []string{"5", "6"}[i] {
			t.Errorf("line %d is %s: %v", i, line, err)
		}
	}
	raw := anID()
	of := "&account=" + id.Bech32(id.Account, raw)
	w.do(t, request{method: "GET", path: "/v1/blocks:watch?from=5" + of})
	w.heard(t, "/v1/blocks:watch?from=5&escrow="+id.Bech32(id.Escrow, raw), "", 1)
	asked := w.calls.take()
	want := []*ledgerv1.WatchBlocksRequest{{From: 5, Bodies: true}, {From: 5, Account: raw[:]},
		{From: 5, Escrow: raw[:]}}
	for i := range want {
		if len(asked) != len(want) || !proto.Equal(asked[i].request, want[i]) {
			t.Fatalf("became %v", asked)
		}
	}
	got, body = w.do(t, request{method: "GET", path: "/v1/blocks:watch?account=x"})
	if got.StatusCode != 400 || failureOf(t, body).Reason != "ID_INVALID" {
		t.Errorf("a bad account: status %d, %s", got.StatusCode, body)
	}
}
