package server_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/event/eventtest"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/server"
)

// status is what a host reports of the job's newest attempt.
func status(j *schedulerv1.Job, s jobv1.State, o *jobv1.Outcome) *jobv1.AttemptStatus {
	r := j.GetRuns()[len(j.GetRuns())-1]
	a := r.GetAttempts()[len(r.GetAttempts())-1]
	return &jobv1.AttemptStatus{
		Job: j.GetId(), Run: r.GetId(), Attempt: a.GetId(), State: s, Reason: "told by the host",
		Time: uint64(time.Now().UnixMilli()), Outcome: o,
	}
}

func (m *market) report(
	h eventtest.Instance, j *schedulerv1.Job, s jobv1.State, o *jobv1.Outcome,
) {
	m.t.Helper()
	if err := m.tell(h, event.TopicJob, "attempt.changed", status(j, s, o)); err != nil {
		m.t.Fatal(err)
	}
}

// wantSpans checks that spans of these names are in the trace.
func (m *market) wantSpans(in trace.TraceID, names ...string) {
	m.t.Helper()
	for _, name := range names {
		found := false
		for _, s := range m.telemetry.Spans() {
			found = found || s.Name == name && s.SpanContext.TraceID() == in
		}
		if !found {
			m.t.Errorf("no span %s in the trace of the submission", name)
		}
	}
}

func TestForgedOffers(t *testing.T) {
	m := newMarket(t)
	h, other := m.host(7), m.host(8)
	tests := map[string]func(o *marketv1.Offer){
		"other executor":     func(o *marketv1.Offer) { o.Executor = m.offer(other, 1).Executor },
		"other operator":     func(o *marketv1.Offer) { o.Operator = m.offer(other, 1).Operator },
		"other certificate":  func(o *marketv1.Offer) { o.Certificate = m.offer(other, 1).Certificate },
		"no certificate":     func(o *marketv1.Offer) { o.Certificate = nil },
		"certificate forged": func(o *marketv1.Offer) { o.Certificate.Body.SealKey[0] ^= 1 },
		"payee":              func(o *marketv1.Offer) { o.Payee = o.Payee[1:] },
		"price model":        func(o *marketv1.Offer) { o.Prices.Model = 9 },
		"no prices":          func(o *marketv1.Offer) { o.Prices = nil },
		"model not built": func(o *marketv1.Offer) {
			o.Prices.Model = jobv1.PriceModel_PRICE_MODEL_CFPS
		},
		"price unused":    func(o *marketv1.Offer) { o.Prices.CfpsHour = 1 },
		"more than total": func(o *marketv1.Offer) { o.Total = &jobv1.Resources{CpuMilli: 1} },
		"too many images": func(o *marketv1.Offer) { o.Images = make([]string, 1001) },
		"too long a name": func(o *marketv1.Offer) { o.Host = strings.Repeat("x", 129) },
	}
	for name, spoil := range tests {
		o := m.offer(h, 1000)
		spoil(o)
		err := m.tell(h, event.TopicMarket, "offer.posted", o)
		if !errors.Is(err, event.ErrRefused) {
			t.Errorf("%s: %v, want it refused for good", name, err)
		}
	}
	for name, spoil := range map[string]func(o *marketv1.Offer){ // well-formed, and worth nothing
		"expired":        func(o *marketv1.Offer) { o.Expires = 1 },
		"stands forever": func(o *marketv1.Offer) { o.Expires = 1<<64 - 1 },
	} {
		o := m.offer(h, 1000)
		spoil(o)
		if err := m.tell(h, event.TopicMarket, "offer.posted", o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	r, err := m.user(1).ListOffers(t.Context(), &schedulerv1.ListOffersRequest{})
	if err != nil || len(r.GetOffers()) != 0 {
		t.Errorf("offers %v, %v, want none", r.GetOffers(), err)
	}
}

func TestForgedReports(t *testing.T) {
	m := newMarket(t)
	alice, h, other := m.user(1, "job"), m.host(7), m.host(8)
	id := m.submit(alice, 1)
	m.post(h, m.offer(h, 1000))
	j := m.watch(alice, id, jobv1.State_STATE_LEASED)
	running := func() *jobv1.AttemptStatus { return status(j, jobv1.State_STATE_RUNNING, nil) }
	refused := map[string]func(s *jobv1.AttemptStatus){
		"job id":       func(s *jobv1.AttemptStatus) { s.Job = s.Job[1:] },
		"run id":       func(s *jobv1.AttemptStatus) { s.Run = append(s.Run, 1) },
		"attempt id":   func(s *jobv1.AttemptStatus) { s.Attempt = nil },
		"pending":      func(s *jobv1.AttemptStatus) { s.State = jobv1.State_STATE_PENDING },
		"no state":     func(s *jobv1.AttemptStatus) { s.State = 0 },
		"strange":      func(s *jobv1.AttemptStatus) { s.State = 200 },
		"no outcome":   func(s *jobv1.AttemptStatus) { s.State = jobv1.State_STATE_ENDED },
		"far ahead":    func(s *jobv1.AttemptStatus) { s.Time = 1 << 62 },
		"beyond years": func(s *jobv1.AttemptStatus) { s.Time = 1<<64 - 1 },
		"a novel": func(s *jobv1.AttemptStatus) {
			s.Outcome = &jobv1.Outcome{LogCid: strings.Repeat("x", 130<<10)}
		},
	}
	for name, spoil := range refused {
		s := running()
		spoil(s)
		if err := m.tell(h, event.TopicJob, "attempt.changed", s); !errors.Is(err, event.ErrRefused) {
			t.Errorf("%s: %v, want it refused for good", name, err)
		}
	}
	if err := m.tell(other, event.TopicJob, "attempt.changed", running()); err != nil {
		t.Errorf("another host's report: %v, want it passed over", err)
	}
	if err := m.tell(h, event.TopicJob, "attempt.other", running()); err != nil {
		t.Errorf("another type of event: %v, want it passed over", err)
	}
	got, err := alice.GetJob(t.Context(), &schedulerv1.GetJobRequest{Job: id})
	if err != nil || got.GetJob().GetState() != jobv1.State_STATE_LEASED {
		t.Errorf("after forged reports %v, %v, want it still leased", got.GetJob().GetState(), err)
	}
	if err := m.tell(h, event.TopicJob, "attempt.changed", running()); err != nil {
		t.Fatal(err)
	}
	m.watch(alice, id, jobv1.State_STATE_RUNNING)
}

// TestHeldPrograms: what a host says of a program that it keeps is told with the attempt, and who
// keeps one that nobody waits for is told to stop it.
func TestHeldPrograms(t *testing.T) {
	m := newMarket(t)
	alice, h := m.user(1, "job"), m.host(7)
	id := m.submit(alice, 1)
	m.post(h, m.offer(h, 1000))
	j := m.watch(alice, id, jobv1.State_STATE_LEASED)
	held := status(j, jobv1.State_STATE_RUNNING, nil)
	held.HeldUntil = uint64(time.Now().Add(time.Minute).UnixMilli())
	stored, err := m.store.Job(t.Context(), job.ID(id))
	if err != nil {
		t.Fatal(err)
	}
	a := stored.Runs[0].Current() // as it is once another was leased in its place
	a.State, a.End, a.Kept, a.Continues = scheduler.Ended, scheduler.HostLost, true,
		scheduler.AttemptID{5}
	stored.Runs[0].State = scheduler.Pending
	if err := m.store.Save(t.Context(), scheduler.Change{Job: stored}); err != nil {
		t.Fatal(err)
	}
	if err := m.tell(h, event.TopicJob, "attempt.changed", held); err != nil {
		t.Fatal(err)
	}
	got, err := alice.GetJob(t.Context(), &schedulerv1.GetJobRequest{Job: id})
	if err != nil {
		t.Fatal(err)
	}
	told := got.GetJob().GetRuns()[0].GetAttempts()[0]
	if !told.GetKept() || len(told.GetContinues()) != 16 ||
		told.GetStatus().GetHeldUntil() != held.GetHeldUntil() {
		t.Errorf("told is %v", told)
	}
	stops := make(chan scheduler.AttemptID, 1)
	m.hosts.OnStop = func(_ scheduler.Host, s scheduler.Stop) error {
		stops <- s.Attempt
		return nil
	}
	held.Attempt = bytes.Repeat([]byte{7}, 16)
	if err := m.tell(h, event.TopicJob, "attempt.changed", held); err != nil {
		t.Fatal(err)
	}
	if stopped := <-stops; stopped != scheduler.AttemptID(held.GetAttempt()) {
		t.Errorf("stopped %x", stopped)
	}
}

// TestStoreFailureStopsTheConsumer: the event comes again once the disk is well.
func TestStoreFailureStopsTheConsumer(t *testing.T) {
	m := newMarket(t)
	alice, h := m.user(1, "job"), m.host(7)
	id := m.submit(alice, 1)
	m.post(h, m.offer(h, 1000))
	j := m.watch(alice, id, jobv1.State_STATE_LEASED)
	full := errors.New("disk full")
	m.store.SetFail(full)
	s := status(j, jobv1.State_STATE_RUNNING, nil)
	err := m.tell(h, event.TopicJob, "attempt.changed", s)
	if err == nil || errors.Is(err, event.ErrRefused) {
		t.Errorf("with a full disk: %v, want an error that may pass", err)
	}
	m.store.SetFail(nil)
	if err := m.tell(h, event.TopicJob, "attempt.changed", s); err != nil {
		t.Fatal(err)
	}
	m.watch(alice, id, jobv1.State_STATE_RUNNING)
}

func TestListOffers(t *testing.T) {
	m := newMarket(t)
	prices := []uint64{500, 100, 300, 200, 400}
	for i, price := range prices {
		h := m.host(byte(10 + i))
		m.post(h, m.offer(h, price))
	}
	anybody := m.user(1)
	for _, size := range []uint32{0, 1, 2, 5} {
		var got []uint64
		r := &schedulerv1.ListOffersRequest{PageSize: size}
		for {
			page, err := anybody.ListOffers(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range page.GetOffers() {
				got = append(got, o.GetOffer().GetPrices().GetCoreHour())
				if len(o.GetHash()) != 32 {
					t.Errorf("a hash of %d bytes", len(o.GetHash()))
				}
			}
			if r.PageToken = page.GetNextPageToken(); r.PageToken == "" {
				break
			}
		}
		for i := range got {
			if got[i] != uint64(100*(i+1)) {
				t.Errorf("pages of %d: %v, want cheapest first", size, got)
				break
			}
		}
		if len(got) != len(prices) {
			t.Errorf("pages of %d: %d offers, want %d", size, len(got), len(prices))
		}
	}
	for _, text := range []string{"garbage!", "00", "AAAA"} {
		_, err := anybody.ListOffers(t.Context(), &schedulerv1.ListOffersRequest{PageToken: text})
		if !errors.Is(err, server.ReasonBadRequest) {
			t.Errorf("page token %q: %v", text, err)
		}
	}
	page, err := anybody.ListOffers(t.Context(), &schedulerv1.ListOffersRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = anybody.ListOffers(t.Context(), &schedulerv1.ListOffersRequest{
		Operator: page.GetOffers()[0].GetOffer().GetOperator(), PageToken: page.GetNextPageToken(),
	})
	if !errors.Is(err, server.ReasonOtherQuery) {
		t.Errorf("the page of all offers at those of one operator: %v", err)
	}
}

// TestListOffersOfOne: an operator finds its hosts, one host is found by its key, also after its
// offer has ended.
func TestListOffersOfOne(t *testing.T) {
	m := newMarket(t)
	own, other, gone := m.host(10), m.host(11), m.host(12)
	m.post(own, m.offer(own, 500))
	m.post(other, m.offer(other, 100))
	lapsing := m.offer(gone, 300)
	lapsing.Expires = uint64(time.Now().Add(time.Second).UnixMilli())
	m.post(gone, lapsing)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for listed := true; listed; <-ticker.C {
		r, err := m.user(1).ListOffers(t.Context(),
			&schedulerv1.ListOffersRequest{Operator: gone.Cert.Operator[:]})
		if listed = len(r.GetOffers()) > 0; err != nil {
			t.Fatal(err)
		}
	}
	a, b, c := own.Cert, other.Cert, gone.Cert
	nobody := make([]byte, 32)
	for name, tt := range map[string]struct {
		request *schedulerv1.ListOffersRequest
		want    []uint64
	}{
		"of an operator": {&schedulerv1.ListOffersRequest{Operator: a.Operator[:]}, []uint64{500}},
		"of nobody":      {&schedulerv1.ListOffersRequest{Operator: nobody}, nil},
		"one host":       {&schedulerv1.ListOffersRequest{Executor: b.InstanceKey[:]}, []uint64{100}},
		"one that lapsed": {&schedulerv1.ListOffersRequest{Executor: c.InstanceKey[:]},
			[]uint64{300}},
		"no host": {&schedulerv1.ListOffersRequest{Executor: nobody}, nil},
		"its operator's": {&schedulerv1.ListOffersRequest{Executor: b.InstanceKey[:],
			Operator: b.Operator[:]}, []uint64{100}},
		"another's": {&schedulerv1.ListOffersRequest{Executor: b.InstanceKey[:],
			Operator: a.Operator[:]}, nil},
	} {
		r, err := m.user(1).ListOffers(t.Context(), tt.request)
		var got []uint64
		for _, o := range r.GetOffers() {
			got = append(got, o.GetOffer().GetPrices().GetCoreHour())
		}
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, tt.want)
		}
	}
	for _, bad := range []*schedulerv1.ListOffersRequest{
		{Operator: nobody[1:]}, {Executor: append(nobody, 1)}, {Executor: []byte{1}},
	} {
		_, err := m.user(1).ListOffers(t.Context(), bad)
		if !errors.Is(err, server.ReasonBadRequest) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
