package eventtest

import (
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/keys"
)

// Chain judges the operators of this package.
const Chain = "main"

// Operator is an operator with known keys.
type Operator struct {
	Signer keys.Signer
	seed   byte
}

// NewOperator returns the operator of a seed; the same one for the same seed.
func NewOperator(seed byte) Operator {
	return Operator{Signer: keys.SingleSigner(sig.FromSeed([32]byte{seed})), seed: seed}
}

// Instance is an instance of an operator.
type Instance struct {
	bus.Identity
	Signer *event.Signer
	Cert   cert.Certificate
}

// Instance returns an instance of one service, certified for a year around now. It is the same
// instance for the same operator and service.
func (o Operator) Instance(t testing.TB, service string) Instance {
	t.Helper()
	now := time.Now()
	return o.InstanceAt(t, service, now.Add(-180*24*time.Hour), now.Add(180*24*time.Hour))
}

// InstanceAt returns an instance certified from and until.
func (o Operator) InstanceAt(t testing.TB, service string, from, until time.Time) Instance {
	t.Helper()
	var seed [32]byte
	copy(seed[1:], service)
	seed[0] = o.seed
	key := sig.FromSeed(seed)
	seal, err := keys.NewSealKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := cert.Issue(o.Signer, cert.Certificate{
		Chain: Chain, InstanceKey: key.Public(), SealKey: seal.Public(),
		Services: []string{service}, NotBefore: from, NotAfter: until, Serial: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := cert.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := event.NewSigner(key, raw, service)
	if err != nil {
		t.Fatal(err)
	}
	return Instance{
		Identity: bus.Identity{Key: key, Seal: seal, Certificate: raw, Service: service},
		Signer:   signer, Cert: c,
	}
}

// Line signs n events of a topic, one behind the other.
func (i Instance) Line(t testing.TB, topic event.Topic, n int) []*event.Envelope {
	t.Helper()
	var head event.Head
	var out []*event.Envelope
	for range n {
		e := Event(topic, len(out))
		e.Time = time.Now()
		out = append(out, i.Sign(t, e, head))
		last := out[len(out)-1]
		head = event.Head{Epoch: last.Body.Epoch, Seq: last.Body.Seq, Hash: last.Hash}
	}
	return out
}

// Sign signs one event.
func (i Instance) Sign(t testing.TB, e event.Event, head event.Head) *event.Envelope {
	t.Helper()
	signed, err := i.Signer.Sign(e, head)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// Received returns what a broker delivers of an envelope.
func (i Instance) Received(e *event.Envelope) event.Received {
	return event.Received{Subject: i.Signer.Subject(e), Data: e.Raw}
}
