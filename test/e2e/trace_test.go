package e2e

import (
	"bytes"
	"net/http"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/kit/telemetry"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/executor/executortest"
	"github.com/united-containers/ucn/test/stage"
)

// oneTrace: a job that is submitted through the gateway is one trace over all services. Its image
// is new, so that it has to be fetched.
func oneTrace(t *testing.T, s *scene) {
	own := &scene{Network: s.Network, image: executortest.GuestImage(t, "traced "+t.Name())}
	u := own.user(t)
	ctx, span := u.Tracer().Start(u.ctx, "job")
	f := u.job("out", "x", "write", "/out/a", "traced")
	f.Outputs = append(f.Outputs, output("/out"))
	u.ctx = ctx
	j := u.sign(f)
	u.submitREST(j)
	r, v := u.runner()
	report, err := r.Attach(ctx, j.id, jobrun.Request{File: f})
	if err != nil {
		t.Fatalf("%v\n%s", err, v)
	}
	span.End()
	if !report.Completed() {
		t.Fatalf("it ended %q, %q\n%s", report.Result, report.Reason, v)
	}
	id := span.SpanContext().TraceID().String()
	if report.TraceID != id {
		t.Errorf("the report names trace %s, it is %s", report.TraceID, id)
	}
	want := []string{"cli", "gateway", "ledger", "scheduler", "executor", "storage"}
	if s.Services == nil {
		want = append(want, "front") // all services of one listener
	}
	missing := func(spans []stage.Span) (out []string) {
		for _, service := range want {
			if !slices.ContainsFunc(spans, func(s stage.Span) bool { return s.Service == service }) {
				out = append(out, service)
			}
		}
		return out
	}
	spans := s.Spans.Await(ctx, id, func(list []stage.Span) bool { return len(missing(list)) == 0 })
	if lost := missing(spans); len(lost) != 0 {
		t.Errorf("no span of %v among %d", lost, len(spans))
	}
	for _, name := range []string{"executor.run", "executor.charge", "scheduler.place"} {
		if !slices.ContainsFunc(spans, func(s stage.Span) bool { return s.Name == name }) {
			t.Errorf("no span %s", name)
		}
	}
}

// submitREST opens the escrow and submits the job through the gateway.
func (u *user) submitREST(j signed) {
	u.t.Helper()
	escrow := u.openEscrow(j.id)
	body, err := protojson.Marshal(&schedulerv1.SubmitJobRequest{
		Revision: j.revision, Escrow: escrow[:], StorageToken: j.token,
		Delivery: schedulerv1.Delivery_DELIVERY_CLIENT,
	})
	if err != nil {
		u.t.Fatal(err)
	}
	token, err := u.Token(u.Operator, time.Hour, "job")
	if err != nil {
		u.t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(u.ctx, http.MethodPost, u.scene.File.REST+"/v1/jobs",
		bytes.NewReader(body))
	if err != nil {
		u.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Traceparent", telemetry.Inject(u.ctx))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		u.t.Fatal(err)
	}
	defer response.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(response.Body); err != nil {
		u.t.Fatal(err)
	}
	var answer schedulerv1.SubmitJobResponse
	err = protojson.Unmarshal(text.Bytes(), &answer)
	if err != nil || response.StatusCode != http.StatusOK || job.ID(answer.GetJob()) != j.id {
		u.t.Fatalf("status %d, %v: %s", response.StatusCode, err, text.String())
	}
}
