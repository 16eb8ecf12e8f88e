package origin_test

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event/eventtest"
	"github.com/united-containers/ucn/kit/origin"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
)

// world is an operator with a gateway, a service that judges, and the time.
type world struct {
	operator eventtest.Operator
	gateway  eventtest.Instance
	source   *origin.Source
	judge    *origin.Judge
	now      time.Time
}

func newWorld(t testing.TB) *world {
	w := &world{operator: eventtest.NewOperator(1), now: time.Now()}
	w.gateway = w.operator.Instance(t, "gateway")
	clock := func() time.Time { return w.now }
	w.source = &origin.Source{Key: w.gateway.Key, Certificate: w.gateway.Certificate, Now: clock}
	w.judge = &origin.Judge{Operator: w.gateway.Cert.Operator, Now: clock,
		Certificates: cert.Verifier{Chains: []string{eventtest.Chain}, Now: clock}}
	return w
}

func (w *world) vouch(t testing.TB, address string) []byte {
	t.Helper()
	raw, err := w.source.Vouch("ledger", address)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestOwnGatewaysAreBelieved(t *testing.T) {
	w := newWorld(t)
	for _, address := range []string{"192.0.2.1", "2001:db8:1:2::/64"} {
		raw := w.vouch(t, address)
		for range 2 {
			if got, err := w.judge.Origin(t.Context(), raw); got != address || err != nil {
				t.Errorf("%s became %q, %v", address, got, err)
			}
		}
		first := string(raw)
		w.now = w.now.Add(time.Minute)
		if string(w.vouch(t, address)) != first {
			t.Error("it was signed anew after a minute")
		}
		w.now = w.now.Add(4 * time.Minute)
		if got, err := w.judge.Origin(t.Context(), w.vouch(t, address)); got != address || err != nil {
			t.Errorf("after five minutes: %q, %v", got, err)
		}
		w.now = w.now.Add(time.Minute)
		if _, err := w.judge.Origin(t.Context(), raw); !errors.Is(err, origin.ErrNotBelieved) {
			t.Errorf("after six minutes the first: %v", err)
		}
	}
}

func TestOnlyTheOwnOperatorsServicesAreTold(t *testing.T) {
	w := newWorld(t)
	w.source.Own = func(service string) bool { return service != "ledger" }
	if raw := w.vouch(t, "192.0.2.1"); raw != nil {
		t.Errorf("another operator's service was told %x", raw)
	}
	w.source.Own = nil
	for _, bad := range []string{"", "pipe", "192.0.2.1:80", "2001:db8::1", "2001:db8::/48",
		"2001:db8::1/64", "192.0.2.0/24", "::ffff:192.0.2.1", "fe80::%eth0/64"} {
		if raw := w.vouch(t, bad); raw != nil {
			t.Errorf("%q was vouched for", bad)
		}
	}
}

// say signs what a source would never say.
func (w *world) say(t testing.TB, by eventtest.Instance, address string, until time.Time) []byte {
	t.Helper()
	m := &identityv1.Origin{Certificate: by.Certificate,
		Body: &identityv1.OriginBody{Address: address, NotAfter: uint64(until.UnixMilli())}}
	body, err := canon.Marshal(m.GetBody())
	if err != nil {
		t.Fatal(err)
	}
	signature := by.Key.Sign(sig.Preimage(sig.DomainOrigin, nil, body))
	m.Signature = signature[:]
	return marshal(t, m)
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	raw, err := canon.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestOthersAreIgnored(t *testing.T) {
	w := newWorld(t)
	const at = "192.0.2.1"
	soon := w.now.Add(time.Minute)
	altered := func(change func(*identityv1.Origin)) []byte {
		var m identityv1.Origin
		if err := canon.Unmarshal(w.say(t, w.gateway, at, soon), &m); err != nil {
			t.Fatal(err)
		}
		change(&m)
		return marshal(t, &m)
	}
	other := eventtest.NewOperator(2).Instance(t, "gateway")
	forged := w.operator.Instance(t, "gateway") // another's certificate with a bad signature
	forged.Certificate = append([]byte{}, forged.Certificate...)
	forged.Certificate[len(forged.Certificate)-1] ^= 1
	expired := w.operator.InstanceAt(t, "gateway", w.now.Add(-2*time.Hour), w.now.Add(-time.Hour))
	for name, raw := range map[string][]byte{
		"nothing":            nil,
		"garbage":            []byte("garbage"),
		"empty":              marshal(t, &identityv1.Origin{}),
		"another operator":   w.say(t, other, at, soon),
		"no gateway":         w.say(t, w.operator.Instance(t, "scheduler"), at, soon),
		"forged certificate": w.say(t, forged, at, soon),
		"old certificate":    w.say(t, expired, at, soon),
		"over":               w.say(t, w.gateway, at, w.now.Add(-time.Second)),
		"too long":           w.say(t, w.gateway, at, w.now.Add(11*time.Minute)),
		"no address":         w.say(t, w.gateway, "", soon),
		"one of a /64":       w.say(t, w.gateway, "2001:db8::1", soon),
		"another address": altered(func(m *identityv1.Origin) {
			m.Body.Address = "192.0.2.2"
		}),
		"another's certificate": altered(func(m *identityv1.Origin) {
			m.Certificate = w.operator.Instance(t, "scheduler").Certificate
		}),
		"without signature": altered(func(m *identityv1.Origin) { m.Signature = nil }),
	} {
		if got, err := w.judge.Origin(t.Context(), raw); err == nil || got != "" {
			t.Errorf("%s: believed to be %q", name, got)
		}
	}
	if got, err := w.judge.Origin(t.Context(), w.say(t, w.gateway, at, soon)); got != at {
		t.Errorf("a good one after all: %q, %v", got, err)
	}
}

// FuzzOrigin: whatever is heard, nothing but what the gateway said is believed.
func FuzzOrigin(f *testing.F) {
	w := newWorld(f)
	good := w.say(f, w.gateway, "192.0.2.1", w.now.Add(time.Minute))
	f.Add(good)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := w.judge.Origin(t.Context(), raw)
		if err == nil && got != "192.0.2.1" {
			t.Errorf("%x is believed to be of %q", raw, got)
		}
	})
}
