package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/kittest"
)

// restored is an instance of the wallet's account, with its files and a broker that holds its past.
type restored struct {
	url, key, certificate string
	signer                *event.Signer
	first                 *event.Envelope
}

func newRestored(t *testing.T, operator sig.PrivateKey) restored {
	t.Helper()
	key := sig.FromSeed([32]byte{77})
	seal, err := keys.NewSealKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := cert.Issue(keys.SingleSigner(operator), cert.Certificate{
		Chain: "main", InstanceKey: key.Public(), SealKey: seal.Public(),
		Services: []string{"executor"}, Serial: 1,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := restored{key: filepath.Join(dir, "key"), certificate: filepath.Join(dir, "certificate")}
	text, err := keys.EncodeSigning(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Create(r.key, text); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.certificate, cert.Text(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	if r.signer, err = event.NewSigner(key, raw, "executor"); err != nil {
		t.Fatal(err)
	}
	cfg := broker.Default()
	cfg.Dir, cfg.Listen = t.TempDir(), "127.0.0.1:0"
	b, err := broker.New(cfg, broker.Deps{Instances: cert.Verifier{Chains: []string{"main"}}})
	if err != nil {
		t.Fatal(err)
	}
	kittest.Run(t, b)
	r.url = b.URL()
	r.said(t, b)
	return r
}

// said puts an event of the instance into the stream.
func (r *restored) said(t *testing.T, b *broker.Broker) {
	t.Helper()
	e := event.Event{Topic: event.TopicJob, Type: "attempt.changed", Time: time.Now()}
	var err error
	if r.first, err = r.signer.Sign(e, event.Head{}); err != nil {
		t.Fatal(err)
	}
	conn, err := b.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), r.signer.Subject(r.first), r.first.Raw); err != nil {
		t.Fatal(err)
	}
}

func (r *restored) epoch(u *user, out string) (string, string, int) {
	return u.run("event", "epoch", "--service", "executor", "--key", r.key, "--certificate",
		r.certificate, "--broker", r.url, "-o", out, "--json")
}

type said struct {
	Kind  string
	Epoch uint64
	Topic string
	Seq   uint64
	Marks map[string]struct{ Epoch, Seq uint64 }
}

func TestEventEpoch(t *testing.T) {
	u := started(t, honest)
	r := newRestored(t, ownerKey())
	file := filepath.Join(t.TempDir(), "epoch.notice")
	out, complaint, code := r.epoch(u, file)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, complaint)
	}
	if _, complaint, code := r.epoch(u, file); code != 2 {
		t.Errorf("over a file that exists: exit code %d: %s", code, complaint)
	}
	for _, text := range []string{
		out, u.must("event", "verify", file, "--json"),
		u.must("event", "verify", file, "--offline", "--json"),
	} {
		var got said
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatal(err)
		}
		if got.Kind != "epoch" || got.Epoch != 2 || got.Marks["job"].Seq != 1 {
			t.Errorf("it says %+v", got)
		}
	}
	foreign := newRestored(t, sig.FromSeed([32]byte{55}))
	if _, complaint, code := foreign.epoch(u, file+"2"); code != 1 ||
		!strings.Contains(complaint, "operator is") {
		t.Errorf("another operator's instance: exit code %d: %s", code, complaint)
	}
}

func TestEventVerifyFork(t *testing.T) {
	u := started(t, honest)
	r := newRestored(t, ownerKey())
	e := event.Event{Topic: event.TopicJob, Type: "attempt.changed", Time: time.Now(),
		Payload: []byte("another history")}
	other, err := r.signer.Sign(e, event.Head{})
	if err != nil {
		t.Fatal(err)
	}
	fork := &event.ForkError{Line: other.Line(), Have: r.first.Raw, Got: other.Raw}
	raw, err := fork.Proof(r.signer.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "a.fork")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	out := u.must("event", "verify", file)
	if !strings.Contains(out, "the instance signed two histories") ||
		!strings.Contains(out, "topic job, epoch 1, number 1") {
		t.Errorf("it says %s", out)
	}
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{file}, {file, "--offline"}, {"/nowhere"}} {
		if _, _, code := u.run(append([]string{"event", "verify"}, args...)...); code == 0 {
			t.Errorf("%v is verified", args)
		}
	}
}
