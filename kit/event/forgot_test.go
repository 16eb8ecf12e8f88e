package event_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/event/eventtest"
)

// forgetful is a directory that does not have the bytes of one certificate while forgot is set.
type forgetful struct {
	event.Certificates
	named  cert.ID
	forgot atomic.Bool
	asked  chan struct{} // told when they are asked for while forgotten
}

func (f *forgetful) Bytes(named cert.ID) []byte {
	if named != f.named || !f.forgot.Load() {
		return f.Certificates.Bytes(named)
	}
	select {
	case f.asked <- struct{}{}:
	default:
	}
	return nil
}

// TestForkOfAForgottenCertificate: the fork waits for its proof, the lines of others do not wait
// for it, and what the line says meanwhile has no effect once the fork is proven.
func TestForkOfAForgottenCertificate(t *testing.T) {
	js := open(t)
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	bob := eventtest.NewOperator(2).Instance(t, "executor")
	r := newReader(t, js)
	_, named, err := cert.Decode(alice.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	certificates := &forgetful{
		Certificates: directory(t, nil, alice, bob), named: named, asked: make(chan struct{}, 1),
	}
	certificates.forgot.Store(true)
	r.Verifier = event.NewVerifier(event.VerifierConfig{Certificates: certificates})
	forks := make(chan *event.ForkError, 4)
	r.OnFork = func(_ context.Context, fork *event.ForkError) { forks <- fork }
	r.run(t)
	line := alice.Line(t, event.TopicJob, 2)
	put(t, js, alice, line[0], line[1], rival(t, alice, headOf(line[0])))
	r.expect(t, "0", "1")
	<-certificates.asked
	put(t, js, bob, bob.Line(t, event.TopicJob, 2)...)
	r.expect(t, "0", "1")
	if len(forks) != 0 {
		t.Error("a fork is told without its proof")
	}
	certificates.forgot.Store(false)
	fork := <-forks
	if _, err := event.VerifyFork(t.Context(), fork.Evidence, offline()); err != nil {
		t.Errorf("the evidence does not stand: %v", err)
	}
}
