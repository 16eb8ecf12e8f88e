package wire_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/origin"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/token"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/gateway/wire"
)

// world is a gateway between a real HTTP client and faked services: real gRPC through memory,
// real tokens, a real broker.
type world struct {
	url      string
	stop     func() error
	calls    *calls
	ledger   *fakeLedger
	jobs     *fakeScheduler
	files    *fakeStorage
	host     *fakeHost
	told     *kittest.Telemetry
	user     keys.Signer
	operator eventtest.Operator
	audience sig.AccountID
	broker   *broker.Broker
	client   *http.Client // nil: the default one
}

// newWorld starts everything; change may be nil.
func newWorld(t *testing.T, change func(*wire.Config)) *world {
	t.Helper()
	w := &world{
		calls: &calls{}, operator: eventtest.NewOperator(1),
		user: keys.SingleSigner(sig.FromSeed([32]byte{99})),
	}
	w.ledger = &fakeLedger{calls: w.calls}
	w.told = kittest.NewTelemetry(t, kittest.NewLog(t))
	b := startBroker(t)
	w.broker = b
	own := w.operator.Instance(t, "gateway")
	w.audience = own.Cert.Operator
	pipe := &rpc.Pipe{}
	w.serve(t, pipe)
	w.host = startHost(t, w, b, w.operator)
	told := w.told.MustService(t, "gateway")
	i := &instance.Instance{
		Service: "gateway", Identity: own.Identity, Certificate: own.Cert,
		Chain: eventtest.Chain, Telemetry: told, Now: time.Now,
		Dialer: rpc.NewPipeDialer(pipe, rpc.ClientDeps{
			Tracers: told.Tracers, Meters: told.Meters,
			// The gateway's own rights, which no call may ever have.
			Tokens:  instance.NewTokens(own.Key, eventtest.Chain, w.audience, nil),
			Origins: instance.NewOrigins(own.Identity, w.audience, nil, time.Now),
		}),
		Connect: func(name string) (*nats.Conn, error) { return b.Connect(name) },
	}
	c := wire.Default()
	c.HTTP.Addr = "127.0.0.1:0"
	if change != nil {
		change(&c)
	}
	g, err := wire.New(t.Context(), c, i)
	if err != nil {
		t.Fatal(err)
	}
	w.stop = kittest.Run(t, g)
	w.url = g.URL()
	return w
}

func startBroker(t *testing.T) *broker.Broker {
	t.Helper()
	cfg := broker.Default()
	cfg.Dir, cfg.Services = t.TempDir(), nil
	b, err := broker.New(cfg, broker.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	kittest.Run(t, b)
	return b
}

func (w *world) tokens() rpc.Authenticator {
	return &token.Verifier{Audience: w.audience, Chains: []string{eventtest.Chain}}
}

// serve starts the three services behind the gateway.
func (w *world) serve(t *testing.T, pipe *rpc.Pipe) {
	t.Helper()
	w.jobs = newFakeScheduler(w.calls)
	w.files = &fakeStorage{calls: w.calls, held: map[string][]byte{}}
	for name, register := range map[string]func(grpc.ServiceRegistrar){
		"ledger": func(r grpc.ServiceRegistrar) {
			ledgerv1.RegisterLedgerServiceServer(r, w.ledger)
		},
		"scheduler": func(r grpc.ServiceRegistrar) {
			schedulerv1.RegisterSchedulerServiceServer(r, w.jobs)
		},
		"storage": func(r grpc.ServiceRegistrar) {
			storagev1.RegisterStorageServiceServer(r, w.files)
		},
	} {
		listener, err := pipe.Listen(name)
		if err != nil {
			t.Fatal(err)
		}
		told := w.told.MustService(t, name)
		deps := rpc.ServerDeps{
			Log: told.Log, Tracers: told.Tracers, Meters: told.Meters, Auth: w.tokens(),
			Listener: listener,
			Origins: &origin.Judge{Operator: w.audience,
				Certificates: cert.Verifier{Chains: []string{eventtest.Chain}}},
		}
		switch name {
		case "scheduler":
			deps.Public = []string{"/ucn.scheduler.v1.SchedulerService/ListOffers"}
		case "ledger":
			deps.Public = []string{
				"/ucn.ledger.v1.LedgerService/GetChain", "/ucn.ledger.v1.LedgerService/GetAccount",
			}
		}
		cfg := rpc.DefaultServer()
		cfg.Drain = time.Second
		server, err := rpc.NewServer(cfg, deps)
		if err != nil {
			t.Fatal(err)
		}
		register(server)
		kittest.Run(t, server)
	}
}

// token returns a token of the user.
func (w *world) token(t *testing.T, change func(*token.Claims)) string {
	t.Helper()
	c := token.Claims{
		Chain: eventtest.Chain, Audience: w.audience, Scopes: []string{"job", "file", "ledger"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	if change != nil {
		change(&c)
	}
	text, err := token.Issue(w.user, c)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// request is one HTTP request.
type request struct {
	method, path string
	body         io.Reader
	header       map[string]string
	anonymous    bool
}

// open sends a request with the user's token; the caller closes the body.
func (w *world) open(ctx context.Context, t *testing.T, r request) *http.Response {
	t.Helper()
	out, err := http.NewRequestWithContext(ctx, r.method, w.url+r.path, r.body)
	if err != nil {
		t.Fatal(err)
	}
	if !r.anonymous {
		out.Header.Set("Authorization", "Bearer "+w.token(t, nil))
	}
	for name, value := range r.header {
		out.Header.Set(name, value)
	}
	got, err := cmp.Or(w.client, http.DefaultClient).Do(out)
	if err != nil {
		t.Fatalf("%s %s: %v", r.method, r.path, err)
	}
	return got
}

// do sends a request and returns the whole answer.
func (w *world) do(t *testing.T, r request) (*http.Response, []byte) {
	t.Helper()
	got := w.open(t.Context(), t, r)
	defer func() {
		if err := got.Body.Close(); err != nil {
			t.Error(err)
		}
	}()
	body, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatalf("%s %s: read: %v", r.method, r.path, err)
	}
	return got, body
}

// failure is the shape of errors as a client sees it, read strictly.
type failure struct {
	Code         string            `json:"code"`
	Reason       string            `json:"reason"`
	Message      string            `json:"message"`
	Metadata     map[string]string `json:"metadata"`
	RetryAfterMS int64             `json:"retry_after_ms"`
}

func failureOf(t *testing.T, body []byte) failure {
	t.Helper()
	var f failure
	strict := json.NewDecoder(bytes.NewReader(body))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&f); err != nil || f.Code == "" || f.Reason == "" || f.Message == "" {
		t.Fatalf("not the shape of errors: %v in %s", err, body)
	}
	return f
}
