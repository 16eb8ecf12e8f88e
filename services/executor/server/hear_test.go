package server

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/kit/fault"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
	"github.com/united-containers/ucn/services/executor"
)

func id32(b byte) []byte { return append(make([]byte, 31), b) }

func goodAsk() *executorv1.AskRequest {
	return &executorv1.AskRequest{
		Revision: &jobv1.SignedRevision{Revision: &jobv1.Revision{Number: 1, Spec: &jobv1.JobSpec{
			Owner: id32(1), Chain: "main", Image: &jobv1.Image{Cid: "c"},
			Env:       []*jobv1.EnvVar{{Name: "A", Value: "1"}},
			Resources: &jobv1.Resources{CpuMilli: 10, Memory: 1 << 30},
			Inputs:    []*jobv1.Input{{Cid: "c", Path: "/in"}},
			Outputs:   []*jobv1.Output{{Path: "/out"}},
			Limits:    &jobv1.Limits{RunTimeMs: 5000},
		}}},
		Run: []byte{1}, Attempt: []byte{2, 3}, OfferHash: id32(4),
		Terms: &marketv1.LeaseTerms{
			Escrow: id32(5), Subject: id32(6), Budget: 7, AckKeys: [][]byte{id32(8)},
		},
	}
}

func TestHeardAsk(t *testing.T) {
	ask, err := heardAsk(goodAsk(), job.ID{9}, executor.Peer{})
	if err != nil {
		t.Fatal(err)
	}
	if ask.Attempt != "0203" || ask.Run != "01" || ask.Terms.Budget != 7 ||
		!slices.Equal(ask.Spec.Env, []string{"A=1"}) || ask.Spec.RunTime.Seconds() != 5 ||
		ask.Spec.Isolation != executor.IsolationStandard || len(ask.Spec.Unserved) != 0 {
		t.Errorf("heard %+v", ask)
	}
	for name, spoil := range map[string]func(m *executorv1.AskRequest){
		"run":        func(m *executorv1.AskRequest) { m.Run = nil },
		"attempt":    func(m *executorv1.AskRequest) { m.Attempt = make([]byte, 33) },
		"offer_hash": func(m *executorv1.AskRequest) { m.OfferHash = id32(4)[1:] },
		"escrow":     func(m *executorv1.AskRequest) { m.Terms = nil },
		"subject":    func(m *executorv1.AskRequest) { m.Terms.Subject = nil },
		"ack_keys":   func(m *executorv1.AskRequest) { m.Terms.AckKeys = [][]byte{{1}} },
		"supersedes": func(m *executorv1.AskRequest) { m.Terms.Supersedes = make([]byte, 31) },
		"owner":      func(m *executorv1.AskRequest) { m.Revision.Revision.Spec.Owner = nil },
		"operators": func(m *executorv1.AskRequest) {
			setPlacement(m, &jobv1.Placement{OperatorsDeny: [][]byte{{1}}})
		},
		"continues":   func(m *executorv1.AskRequest) { m.Continues = make([]byte, 33) },
		"no revision": func(m *executorv1.AskRequest) { m.Revision = nil },
	} {
		m := goodAsk()
		spoil(m)
		if _, err := heardAsk(m, job.ID{9}, executor.Peer{}); fault.KindOf(err) != fault.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func setPlacement(m *executorv1.AskRequest, p *jobv1.Placement) {
	m.Revision.Revision.Spec.Placement = p
}

// TestUnserved sets every field that no executor serves yet.
func TestUnserved(t *testing.T) {
	m := &jobv1.JobSpec{
		Image:   &jobv1.Image{Cid: "c"},
		Trigger: &jobv1.Trigger{Kind: &jobv1.Trigger_Cron{Cron: &jobv1.Cron{}}}, Replicas: 2,
		Volumes: []*jobv1.Volume{{}}, Ports: []*jobv1.Port{{}}, Health: &jobv1.Health{},
		Devices: []*jobv1.Device{{}}, Wake: &jobv1.Wake{}, Egress: jobv1.Egress_EGRESS_INTERNET,
		Capabilities: []string{"pay"}, Budget: &jobv1.Budget{}, Verify: &jobv1.Verify{Copies: 2},
		Keeper: id32(1), Disconnect: &jobv1.Disconnect{}, PauseMarker: "x", Isolation: 9,
		Restart: jobv1.Restart_RESTART_ALWAYS, Payment: &jobv1.Payment{Cap: &jobv1.Prices{Model: 3}},
	}
	got := strings.Join(unserved(m), " ")
	want := "trigger volumes ports health devices wake egress isolation capabilities " +
		"budget verify keeper pause_marker payment.cap.model"
	if got != want {
		t.Errorf("unserved: %s\nwant      %s", got, want)
	}
	once := &jobv1.JobSpec{
		Image: &jobv1.Image{Cid: "c"}, Replicas: 1, Verify: &jobv1.Verify{Copies: 1},
		Trigger: &jobv1.Trigger{Kind: &jobv1.Trigger_Once{Once: &jobv1.Once{}}},
		Egress:  jobv1.Egress_EGRESS_NONE, Restart: jobv1.Restart_RESTART_NEVER,
		Isolation: jobv1.Isolation_ISOLATION_STRICT,
	}
	if got := unserved(once); len(got) != 0 {
		t.Errorf("an ordinary job: %v", got)
	}
}

func TestHeardAckRefuses(t *testing.T) {
	good := func() *executorv1.AcknowledgeRequest {
		return &executorv1.AcknowledgeRequest{
			Lease: id32(1),
			Note: &chainv1.Note{
				Lease: id32(1), Revision: id32(2), UsageHash: id32(3), Upto: 4, Cumulative: 5,
			},
			Countersignature: &chainv1.Countersignature{Index: 1, Signature: make([]byte, 64)},
		}
	}
	if _, ack, err := heardAck(good()); err != nil || ack.Note.Cumulative != 5 || ack.Index != 1 {
		t.Errorf("heard %+v, %v", ack, err)
	}
	for name, spoil := range map[string]func(m *executorv1.AcknowledgeRequest){
		"lease":         func(m *executorv1.AcknowledgeRequest) { m.Lease = nil },
		"another lease": func(m *executorv1.AcknowledgeRequest) { m.Lease = id32(9) },
		"no note":       func(m *executorv1.AcknowledgeRequest) { m.Note = nil },
		"usage hash":    func(m *executorv1.AcknowledgeRequest) { m.Note.UsageHash = nil },
		"no signature":  func(m *executorv1.AcknowledgeRequest) { m.Countersignature = nil },
	} {
		m := good()
		spoil(m)
		if _, _, err := heardAck(m); fault.KindOf(err) != fault.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzHear feeds what a lying peer may send to every reader: none may panic, and what is taken
// must be within bounds.
func FuzzHear(f *testing.F) {
	raw, err := proto.Marshal(goodAsk())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		ask := &executorv1.AskRequest{}
		if proto.Unmarshal(raw, ask) == nil {
			heard, err := heardAsk(ask, job.ID{}, executor.Peer{})
			if err == nil && heard.Attempt.Validate() != nil {
				t.Errorf("attempt %q", heard.Attempt)
			}
		}
		task := &executorv1.TaskRequest{}
		if proto.Unmarshal(raw, task) == nil {
			heard, err := heardTask(task, job.ID{}, executor.Peer{})
			if err == nil && heard.Attempt.Validate() != nil {
				t.Errorf("attempt %q", heard.Attempt)
			}
		}
		ack, stop, logs := &executorv1.AcknowledgeRequest{}, &executorv1.StopRequest{},
			&executorv1.LogsRequest{}
		if proto.Unmarshal(raw, ack) == nil {
			_, _, _ = heardAck(ack)
		}
		if proto.Unmarshal(raw, stop) == nil {
			if heard, err := heardStop(stop, executor.Peer{}); err == nil && heard.Grace < 0 {
				t.Errorf("grace %v", heard.Grace)
			}
		}
		if proto.Unmarshal(raw, logs) == nil {
			_, _ = heardLogs(logs, executor.Peer{})
		}
	})
}

func TestEncodersAreCanonical(t *testing.T) {
	e, err := NewEncoder(nil)
	if err != nil {
		t.Fatal(err)
	}
	status := executor.Status{
		Run: "01", Attempt: "02", State: executor.AttemptEnded,
		Outcome: &executor.Outcome{
			Reason: executor.EndRefused, Code: -1, Message: "no",
			Outputs: []executor.OutputFile{{Path: "/out/a", CID: "c", Size: 1}},
		},
	}
	if _, err := e.Status(status); err != nil {
		t.Error(err)
	}
	offer := executor.Offer{Labels: map[string]string{"b": "2", "a": "1", "c": "3"}}
	_, first, err := e.Offer(offer)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if _, again, err := e.Offer(offer); err != nil || again != first {
			t.Fatalf("one offer, two hashes: %v", err)
		}
	}
}

// TestContinuesOverTheWire: an attempt is named by the same bytes in questions and statuses.
func TestContinuesOverTheWire(t *testing.T) {
	m := goodAsk()
	m.Continues = []byte{0, 0xab}
	ask, err := heardAsk(m, job.ID{9}, executor.Peer{})
	if err != nil || ask.Continues != "00ab" {
		t.Fatalf("continues %q, %v", ask.Continues, err)
	}
	status := executor.Status{
		Run: "01", Attempt: "02", Continues: ask.Continues, HeldUntil: time.UnixMilli(77),
	}
	told, err := statusPB(&status)
	if err != nil || !bytes.Equal(told.GetContinues(), m.GetContinues()) ||
		told.GetHeldUntil() != 77 {
		t.Errorf("told %v, %v", told, err)
	}
	status.Continues = "no"
	if _, err := statusPB(&status); err == nil {
		t.Error("what is no id is told as one")
	}
}

// TestHeardPolicy: only the owner's word keeps the original.
func TestHeardPolicy(t *testing.T) {
	for policy := range jobv1.DisconnectPolicy_name {
		m := goodAsk()
		m.Revision.Revision.Spec.Disconnect = &jobv1.Disconnect{
			Policy: jobv1.DisconnectPolicy(policy),
		}
		ask, err := heardAsk(m, job.ID{9}, executor.Peer{})
		want := jobv1.DisconnectPolicy(policy) ==
			jobv1.DisconnectPolicy_DISCONNECT_POLICY_KEEP_ORIGINAL
		if err != nil || ask.Spec.KeepOriginal != want {
			t.Errorf("policy %d: keeps the original %v, %v", policy, ask.Spec.KeepOriginal, err)
		}
	}
	ask, err := heardAsk(goodAsk(), job.ID{9}, executor.Peer{})
	if err != nil || ask.Spec.KeepOriginal {
		t.Errorf("no policy: %+v, %v", ask.Spec, err)
	}
}
