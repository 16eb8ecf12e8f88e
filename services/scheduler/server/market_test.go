package server_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/run"
	"github.com/united-containers/ucn/kit/token"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
	"github.com/united-containers/ucn/services/scheduler/server"
)

const imageCID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"

// market is a scheduler that serves over a pipe, with fakes behind it.
type market struct {
	t         *testing.T
	store     *schedulertest.Memory
	ledger    *schedulertest.Ledger
	hosts     *schedulertest.Hosts
	telemetry *kittest.Telemetry
	pipe      *rpc.Pipe
	operator  sig.AccountID
	handle    func(context.Context, event.Incoming) error
	heads     map[event.Line]event.Head
}

func newMarket(t *testing.T) *market {
	t.Helper()
	memory := &schedulertest.Memory{}
	m := newMarketOn(t, memory, server.Default())
	m.store = memory
	return m
}

// newMarketOn is a market over a store that holds something already.
func newMarketOn(t *testing.T, store scheduler.Store, cfg server.Config) *market {
	t.Helper()
	m := &market{
		t: t, ledger: schedulertest.NewLedger(time.Now),
		hosts: &schedulertest.Hosts{}, pipe: &rpc.Pipe{}, operator: sig.AccountID{0xee},
		heads: map[event.Line]event.Head{},
	}
	m.telemetry = kittest.NewTelemetry(t, kittest.NewLog(t))
	own := m.telemetry.MustService(t, "scheduler")
	s, err := server.New(cfg, server.Deps{
		Engine: scheduler.Deps{
			Store: store, Ledger: m.ledger, Hosts: m.hosts, Assigner: schedulertest.Assigner(),
			VerifyLease: schedulertest.VerifyLease, Now: time.Now, Random: rand.Reader, Log: own.Log,
		},
		Chain: "main", Certificate: &identityv1.Certificate{}, Tracers: own.Tracers,
		Follow: func(handle func(context.Context, event.Incoming) error) (run.Component, error) {
			m.handle = handle
			return run.Func(func(ctx context.Context, ready func()) error {
				ready()
				<-ctx.Done()
				return nil
			}), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := m.pipe.Listen("scheduler")
	if err != nil {
		t.Fatal(err)
	}
	g, err := rpc.NewServer(rpc.DefaultServer(), rpc.ServerDeps{
		Log: own.Log, Tracers: own.Tracers, Public: server.PublicMethods(), Listener: listener,
		Auth: &token.Verifier{Audience: m.operator, Chains: []string{"main"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Register(g)
	kittest.Run(t, s)
	kittest.Run(t, g)
	return m
}

// user is an account with a client.
type user struct {
	schedulerv1.SchedulerServiceClient
	key sig.PrivateKey
	id  sig.AccountID
}

func (m *market) user(seed byte, scopes ...string) user {
	m.t.Helper()
	key := sig.FromSeed([32]byte{seed})
	tokens := &token.Source{
		Signer: keys.SingleSigner(key), Chain: "main", Scopes: scopes, AnyService: m.operator,
	}
	deps := rpc.ClientDeps{
		Tokens: tokens, Tracers: m.telemetry.MustService(m.t, "client").Tracers,
	}
	if len(scopes) == 0 {
		deps.Tokens = nil
	}
	conn, err := rpc.NewPipeDialer(m.pipe, deps).Dial(m.t.Context(), "scheduler")
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			m.t.Error(err)
		}
	})
	return user{schedulerv1.NewSchedulerServiceClient(conn), key, sig.AccountOfKey(key.Public())}
}

func (u user) spec(n int) *jobv1.JobSpec {
	nonce := make([]byte, 16)
	nonce[0], nonce[1] = byte(n), byte(n>>8)
	return &jobv1.JobSpec{
		Owner: u.id[:], Chain: "main", Nonce: nonce, Name: "render",
		Image:     &jobv1.Image{Cid: imageCID},
		Resources: &jobv1.Resources{CpuMilli: 1000, Memory: 64 << 20},
		Payment:   &jobv1.Payment{MaxTotal: 1_000_000},
	}
}

// request signs a job, opens its escrow and returns what is to be submitted.
func (m *market) request(u user, spec *jobv1.JobSpec) *schedulerv1.SubmitJobRequest {
	m.t.Helper()
	revision, id, err := job.Sign(u.key, spec)
	if err != nil {
		m.t.Fatal(err)
	}
	m.ledger.Fund(&scheduler.Job{ID: id, Owner: u.id})
	return &schedulerv1.SubmitJobRequest{Revision: revision, Escrow: id[:]}
}

func (m *market) submit(u user, n int) []byte {
	m.t.Helper()
	r, err := u.SubmitJob(m.t.Context(), m.request(u, u.spec(n)))
	if err != nil {
		m.t.Fatal(err)
	}
	return r.GetJob()
}

func (m *market) host(seed byte) eventtest.Instance {
	return eventtest.NewOperator(seed).Instance(m.t, "executor")
}

// offer is a good offer of a host.
func (m *market) offer(h eventtest.Instance, coreHour uint64) *marketv1.Offer {
	m.t.Helper()
	c := &identityv1.Certificate{}
	if err := canon.Unmarshal(h.Certificate, c); err != nil {
		m.t.Fatal(err)
	}
	key := h.Key.Public()
	size := &jobv1.Resources{CpuMilli: 4000, Memory: 8 << 30, Disk: 1 << 40}
	return &marketv1.Offer{
		Executor: key[:], Payee: h.Cert.Operator[:], Operator: h.Cert.Operator[:],
		Expires: uint64(time.Now().Add(5 * time.Minute).UnixMilli()),
		Prices:  &jobv1.Prices{Model: jobv1.PriceModel_PRICE_MODEL_LINEAR, CoreHour: coreHour},
		Free:    size, Total: size, Platforms: []string{"linux/amd64"}, Host: "host",
		Isolation:   []jobv1.Isolation{jobv1.Isolation_ISOLATION_STANDARD},
		Chains:      []*marketv1.AcceptedChain{{Chain: "main"}},
		Certificate: c,
	}
}

// tell brings an event of a host to the scheduler, as its consumer does once it is verified.
func (m *market) tell(h eventtest.Instance, topic event.Topic, kind string, p proto.Message) error {
	m.t.Helper()
	e, err := event.New(m.t.Context(), time.Now(), topic, kind, p)
	if err != nil {
		m.t.Fatal(err)
	}
	line := event.Line{Instance: h.Key.Public(), Topic: topic}
	head := m.heads[line]
	signed := h.Sign(m.t, e, head)
	m.heads[line] = event.Head{Epoch: 1, Seq: head.Seq + 1, Hash: signed.Hash}
	return m.handle(m.t.Context(), event.Incoming{
		Envelope: signed, Operator: h.Cert.Operator, Service: "executor",
	})
}

// post brings a good offer, which the host knows.
func (m *market) post(h eventtest.Instance, o *marketv1.Offer) {
	m.t.Helper()
	raw, err := canon.Marshal(o)
	if err != nil {
		m.t.Fatal(err)
	}
	m.hosts.Know(&scheduler.Offer{
		Host:  scheduler.Host{Executor: h.Key.Public()},
		Payee: sig.AccountID(o.GetPayee()), Hash: sha256.Sum256(raw),
		Prices: price.PricesFromPB(o.GetPrices()),
	})
	if err := m.tell(h, event.TopicMarket, "offer.posted", o); err != nil {
		m.t.Fatal(err)
	}
}

// watch reads a job's changes until it is in the state, which it returns.
func (m *market) watch(u user, id []byte, want jobv1.State) *schedulerv1.Job {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 20*time.Second)
	defer cancel()
	stream, err := u.WatchJob(ctx, &schedulerv1.WatchJobRequest{Job: id})
	if err != nil {
		m.t.Fatal(err)
	}
	for {
		r, err := stream.Recv()
		if err != nil {
			m.t.Fatalf("the job did not come to %s: %v", want, err)
		}
		if r.GetJob().GetState() == want {
			return r.GetJob()
		}
	}
}

// signal is a channel that is closed once.
type signal struct {
	once sync.Once
	ch   chan struct{}
}

func newSignal() *signal { return &signal{ch: make(chan struct{})} }

func (s *signal) give() { s.once.Do(func() { close(s.ch) }) }

func (s *signal) await(t *testing.T) {
	t.Helper()
	select {
	case <-s.ch:
	case <-time.After(20 * time.Second):
		t.Fatal("it did not happen")
	}
}
