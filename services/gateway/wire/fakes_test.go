package wire_test

import (
	"bytes"
	"context"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/token"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// calls is what the services were asked.
type calls struct {
	mu  sync.Mutex // guards all
	all []called
	err error // what every later call fails with

	called chan struct{} // closed by the next call of the faucet, which then takes slowTime
}

// slowTime is long enough for a gateway to see that its client has left.
const slowTime = 300 * time.Millisecond

// slowNext makes the next call of the faucet slow and returns what it closes when it has begun.
func (c *calls) slowNext() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.called = make(chan struct{})
	return c.called
}

func (c *calls) slow() chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	called := c.called
	c.called = nil
	return called
}

type called struct {
	method  string
	request proto.Message
	account [32]byte
	origin  string // where it comes from, as the service believes
}

func (c *calls) note(ctx context.Context, method string, m proto.Message) error {
	caller, _ := rpc.CallerFrom(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, called{method, m, caller.Account, rpc.CallOrigin(ctx)})
	return c.err
}

func (c *calls) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// take returns what was asked since the last time.
func (c *calls) take() []called {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.all
	c.all = nil
	return out
}

// fakeLedger notes and answers with something to recognise.
type fakeLedger struct {
	ledgerv1.UnimplementedLedgerServiceServer
	calls  *calls
	result atomic.Pointer[ledgerv1.SubmitResult] // of each transaction
}

func (f *fakeLedger) GetChain(
	ctx context.Context, m *ledgerv1.GetChainRequest,
) (*ledgerv1.GetChainResponse, error) {
	return &ledgerv1.GetChainResponse{Trust: "everyone"}, f.calls.note(ctx, "GetChain", m)
}

func (f *fakeLedger) Submit(
	ctx context.Context, m *ledgerv1.SubmitRequest,
) (*ledgerv1.SubmitResponse, error) {
	return &ledgerv1.SubmitResponse{Result: f.result.Load()}, f.calls.note(ctx, "Submit", m)
}

func (f *fakeLedger) GetAccount(
	ctx context.Context, m *ledgerv1.GetAccountRequest,
) (*ledgerv1.GetAccountResponse, error) {
	return &ledgerv1.GetAccountResponse{Id: m.Account, Height: 7, PendingNonce: 9},
		f.calls.note(ctx, "GetAccount", m)
}

func (f *fakeLedger) GetEscrow(
	ctx context.Context, m *ledgerv1.GetEscrowRequest,
) (*ledgerv1.GetEscrowResponse, error) {
	return &ledgerv1.GetEscrowResponse{}, f.calls.note(ctx, "GetEscrow", m)
}

func (f *fakeLedger) GetLease(
	ctx context.Context, m *ledgerv1.GetLeaseRequest,
) (*ledgerv1.GetLeaseResponse, error) {
	return &ledgerv1.GetLeaseResponse{}, f.calls.note(ctx, "GetLease", m)
}

func (f *fakeLedger) GetLeases(
	ctx context.Context, m *ledgerv1.GetLeasesRequest,
) (*ledgerv1.GetLeasesResponse, error) {
	return &ledgerv1.GetLeasesResponse{}, f.calls.note(ctx, "GetLeases", m)
}

func (f *fakeLedger) GetTransaction(
	ctx context.Context, m *ledgerv1.GetTransactionRequest,
) (*ledgerv1.GetTransactionResponse, error) {
	return &ledgerv1.GetTransactionResponse{}, f.calls.note(ctx, "GetTransaction", m)
}

func (f *fakeLedger) RequestFaucet(
	ctx context.Context, m *ledgerv1.RequestFaucetRequest,
) (*ledgerv1.RequestFaucetResponse, error) {
	err := f.calls.note(ctx, "RequestFaucet", m)
	if called := f.calls.slow(); called != nil {
		close(called)
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(slowTime):
		}
	}
	return &ledgerv1.RequestFaucetResponse{}, err
}

// fakeScheduler has one job, which the test changes.
type fakeScheduler struct {
	schedulerv1.UnimplementedSchedulerServiceServer
	calls *calls

	mu      sync.Mutex // guards what follows
	offers  []*schedulerv1.PostedOffer
	job     *schedulerv1.Job
	changed chan struct{} // closed when job changes
}

func newFakeScheduler(c *calls) *fakeScheduler {
	return &fakeScheduler{calls: c, job: &schedulerv1.Job{}, changed: make(chan struct{})}
}

// set changes the job.
func (f *fakeScheduler) set(job *schedulerv1.Job) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.job = job
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeScheduler) now() (*schedulerv1.Job, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.job, f.changed
}

func (f *fakeScheduler) GetScheduler(
	ctx context.Context, m *schedulerv1.GetSchedulerRequest,
) (*schedulerv1.GetSchedulerResponse, error) {
	return &schedulerv1.GetSchedulerResponse{}, f.calls.note(ctx, "GetScheduler", m)
}

func (f *fakeScheduler) SubmitJob(
	ctx context.Context, m *schedulerv1.SubmitJobRequest,
) (*schedulerv1.SubmitJobResponse, error) {
	return &schedulerv1.SubmitJobResponse{}, f.calls.note(ctx, "SubmitJob", m)
}

func (f *fakeScheduler) GetJob(
	ctx context.Context, m *schedulerv1.GetJobRequest,
) (*schedulerv1.GetJobResponse, error) {
	job, _ := f.now()
	return &schedulerv1.GetJobResponse{Job: job}, f.calls.note(ctx, "GetJob", m)
}

func (f *fakeScheduler) ListJobs(
	ctx context.Context, m *schedulerv1.ListJobsRequest,
) (*schedulerv1.ListJobsResponse, error) {
	out := &schedulerv1.ListJobsResponse{}
	if m.GetPageToken() == "" {
		out.NextPageToken = "more"
	}
	return out, f.calls.note(ctx, "ListJobs", m)
}

func (f *fakeScheduler) CancelJob(
	ctx context.Context, m *schedulerv1.CancelJobRequest,
) (*schedulerv1.CancelJobResponse, error) {
	return &schedulerv1.CancelJobResponse{}, f.calls.note(ctx, "CancelJob", m)
}

func (f *fakeScheduler) UpdateJob(
	ctx context.Context, m *schedulerv1.UpdateJobRequest,
) (*schedulerv1.UpdateJobResponse, error) {
	return &schedulerv1.UpdateJobResponse{}, f.calls.note(ctx, "UpdateJob", m)
}

func (f *fakeScheduler) ListRuns(
	ctx context.Context, m *schedulerv1.ListRunsRequest,
) (*schedulerv1.ListRunsResponse, error) {
	return &schedulerv1.ListRunsResponse{}, f.calls.note(ctx, "ListRuns", m)
}

func (f *fakeScheduler) ListTasks(
	ctx context.Context, m *schedulerv1.ListTasksRequest,
) (*schedulerv1.ListTasksResponse, error) {
	return &schedulerv1.ListTasksResponse{}, f.calls.note(ctx, "ListTasks", m)
}

func (f *fakeScheduler) GetMarket(
	ctx context.Context, m *schedulerv1.GetMarketRequest,
) (*schedulerv1.GetMarketResponse, error) {
	return &schedulerv1.GetMarketResponse{}, f.calls.note(ctx, "GetMarket", m)
}

func (f *fakeScheduler) WatchJob(
	m *schedulerv1.WatchJobRequest, s grpc.ServerStreamingServer[schedulerv1.WatchJobResponse],
) error {
	if err := f.calls.note(s.Context(), "WatchJob", m); err != nil {
		return err
	}
	for {
		job, changed := f.now()
		if err := s.Send(&schedulerv1.WatchJobResponse{Job: job}); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

// fakeStorage holds blobs in memory.
type fakeStorage struct {
	storagev1.UnimplementedStorageServiceServer
	calls *calls

	mu   sync.Mutex // guards held
	held map[string][]byte
	lie  bool // the bytes sent are not those that were put
	// at says what stands at a path, and its bytes, in place of the truth; nil follows the path.
	at func(path string) (cid.CID, []byte)
}

var errNoBlob = fault.New(fault.NotFound, "BLOB_NOT_FOUND", "nobody holds it")

func (f *fakeStorage) get(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, held := f.held[name]
	if !held {
		return nil, errNoBlob
	}
	return data, nil
}

// add holds data and returns its CID.
func (f *fakeStorage) add(t *testing.T, kind cid.Kind, data []byte) cid.CID {
	t.Helper()
	named, _, err := cid.Sum(kind, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held[named.String()] = data
	return named
}

func (f *fakeStorage) Put(
	s grpc.ClientStreamingServer[storagev1.PutRequest, storagev1.PutResponse],
) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	if err := f.calls.note(s.Context(), "Put", first); err != nil {
		return err
	}
	var data bytes.Buffer
	for {
		m, err := s.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		data.Write(m.GetChunk())
	}
	kind := cid.File
	if first.GetHeader().GetKind() == storagev1.Kind_KIND_OCI_BLOB {
		kind = cid.OCIBlob
	}
	named, size, err := cid.Sum(kind, bytes.NewReader(data.Bytes()))
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held[named.String()] = data.Bytes()
	return s.SendAndClose(&storagev1.PutResponse{Cid: named.String(), Size: uint64(size)})
}

func (f *fakeStorage) Get(
	m *storagev1.GetRequest, s grpc.ServerStreamingServer[storagev1.GetResponse],
) error {
	if err := f.calls.note(s.Context(), "Get", m); err != nil {
		return err
	}
	named, data, err := f.resolve(m.Cid, m.Path)
	if err != nil {
		return err
	}
	length := m.Length
	if length == 0 {
		length = uint64(len(data)) - m.Offset
	}
	part := bytes.Clone(data[m.Offset : m.Offset+length])
	if m.Encoding == storagev1.Encoding_ENCODING_BAO_SLICE {
		if part, err = slice(s.Context(), data, int64(m.Offset), int64(length)); err != nil {
			return err
		}
	}
	if f.lie {
		part[len(part)-1] ^= 1
	}
	head := &storagev1.GetHeader{
		Reference: &storagev1.Reference{Cid: named.String(), Size: uint64(len(data))},
		Offset:    m.Offset, Length: length,
	}
	err = s.Send(&storagev1.GetResponse{Part: &storagev1.GetResponse_Header{Header: head}})
	const chunk = 100_000
	for len(part) > 0 && err == nil {
		n := min(chunk, len(part))
		err = s.Send(&storagev1.GetResponse{Part: &storagev1.GetResponse_Chunk{Chunk: part[:n]}})
		part = part[n:]
	}
	return err
}

// slice encodes a range as the real service does.
func slice(ctx context.Context, data []byte, offset, length int64) ([]byte, error) {
	var h cid.Hasher
	_, _ = h.Write(data)
	outboard := make(board, cid.OutboardSize(int64(len(data))))
	root, err := h.Finish(outboard)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	tree := cid.Tree{
		Data: bytes.NewReader(data), Outboard: bytes.NewReader(outboard),
		Size: int64(len(data)), Root: root,
	}
	err = tree.CopySlice(ctx, &out, offset, length)
	return out.Bytes(), err
}

type board []byte

func (b board) WriteAt(p []byte, at int64) (int, error) { return copy(b[at:], p), nil }

func (f *fakeStorage) Stat(
	ctx context.Context, m *storagev1.StatRequest,
) (*storagev1.StatResponse, error) {
	if err := f.calls.note(ctx, "Stat", m); err != nil {
		return nil, err
	}
	named, data, err := f.resolve(m.Cid, m.Path)
	return &storagev1.StatResponse{Reference: &storagev1.Reference{
		Cid: named.String(), Size: uint64(len(data)), Name: "picture",
	}}, err
}

func (f *fakeStorage) List(
	ctx context.Context, m *storagev1.ListRequest,
) (*storagev1.ListResponse, error) {
	return &storagev1.ListResponse{}, f.calls.note(ctx, "List", m)
}

func (f *fakeStorage) ListEvents(
	ctx context.Context, m *storagev1.ListEventsRequest,
) (*storagev1.ListEventsResponse, error) {
	return &storagev1.ListEventsResponse{}, f.calls.note(ctx, "ListEvents", m)
}

func (f *fakeStorage) Usage(
	ctx context.Context, m *storagev1.UsageRequest,
) (*storagev1.UsageResponse, error) {
	return &storagev1.UsageResponse{}, f.calls.note(ctx, "Usage", m)
}

func (f *fakeStorage) Remove(
	ctx context.Context, m *storagev1.RemoveRequest,
) (*storagev1.RemoveResponse, error) {
	return &storagev1.RemoveResponse{}, f.calls.note(ctx, "Remove", m)
}

// fakeHost answers executor.v1/Logs and Stats on the bus as the test says.
type fakeHost struct {
	eventtest.Instance
	calls *calls

	mu    sync.Mutex // guards what follows
	logs  func(context.Context, *executorv1.LogsRequest, func(*executorv1.LogChunk) error) error
	stats func(*executorv1.StatsRequest) (*executorv1.StatsResponse, error)
	fault error // what the operator's calls fail with
}

// startHost starts a host of an operator.
func startHost(t *testing.T, w *world, b *broker.Broker, of eventtest.Operator) *fakeHost {
	t.Helper()
	h := &fakeHost{Instance: of.Instance(t, "executor"), calls: w.calls}
	conn, err := b.Connect("executor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	told := w.told.MustService(t, "executor")
	server, err := bus.NewServer(conn, h.Identity, bus.Authenticator{
		Tokens:    &token.Verifier{Audience: h.Cert.Operator, Chains: []string{eventtest.Chain}},
		Instances: cert.Verifier{Chains: []string{eventtest.Chain}},
	}, bus.Options{Tracer: told.Tracers.Tracer("test")})
	if err != nil {
		t.Fatal(err)
	}
	bus.ServerStream(server, "executor.v1/Logs", func(
		ctx context.Context, m *executorv1.LogsRequest, send func(*executorv1.LogChunk) error,
	) error {
		if err := h.calls.note(ctx, "Logs", m); err != nil {
			return err
		}
		h.mu.Lock()
		logs := h.logs
		h.mu.Unlock()
		return logs(ctx, m, send)
	})
	bus.Unary(server, "executor.v1/Stats", func(
		ctx context.Context, m *executorv1.StatsRequest,
	) (*executorv1.StatsResponse, error) {
		if err := h.calls.note(ctx, "Stats", m); err != nil {
			return nil, err
		}
		h.mu.Lock()
		stats := h.stats
		h.mu.Unlock()
		return stats(m)
	})
	h.operated(server)
	kittest.Run(t, server)
	return h
}

func (h *fakeHost) uses(stats func(*executorv1.StatsRequest) (*executorv1.StatsResponse, error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stats = stats
}

func (h *fakeHost) answer(
	logs func(context.Context, *executorv1.LogsRequest, func(*executorv1.LogChunk) error) error,
) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.logs = logs
}
