package cli_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/cli/clitest"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/keys"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// fileTeller is a storage service that says what happens to files.
type fileTeller struct {
	certificate []byte
	signer      *event.Signer
}

func newFileTeller(t *testing.T, operator sig.PrivateKey) fileTeller {
	t.Helper()
	key := sig.FromSeed([32]byte{78})
	seal, err := keys.NewSealKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := cert.Issue(keys.SingleSigner(operator), cert.Certificate{
		Chain: "main", InstanceKey: key.Public(), SealKey: seal.Public(),
		Services: []string{"storage"}, Serial: 1,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := event.NewSigner(key, raw, "storage")
	if err != nil {
		t.Fatal(err)
	}
	return fileTeller{raw, signer}
}

func (f fileTeller) says(
	t *testing.T, file cid.Blinded, what storagev1.What, behind event.Head,
) *event.Envelope {
	t.Helper()
	return f.saysOf(t, &storagev1.FileChange{What: what, File: file[:]}, behind)
}

func (f fileTeller) saysOf(
	t *testing.T, m *storagev1.FileChange, behind event.Head,
) *event.Envelope {
	t.Helper()
	m.Account = make([]byte, 32)
	raw, err := canon.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	e, err := f.signer.Sign(event.Event{
		Topic: event.TopicJob, Type: "file.changed", Time: time.Now(), Payload: raw,
	}, behind)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestFileEvents: signatures are verified here, pages are read to their end, and a certificate of
// another operator is refused.
func TestFileEvents(t *testing.T) {
	u := newUser(t, func(*clitest.Visit) *jobv1.Outcome { return nil })
	teller := newFileTeller(t, u.net.OperatorKey())
	c, key := cid.OfFile([32]byte{1}), cid.BlindKey{9}
	first := teller.says(t, key.Blind(c), storagev1.What_WHAT_KEPT, event.Head{})
	second := teller.says(t, key.Blind(c), storagev1.What_WHAT_REMOVED,
		event.Head{Epoch: 1, Seq: 1, Hash: first.Hash})
	forged := append([]byte(nil), second.Raw...)
	forged[len(forged)-1] ^= 1
	pages := map[string][][]byte{"": {first.Raw}, "1": {second.Raw}, "2": {forged}}
	gap := false
	u.net.Storage.Told = func(
		r *storagev1.ListEventsRequest,
	) *storagev1.ListEventsResponse {
		next := map[string]string{"": "1", "1": "2", "2": "3"}[r.GetPageToken()]
		return &storagev1.ListEventsResponse{
			Envelopes: pages[r.GetPageToken()], NextPageToken: next, Done: next == "",
			Key: key[:], Certificate: teller.certificate,
			Gap: gap && r.GetPageToken() == "1", OldestEpoch: 1, OldestSeq: 2,
		}
	}
	var got []struct {
		What, CID, Reason string
		Seq               int
		Signed            bool
	}
	out := u.must("file", "events", c.String(), "--json")
	if err := json.Unmarshal([]byte(out), &got); err != nil || len(got) != 3 {
		t.Fatalf("%v: %s", err, out)
	}
	if got[0].What != "kept" || got[1].What != "removed" || got[1].Seq != 2 ||
		got[1].CID != c.String() || !got[0].Signed || !got[1].Signed {
		t.Errorf("shown: %+v", got)
	}
	if got[2].Signed || !strings.Contains(got[2].Reason, "signature") {
		t.Errorf("a forged event is shown as %+v", got[2])
	}
	if out := u.must("file", "events", c.String()); !strings.Contains(out, "no: ") ||
		!strings.Contains(out, "removed") {
		t.Errorf("table:\n%s", out)
	}
	if _, complaint, code := u.run("file", "events", "nonsense"); code == 0 {
		t.Errorf("a CID that is none: %s", complaint)
	}
	_, whole, _ := u.run("file", "events", c.String())
	gap = true
	if _, note, code := u.run("file", "events", c.String()); code != 0 || whole != "" ||
		!strings.Contains(note, "the oldest event it has is 2 of epoch 1") {
		t.Errorf("a gap: %d %q, without one: %q", code, note, whole)
	}
	teller = newFileTeller(t, sig.FromSeed([32]byte{201}))
	if _, complaint, code := u.run("file", "events", c.String()); code == 0 ||
		!strings.Contains(complaint, "another operator") {
		t.Errorf("another operator's storage: %d %s", code, complaint)
	}
}

// TestFileEventsOfMany: what one write removed is a line for each file, or the one that was
// asked for; a name that is none is not believed.
func TestFileEventsOfMany(t *testing.T) {
	u := newUser(t, func(*clitest.Visit) *jobv1.Outcome { return nil })
	teller := newFileTeller(t, u.net.OperatorKey())
	one, two, key := cid.OfFile([32]byte{1}), cid.OfFile([32]byte{2}), cid.BlindKey{9}
	names := []cid.Blinded{key.Blind(one), key.Blind(two)}
	removed := &storagev1.FileChange{What: storagev1.What_WHAT_REMOVED,
		Files: [][]byte{names[0][:], names[1][:]}}
	broken := &storagev1.FileChange{What: storagev1.What_WHAT_REMOVED,
		Files: [][]byte{names[0][:], {1, 2, 3}}}
	said := teller.saysOf(t, removed, event.Head{})
	u.net.Storage.Told = func(*storagev1.ListEventsRequest) *storagev1.ListEventsResponse {
		return &storagev1.ListEventsResponse{Envelopes: [][]byte{said.Raw}, Done: true, Key: key[:],
			NextPageToken: "1", Certificate: teller.certificate}
	}
	type line struct {
		What, CID, File string
		Seq             int
		Signed          bool
	}
	shown := func(list ...string) (got []line) {
		t.Helper()
		out := u.must(append(list, "--json")...)
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return got
	}
	want := []line{{"removed", "", names[0].String(), 1, true},
		{"removed", "", names[1].String(), 1, true}}
	if got := shown("file", "events"); !slices.Equal(got, want) {
		t.Errorf("all: %+v", got)
	}
	want = []line{{"removed", two.String(), names[1].String(), 1, true}}
	if got := shown("file", "events", two.String()); !slices.Equal(got, want) {
		t.Errorf("of one: %+v", got)
	}
	said = teller.saysOf(t, broken, event.Head{})
	if got := shown("file", "events"); len(got) != 1 || got[0].What != "file.changed" {
		t.Errorf("a name that is none: %+v", got)
	}
}
