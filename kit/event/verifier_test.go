package event_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/event/eventtest"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
)

func judge() event.Judge {
	return event.JudgeBy(cert.Verifier{Chains: []string{eventtest.Chain}})
}

// directory returns one that knows the instances' certificates.
func directory(t testing.TB, clock func() time.Time, known ...eventtest.Instance) *event.Directory {
	t.Helper()
	d := event.NewDirectory(judge(), clock)
	for _, i := range known {
		d.Learn(t.Context(), i.Certificate)
	}
	return d
}

// resign changes the body of an envelope and signs it with key.
func resign(
	t *testing.T, e *event.Envelope, key sig.PrivateKey, change func(*eventv1.EnvelopeBody),
) []byte {
	t.Helper()
	body := proto.Clone(e.Body).(*eventv1.EnvelopeBody)
	change(body)
	raw, err := canon.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	signature := key.Sign(sig.Preimage(sig.DomainEvent, nil, raw))
	raw, err = canon.Marshal(&eventv1.Envelope{Body: body, Signature: signature[:]})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestVerifierNamesWhatIsWrong(t *testing.T) {
	op := eventtest.NewOperator(1)
	alice := op.Instance(t, "executor")
	scheduler := op.Instance(t, "scheduler")
	eve := eventtest.NewOperator(2).Instance(t, "executor")
	now := time.Now()
	expired := eventtest.NewOperator(3).InstanceAt(t, "executor",
		now.Add(-9*24*time.Hour), now.Add(-time.Hour))
	ancient := eventtest.NewOperator(4).InstanceAt(t, "executor",
		now.Add(-90*24*time.Hour), now.Add(-60*24*time.Hour))
	stranger := eventtest.NewOperator(5).Instance(t, "executor")
	banned := eventtest.NewOperator(6).Instance(t, "executor")
	v := event.NewVerifier(event.VerifierConfig{
		Certificates: directory(t, nil, alice, scheduler, eve, expired, ancient, banned),
		Accept:       func(operator [32]byte) bool { return operator != banned.Cert.Operator },
	})
	good := alice.Line(t, event.TopicJob, 1)[0]
	on := alice.Signer.Subject(good)
	at := func(i eventtest.Instance, when time.Time) event.Received {
		e := eventtest.Event(event.TopicJob, 1)
		e.Time = when
		return i.Received(i.Sign(t, e, event.Head{}))
	}
	forged := slices.Clone(good.Raw)
	forged[len(forged)-1] ^= 1
	moved := alice.Signer.Address()
	wrongOperator, wrongService, wrongInstance := moved, moved, moved
	wrongOperator.Operator = eve.Cert.Operator
	wrongService.Service = "scheduler"
	wrongInstance.Instance = eve.Cert.InstanceKey
	with := func(change func(*eventv1.EnvelopeBody)) event.Received {
		return event.Received{Subject: on, Data: resign(t, good, alice.Key, change)}
	}
	kind, topic := good.Body.Type, good.Body.Topic
	cases := []struct {
		name string
		m    event.Received
		want error
	}{
		{"good", event.Received{Subject: on, Data: good.Raw}, nil},
		{"forged", event.Received{Subject: on, Data: forged}, event.ErrSignature},
		{"signed by another key", event.Received{Subject: on, Data: resign(t, good, eve.Key,
			func(*eventv1.EnvelopeBody) {})}, event.ErrSignature},
		{"wrong operator", event.Received{
			Subject: wrongOperator.Event(topic, kind), Data: good.Raw}, event.ErrOperator},
		{"wrong service", event.Received{
			Subject: wrongService.Event(topic, kind), Data: good.Raw}, event.ErrService},
		{"wrong instance", event.Received{
			Subject: wrongInstance.Event(topic, kind), Data: good.Raw}, event.ErrSubject},
		{"wrong topic", event.Received{Subject: moved.Event("money", kind), Data: good.Raw},
			event.ErrSubject},
		{"wrong type", event.Received{Subject: moved.Event(topic, "offer.posted"), Data: good.Raw},
			event.ErrSubject},
		{"no subject", event.Received{Subject: "ucn.v1.x", Data: good.Raw}, event.ErrSubject},
		{"certificate of another", with(func(b *eventv1.EnvelopeBody) {
			id := idOf(t, eve)
			b.CertificateId = id[:]
		}), event.ErrInstance},
		{"certificate unknown", stranger.Received(stranger.Line(t, event.TopicJob, 1)[0]),
			event.ErrCertificateUnknown},
		{"certificate expired", at(expired, now), event.ErrCertificateExpired},
		{"before the certificate's end", at(expired, now.Add(-2*time.Hour)), nil},
		{"certificate ended long ago", at(ancient, now.Add(-70*24*time.Hour)),
			event.ErrCertificateExpired},
		{"operator not accepted", banned.Received(banned.Line(t, event.TopicJob, 1)[0]),
			event.ErrOperatorRefused},
		{"future", at(alice, now.Add(time.Hour)), event.ErrFuture},
		{"oversized", event.Received{Subject: on, Data: make([]byte, event.MaxEnvelope+1)},
			event.ErrOversized},
		{"oversized payload", with(func(b *eventv1.EnvelopeBody) {
			b.Payload = make([]byte, event.MaxPayload+1)
		}), event.ErrOversized},
		{"not canonical", event.Received{Subject: on, Data: append(slices.Clone(good.Raw),
			good.Raw[len(good.Raw)-66:]...)}, event.ErrNotCanonical},
		{"garbage", event.Received{Subject: on, Data: []byte("garbage")}, event.ErrNotCanonical},
		{"empty", event.Received{Subject: on}, event.ErrMalformed},
		{"version", with(func(b *eventv1.EnvelopeBody) { b.Version = 2 }), event.ErrMalformed},
		{"no seq", with(func(b *eventv1.EnvelopeBody) { b.Seq = 0 }), event.ErrMalformed},
		{"prev of the first", with(func(b *eventv1.EnvelopeBody) {
			b.Prev = make([]byte, 32)
		}), event.ErrMalformed},
		{"no prev of the second", with(func(b *eventv1.EnvelopeBody) { b.Seq = 2 }),
			event.ErrMalformed},
		{"unknown topic", with(func(b *eventv1.EnvelopeBody) { b.Topic = "weather" }),
			event.ErrMalformed},
	}
	var all []event.Received
	for _, c := range cases {
		all = append(all, c.m)
	}
	for i, verdict := range v.Verify(t.Context(), all) {
		if !errors.Is(verdict.Err, cases[i].want) {
			t.Errorf("%s: error %v, want %v", cases[i].name, verdict.Err, cases[i].want)
		}
		alone := v.Verify(t.Context(), all[i:i+1])[0]
		if !errors.Is(alone.Err, cases[i].want) {
			t.Errorf("%s, alone: error %v, want %v", cases[i].name, alone.Err, cases[i].want)
		}
	}
}

func idOf(t *testing.T, i eventtest.Instance) cert.ID {
	t.Helper()
	_, id, err := cert.Decode(i.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestVerifierLearnsAnnouncements(t *testing.T) {
	d := directory(t, nil)
	v := event.NewVerifier(event.VerifierConfig{Certificates: d})
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	notice := &eventv1.CertificateNotice{}
	raw, err := canon.Marshal(notice)
	if err != nil {
		t.Fatal(err)
	}
	announce := func(payload []byte) event.Received {
		return alice.Received(alice.Sign(t, event.Event{
			Topic: event.TopicOperator, Type: event.TypeCertificateIssued, Time: time.Now(),
			Payload: payload,
		}, event.Head{}))
	}
	if err := v.Verify(t.Context(), []event.Received{announce(raw)})[0].Err; !errors.Is(
		err, event.ErrCertificateUnknown) {
		t.Errorf("an empty announcement: error %v", err)
	}
	whole := append([]byte{10}, varint(len(alice.Certificate))...)
	whole = append(whole, alice.Certificate...)
	for _, m := range []event.Received{
		announce(whole), alice.Received(alice.Line(t, event.TopicJob, 1)[0]),
	} {
		if err := v.Verify(t.Context(), []event.Received{m})[0].Err; err != nil {
			t.Errorf("after the announcement: %v", err)
		}
	}
}

func varint(n int) []byte {
	var out []byte
	for ; n >= 128; n >>= 7 {
		out = append(out, byte(n)|128)
	}
	return append(out, byte(n))
}

func TestDirectoryDoesNotBelieveForgedCertificates(t *testing.T) {
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	forged := slices.Clone(alice.Certificate)
	forged[len(forged)-1] ^= 1
	asked := 0
	source := func(context.Context, subject.Address) ([]byte, error) {
		asked++
		return forged, nil
	}
	now := time.Now()
	d := event.NewDirectory(judge(), func() time.Time { return now }, source)
	_, err := d.Certificate(t.Context(), idOf(t, alice), alice.Signer.Address())
	if !errors.Is(err, event.ErrCertificateInvalid) {
		t.Errorf("error %v, want ErrCertificateInvalid", err)
	}
	for range 3 {
		_, err = d.Certificate(t.Context(), cert.ID{1}, alice.Signer.Address())
		if !errors.Is(err, event.ErrCertificateUnknown) {
			t.Errorf("error %v, want ErrCertificateUnknown", err)
		}
	}
	if asked != 2 {
		t.Errorf("the source was asked %d times, want 2: a miss is remembered", asked)
	}
}

func TestCursorFollows(t *testing.T) {
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	line := alice.Line(t, event.TopicJob, 4)
	other := alice.Sign(t, eventtest.Event(event.TopicJob, 77), headOf(line[0]))
	third := alice.Sign(t, eventtest.Event(event.TopicJob, 78), headOf(other))
	reborn := alice.Sign(t, eventtest.Event(event.TopicJob, 1), event.Head{Epoch: 2})
	at := event.Cursor{Head: headOf(line[1]), Last: line[1].Raw}
	var gap *event.GapError
	var fork *event.ForkError
	var epoch *event.EpochError
	cases := []struct {
		name   string
		cursor event.Cursor
		e      *event.Envelope
		good   func(error) bool
	}{
		{"first", event.Cursor{}, line[0], func(err error) bool { return err == nil }},
		{"next", at, line[2], func(err error) bool { return err == nil }},
		{"replayed", at, line[1], is(event.ErrDuplicate)},
		{"replayed earlier", at, line[0], is(event.ErrDuplicate)},
		{"gap", at, line[3], func(err error) bool {
			return errors.As(err, &gap) && gap.Want == 3 && gap.Got == 4
		}},
		{"gap at the start", event.Cursor{}, line[2], func(err error) bool {
			return errors.As(err, &gap) && gap.Want == 1 && gap.Got == 3
		}},
		{"fork at one place", at, other, func(err error) bool {
			return errors.As(err, &fork) && string(fork.Have) == string(line[1].Raw) &&
				string(fork.Got) == string(other.Raw)
		}},
		{"fork before", at, third, func(err error) bool {
			return errors.As(err, &fork) && string(fork.Got) == string(third.Raw)
		}},
		{"epoch", at, reborn, func(err error) bool {
			return errors.As(err, &epoch) && epoch.Want == 1 && epoch.Got == 2
		}},
	}
	for _, c := range cases {
		if err := c.cursor.Follows(c.e); !c.good(err) {
			t.Errorf("%s: error %v", c.name, err)
		}
	}
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func headOf(e *event.Envelope) event.Head {
	return event.Head{Epoch: e.Body.Epoch, Seq: e.Body.Seq, Hash: e.Hash}
}

func TestSignerRefuses(t *testing.T) {
	alice := eventtest.NewOperator(1).Instance(t, "executor")
	eve := eventtest.NewOperator(2).Instance(t, "executor")
	if _, err := event.NewSigner(eve.Key, alice.Certificate, "executor"); !errors.Is(
		err, event.ErrInstance) {
		t.Errorf("another's certificate: %v", err)
	}
	if _, err := event.NewSigner(alice.Key, alice.Certificate, "ledger"); !errors.Is(
		err, event.ErrService) {
		t.Errorf("another service: %v", err)
	}
	if _, err := event.NewSigner(alice.Key, nil, "executor"); err == nil {
		t.Error("no certificate")
	}
}

func FuzzDecode(f *testing.F) {
	alice := eventtest.NewOperator(1).Instance(f, "executor")
	for _, e := range alice.Line(f, event.TopicJob, 2) {
		f.Add(e.Raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := event.Decode(raw)
		if err != nil {
			return
		}
		back, err := canon.Marshal(&eventv1.Envelope{
			Body: e.Body, Signature: raw[len(raw)-sig.SignatureSize:],
		})
		if err != nil || string(back) != string(raw) {
			t.Errorf("decoded bytes are not canonical: %v", err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	alice := eventtest.NewOperator(1).Instance(b, "executor")
	for _, size := range []int{1, 256} {
		b.Run(fmt.Sprint("batch=", size), func(b *testing.B) {
			v := event.NewVerifier(event.VerifierConfig{Certificates: directory(b, nil, alice)})
			var batch []event.Received
			for _, e := range alice.Line(b, event.TopicJob, size) {
				batch = append(batch, alice.Received(e))
			}
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				for _, verdict := range v.Verify(b.Context(), batch) {
					if verdict.Err != nil {
						b.Fatal(verdict.Err)
					}
				}
			}
			b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "envelopes/s")
		})
	}
}
