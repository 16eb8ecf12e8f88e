package server_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/fault"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/scheduler/server"
)

// names of an owner's jobs as they are listed, page by page.
func (u user) names(t *testing.T, r *schedulerv1.ListJobsRequest) (names []string) {
	t.Helper()
	for {
		page, err := u.ListJobs(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range page.GetJobs() {
			names = append(names, j.GetRevision().GetRevision().GetSpec().GetName())
		}
		if r.PageToken = page.GetNextPageToken(); r.PageToken == "" {
			return names
		}
	}
}

func TestFilters(t *testing.T) {
	m := newMarket(t)
	alice := m.user(1, "job")
	var submitted []uint64
	for n, name := range []string{"render-1", "render-2", "train-1"} {
		spec := alice.spec(n)
		spec.Name = name
		r, err := alice.SubmitJob(t.Context(), m.request(alice, spec))
		if err != nil {
			t.Fatal(err)
		}
		j, err := alice.GetJob(t.Context(), &schedulerv1.GetJobRequest{Job: r.GetJob()})
		if err != nil {
			t.Fatal(err)
		}
		submitted = append(submitted, j.GetJob().GetSubmitted())
		for time.Now().UnixMilli() <= int64(submitted[n]) {
			continue // the next one is of another ms
		}
		if n != 1 {
			continue
		}
		cancel := &schedulerv1.CancelJobRequest{Job: r.GetJob(), Reason: "Enough of it"}
		if _, err := alice.CancelJob(t.Context(), cancel); err != nil {
			t.Fatal(err)
		}
	}
	ended, pending := jobv1.State_STATE_ENDED, jobv1.State_STATE_PENDING
	for name, tt := range map[string]struct {
		r    *schedulerv1.ListJobsRequest
		want []string
	}{
		"all": {&schedulerv1.ListJobsRequest{}, []string{"train-1", "render-2", "render-1"}},
		"oldest": {&schedulerv1.ListJobsRequest{Order: schedulerv1.Order_ORDER_OLDEST},
			[]string{"render-1", "render-2", "train-1"}},
		"states": {&schedulerv1.ListJobsRequest{States: []jobv1.State{pending, ended}},
			[]string{"train-1", "render-2", "render-1"}},
		"state": {&schedulerv1.ListJobsRequest{State: pending}, []string{"train-1", "render-1"}},
		"end": {&schedulerv1.ListJobsRequest{EndReasons: []jobv1.EndReason{
			jobv1.EndReason_END_REASON_CANCELLED}}, []string{"render-2"}},
		"prefix": {&schedulerv1.ListJobsRequest{NamePrefix: "render"},
			[]string{"render-2", "render-1"}},
		"text":  {&schedulerv1.ListJobsRequest{Text: "ENOUGH"}, []string{"render-2"}},
		"since": {&schedulerv1.ListJobsRequest{Since: submitted[2]}, []string{"train-1"}},
		"until": {&schedulerv1.ListJobsRequest{Until: submitted[1]}, []string{"render-1"}},
		"once": {&schedulerv1.ListJobsRequest{Trigger: schedulerv1.TriggerKind_TRIGGER_KIND_ONCE},
			[]string{"train-1", "render-2", "render-1"}},
		"cron": {&schedulerv1.ListJobsRequest{Trigger: schedulerv1.TriggerKind_TRIGGER_KIND_CRON},
			nil},
		"several": {&schedulerv1.ListJobsRequest{NamePrefix: "render", States: []jobv1.State{pending}},
			[]string{"render-1"}},
	} {
		for _, size := range []uint32{1, 2, 50} {
			tt.r.PageSize, tt.r.PageToken = size, ""
			if got := alice.names(t, tt.r); fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("%s in pages of %d: %v, want %v", name, size, got, tt.want)
			}
		}
	}
}

func TestFiltersAreChecked(t *testing.T) {
	m := newMarket(t)
	alice := m.user(1, "job")
	long := string(make([]byte, 101))
	for name, r := range map[string]*schedulerv1.ListJobsRequest{
		"state":    {States: []jobv1.State{99}},
		"end":      {EndReasons: []jobv1.EndReason{99}},
		"many":     {States: make([]jobv1.State, 17)},
		"prefix":   {NamePrefix: long},
		"text":     {Text: long},
		"trigger":  {Trigger: 99},
		"order":    {Order: 99},
		"backward": {Since: 5, Until: 5},
	} {
		if _, err := alice.ListJobs(t.Context(), r); !errors.Is(err, server.ReasonBadRequest) {
			t.Errorf("%s: %v, want %s", name, err, server.ReasonBadRequest)
		}
	}
}

// TestCursorOfAnotherQuery: a page token goes with the filters, the order and the account.
func TestCursorOfAnotherQuery(t *testing.T) {
	m := newMarket(t)
	alice, bob := m.user(1, "job"), m.user(2, "job")
	for n := range 2 {
		m.submit(alice, n)
	}
	first := &schedulerv1.ListJobsRequest{PageSize: 1, NamePrefix: "ren"}
	page, err := alice.ListJobs(t.Context(), first)
	if err != nil || page.GetNextPageToken() == "" {
		t.Fatalf("first page %v, %v, want a token", page, err)
	}
	token := page.GetNextPageToken()
	for name, ask := range map[string]func() error{
		"other prefix": func() error {
			_, err := alice.ListJobs(t.Context(), &schedulerv1.ListJobsRequest{PageToken: token})
			return err
		},
		"other order": func() error {
			_, err := alice.ListJobs(t.Context(), &schedulerv1.ListJobsRequest{
				NamePrefix: "ren", PageToken: token, Order: schedulerv1.Order_ORDER_OLDEST})
			return err
		},
		"other account": func() error {
			_, err := bob.ListJobs(t.Context(), &schedulerv1.ListJobsRequest{
				NamePrefix: "ren", PageToken: token})
			return err
		},
	} {
		if err := ask(); !errors.Is(err, server.ReasonOtherQuery) {
			t.Errorf("%s: %v, want %s", name, err, server.ReasonOtherQuery)
		}
	}
	again := &schedulerv1.ListJobsRequest{PageSize: 1, NamePrefix: "ren", PageToken: token}
	if _, err := alice.ListJobs(t.Context(), again); err != nil {
		t.Errorf("the same query: %v", err)
	}
}

func TestGetMarket(t *testing.T) {
	m := newMarket(t)
	alice, anybody := m.user(1, "job"), m.user(3)
	var hosts []eventtest.Instance
	for n, price := range []uint64{3000, 1000, 2000} {
		hosts = append(hosts, m.host(byte(7+n)))
		m.post(hosts[n], m.offer(hosts[n], price))
	}
	drains := m.host(20)
	arm := m.offer(drains, 9000)
	arm.Platforms, arm.Draining = []string{"linux/arm64", "bad\x1bname"}, true
	m.post(drains, arm)
	id := m.submit(alice, 1)
	j := m.watch(alice, id, jobv1.State_STATE_LEASED)
	m.report(hosts[1], j, jobv1.State_STATE_ENDED, &jobv1.Outcome{
		Reason: jobv1.EndReason_END_REASON_COMPLETED, Amount: 1 << 60, // more than the budget
		Usage: &jobv1.Usage{WallMs: 1 << 50, CpuNs: 5},
	})
	m.watch(alice, id, jobv1.State_STATE_ENDED)
	r, err := anybody.GetMarket(t.Context(), &schedulerv1.GetMarketRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if r.GetHosts() != 4 || r.GetOperators() != 4 || len(r.GetPlatforms()) != 2 ||
		r.GetTotal().GetCpuMilli() != 16000 || r.GetSettled().GetAttempts() != 1 {
		t.Errorf("market %v", r)
	}
	if got := r.GetSettled().GetAmount(); got > 1_000_000 {
		t.Errorf("settled %d grains, more than the lease's budget", got)
	}
	amd := r.GetPlatforms()[0]
	if amd.GetPlatform() != "linux/amd64" || amd.GetHosts() != 3 ||
		amd.GetBest().GetCoreHour() != 1000 || amd.GetMedian().GetCoreHour() != 2000 ||
		amd.GetSettled().GetAttempts() != 1 {
		t.Errorf("platform %v", amd)
	}
	if p := r.GetPlatforms()[1]; p.GetPlatform() != "linux/arm64" || p.GetBest().GetModel() != 0 {
		t.Errorf("a platform whose hosts drain: %v, want no price", p)
	}
	one, err := anybody.GetMarket(t.Context(), &schedulerv1.GetMarketRequest{Platform: "linux/arm64"})
	if err != nil || len(one.GetPlatforms()) != 1 {
		t.Errorf("one platform: %v, %v", one, err)
	}
	long := &schedulerv1.GetMarketRequest{Platform: string(make([]byte, 65))}
	if _, err := anybody.GetMarket(t.Context(), long); !errors.Is(err, fault.InvalidArgument) {
		t.Errorf("a long platform: %v", err)
	}
}
