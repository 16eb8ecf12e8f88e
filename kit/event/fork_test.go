package event_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/event/memory"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
)

// rival signs another event behind head than the line has there.
func rival(t *testing.T, i eventtest.Instance, head event.Head) *event.Envelope {
	t.Helper()
	e := eventtest.Event(event.TopicJob, 99)
	e.Time = time.Now()
	return i.Sign(t, e, head)
}

func offline() cert.Verifier { return cert.Verifier{Chains: []string{eventtest.Chain}} }

func TestVerifyFork(t *testing.T) {
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	eve := eventtest.NewOperator(2).Instance(t, "executor")
	line := alice.Line(t, event.TopicJob, 3)
	other := rival(t, alice, headOf(line[0]))
	third := rival(t, alice, headOf(other))
	evil := eve.Line(t, event.TopicJob, 3)
	proof := func(first, second *event.Envelope, certificate []byte) []byte {
		t.Helper()
		fork := &event.ForkError{Line: first.Line(), Have: first.Raw, Got: second.Raw}
		raw, err := fork.Proof(certificate)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	broken := proof(line[1], other, alice.Certificate)
	broken[len(broken)/3] ^= 1
	for _, c := range []struct {
		name string
		raw  []byte
		good bool
	}{
		{"one place", proof(line[1], other, alice.Certificate), true},
		{"another before it", proof(line[1], third, alice.Certificate), true},
		{"a line that goes on", proof(line[1], line[2], alice.Certificate), false},
		{"the same twice", proof(line[1], line[1], alice.Certificate), false},
		{"places apart", proof(line[0], third, alice.Certificate), false},
		{"two instances", proof(line[1], evil[1], alice.Certificate), false},
		{"another's certificate", proof(line[1], other, eve.Certificate), false},
		{"a changed byte", broken, false},
		{"nothing", nil, false},
		{"too much", make([]byte, event.MaxForkProof+1), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := event.VerifyFork(t.Context(), c.raw, offline())
			if c.good && (err != nil || f.Certificate.Operator != alice.Cert.Operator) {
				t.Errorf("got %v, %v", f, err)
			}
			if !c.good && !errors.Is(err, event.ErrProof) {
				t.Errorf("error %v, want ErrProof", err)
			}
		})
	}
}

func FuzzVerifyFork(f *testing.F) {
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := event.VerifyFork(t.Context(), raw, offline()); err == nil {
			t.Error("a proof out of nothing")
		}
	})
}

// TestForkEndsTheLine: the proof is kept and told, whatever is killed in between; the line goes on
// only in an epoch that the operator opened.
func TestForkEndsTheLine(t *testing.T) {
	js := open(t)
	op := eventtest.NewOperator(1)
	alice := op.Instance(t, "executor")
	line := alice.Line(t, event.TopicJob, 4)
	r := newReader(t, js, alice)
	r.Outbox = r.store
	failed := 0
	r.store.SetHook(func(step memory.Step) memory.Outcome {
		if step == memory.StepAppend && failed < 3 { // only the notice is appended
			failed++
			return memory.FailBefore
		}
		return memory.Succeed
	})
	forks := make(chan *event.ForkError, 4)
	r.OnFork = func(_ context.Context, fork *event.ForkError) { forks <- fork }
	stop := r.run(t)
	other := rival(t, alice, headOf(line[0]))
	put(t, js, alice, line[0], line[1], other, line[2])
	fork := <-forks
	if _, err := event.VerifyFork(t.Context(), fork.Evidence, offline()); err != nil {
		t.Errorf("the evidence does not stand: %v", err)
	}
	stop()
	stop = r.run(t) // a restart does not follow it again
	put(t, js, alice, rival(t, alice, headOf(other)), line[3])
	notice, err := event.IssueEpoch(op.Signer, event.Epoch{
		Chain: eventtest.Chain, Instance: alice.Key.Public(), Number: 2, Time: time.Now(),
		Marks: map[event.Topic]event.Head{event.TopicJob: headOf(line[1])},
	})
	if err != nil {
		t.Fatal(err)
	}
	restored := memory.New()
	if err := event.OpenEpoch(t.Context(), restored, alice.Signer, notice); err != nil {
		t.Fatal(err)
	}
	appendUntilCommitted(t, restored, 7)
	p, err := event.NewPublisher(event.PublisherConfig{
		Queue: restored, Signer: alice.Signer, JetStream: js,
	})
	if err != nil {
		t.Fatal(err)
	}
	background(t, p.Run)
	r.expect(t, "0", "1", string(notice), "7")
	if len(forks) != 0 {
		t.Error("a fork was told twice, or a new epoch was taken for one")
	}
	stop()
	checkNotice(t, r.store, fork.Evidence)
}

// checkNotice holds that exactly one fork.found was said, with the proof.
func checkNotice(t *testing.T, s *memory.Store, evidence []byte) {
	t.Helper()
	pending, err := s.Pending(t.Context())
	if err != nil || len(pending.Drafts) != 1 {
		t.Fatalf("said %d events, %v, want one", len(pending.Drafts), err)
	}
	said, notice := pending.Drafts[0].Event, new(eventv1.ForkNotice)
	if err := canon.Unmarshal(said.Payload, notice); err != nil {
		t.Fatal(err)
	}
	raw, err := canon.Marshal(notice.Proof)
	if err != nil || said.Type != event.TypeForkFound || string(raw) != string(evidence) {
		t.Errorf("said %s, %v, and another proof: %v", said.Type, err,
			string(raw) != string(evidence))
	}
}

// TestOldBackupIsAFork: an outbox restored from a backup that goes on without a new epoch is
// caught when it comes to a place that was taken.
func TestOldBackupIsAFork(t *testing.T) {
	js := open(t)
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	line := alice.Line(t, event.TopicJob, 4)
	r := newReader(t, js, alice)
	forks := make(chan *event.ForkError, 1)
	r.OnFork = func(_ context.Context, fork *event.ForkError) { forks <- fork }
	r.run(t)
	put(t, js, alice, line...)
	r.expect(t, "0", "1", "2", "3")
	second := rival(t, alice, headOf(line[1])) // the backup held two
	put(t, js, alice, second, rival(t, alice, headOf(second)))
	if _, err := event.VerifyFork(t.Context(), (<-forks).Evidence, offline()); err != nil {
		t.Error(err)
	}
}

func TestNewEpochNeedsTheOperator(t *testing.T) {
	op, eve := eventtest.NewOperator(1), eventtest.NewOperator(2)
	alice := op.Instance(t, "executor")
	claim := event.Epoch{
		Chain: eventtest.Chain, Instance: alice.Key.Public(), Number: 2, Time: time.Now(),
	}
	forged, err := event.IssueEpoch(eve.Signer, claim)
	if err != nil {
		t.Fatal(err)
	}
	store := memory.New()
	if err := event.OpenEpoch(t.Context(), store, alice.Signer, forged); !errors.Is(
		err, event.ErrEpochInvalid) {
		t.Errorf("another operator's notice: %v", err)
	}
	good, err := event.IssueEpoch(op.Signer, claim)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time changes nothing
		if err := event.OpenEpoch(t.Context(), store, alice.Signer, good); err != nil {
			t.Fatal(err)
		}
	}
	p, err := store.Pending(t.Context())
	if err != nil || len(p.Unsent) != len(event.Topics()) {
		t.Fatalf("%d envelopes, %v", len(p.Unsent), err)
	}
	js := open(t)
	r := newReader(t, js, alice)
	r.run(t)
	e := event.Event{Topic: event.TopicJob, Type: event.TypeEpochOpened, Time: time.Now()}
	e.Payload = forged
	first := alice.Line(t, event.TopicJob, 1)
	fake := alice.Sign(t, e, event.Head{Epoch: 2})
	e.Payload = good
	real := alice.Sign(t, e, event.Head{Epoch: 2})
	put(t, js, alice, first[0], fake, real)
	r.expect(t, "0", string(good))
}

func TestEpochBounds(t *testing.T) {
	op := eventtest.NewOperator(1)
	for _, e := range []event.Epoch{
		{Chain: "main", Instance: [32]byte{1}, Number: 1, Time: time.Now()},
		{Instance: [32]byte{1}, Number: 2, Time: time.Now()},
		{Chain: "main", Number: 2},
		{Chain: "main", Number: 2, Time: time.Now(),
			Marks: map[event.Topic]event.Head{"weather": {Epoch: 1}}},
		{Chain: "main", Number: 2, Time: time.Now(),
			Marks: map[event.Topic]event.Head{event.TopicJob: {Epoch: 2}}},
	} {
		if _, err := event.IssueEpoch(op.Signer, e); !errors.Is(err, event.ErrEpochInvalid) {
			t.Errorf("%+v: %v", e, err)
		}
	}
}
