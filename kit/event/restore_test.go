package event_test

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/event/memory"
)

// words collects a log and tells when a text was in it.
type words struct {
	mu    sync.Mutex
	text  bytes.Buffer
	want  string
	heard chan struct{}
}

func hear(want string) *words { return &words{want: want, heard: make(chan struct{})} }

func (w *words) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := strings.Contains(w.text.String(), w.want)
	w.text.Write(b)
	if !before && strings.Contains(w.text.String(), w.want) {
		close(w.heard)
	}
	return len(b), nil
}

// TestOldBackupSaysNothing: an outbox that was restored from a backup would sign a second history.
// Its publisher finds that out from the stream and says nothing until the operator opens a new
// epoch; then peers follow it again.
func TestOldBackupSaysNothing(t *testing.T) {
	js := open(t)
	op := eventtest.NewOperator(1)
	alice := op.Instance(t, "executor")
	line := alice.Line(t, event.TopicJob, 3)
	r := newReader(t, js, alice)
	r.run(t)
	put(t, js, alice, line...)
	r.expect(t, "0", "1", "2")
	backup := memory.New() // older than everything
	appendUntilCommitted(t, backup, 7)
	log := hear("restored from a backup")
	stop := publish(t, backup, alice, event.PublisherConfig{
		JetStream: js, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	<-log.heard
	stop()
	stream, err := js.Stream(t.Context(), event.StreamName("executor"))
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != 3 {
		t.Fatalf("%d events in the stream, want the 3 from before", n)
	}
	marks, err := event.Marks(t.Context(), js, alice.Signer.Address())
	if err != nil {
		t.Fatal(err)
	}
	want := map[event.Topic]event.Head{event.TopicJob: headOf(line[2])}
	if d := cmp.Diff(want, marks); d != "" {
		t.Errorf("marks: %s", d)
	}
	notice, err := event.IssueEpoch(op.Signer, event.Epoch{
		Chain: eventtest.Chain, Instance: alice.Key.Public(), Number: 2, Marks: marks,
		Time: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	restored := event.PublisherConfig{JetStream: js, Epoch: notice}
	stop = publish(t, backup, alice, restored)
	r.expect(t, string(notice), "7")
	stop()
	publish(t, backup, alice, restored) // after a restart the word may stay
	appendUntilCommitted(t, backup, 8)
	r.expect(t, "8")
}

func publish(
	t *testing.T, q event.Queue, of eventtest.Instance, cfg event.PublisherConfig,
) (stop func()) {
	t.Helper()
	cfg.Queue, cfg.Signer = q, of.Signer
	p, err := event.NewPublisher(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return background(t, p.Run)
}

// TestSecondRestore: an outbox that is lost again, while the word of the first restore is still
// configured, does not sign the first places of that epoch anew.
func TestSecondRestore(t *testing.T) {
	js := open(t)
	op := eventtest.NewOperator(1)
	alice := op.Instance(t, "executor")
	put(t, js, alice, alice.Line(t, event.TopicJob, 3)...)
	notice, err := event.IssueEpoch(op.Signer, event.Epoch{
		Chain: eventtest.Chain, Instance: alice.Key.Public(), Number: 2, Time: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	e := event.Event{
		Topic: event.TopicJob, Type: event.TypeEpochOpened, Time: time.Now(), Payload: notice,
	}
	put(t, js, alice, alice.Sign(t, e, event.Head{Epoch: 2})) // said after the first restore
	log, lost := hear("restored from a backup"), memory.New()
	stop := publish(t, lost, alice, event.PublisherConfig{
		JetStream: js, Epoch: notice, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	<-log.heard
	stop()
	pending, err := lost.Pending(t.Context())
	if err != nil || len(pending.Unsent) != 0 {
		t.Errorf("%d envelopes were signed, %v", len(pending.Unsent), err)
	}
}

// TestProofIsWritten: the evidence of a fork is a file that anybody can verify.
func TestProofIsWritten(t *testing.T) {
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	line := alice.Line(t, event.TopicJob, 2)
	other := rival(t, alice, headOf(line[0]))
	fork := &event.ForkError{
		Line: other.Line(), Have: line[1].Raw, Got: other.Raw,
	}
	dir := t.TempDir() + "/forks"
	if _, err := event.WriteProof(dir, fork); err == nil {
		t.Error("written without evidence")
	}
	var err error
	if fork.Evidence, err = fork.Proof(alice.Signer.Certificate()); err != nil {
		t.Fatal(err)
	}
	path, err := event.WriteProof(dir, fork)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := event.VerifyFork(t.Context(), raw, offline()); err != nil {
		t.Errorf("the file proves nothing: %v", err)
	}
}
