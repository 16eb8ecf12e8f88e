package cli_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/id"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// TestSignForREST: what job sign prints is all that a program needs: it opens the escrow and
// submits the job, which runs. Before that nothing was sent.
func TestSignForREST(t *testing.T) {
	u := started(t, honest)
	height := u.net.Ledger.Height()
	var signed struct {
		Job, Escrow string
		Open        struct{ Transaction string }
		Submit      json.RawMessage
	}
	text := u.must("job", "sign", imageCID, "--max-total", "0.5", "--", "-w", "64")
	if err := json.Unmarshal([]byte(text), &signed); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if u.net.Ledger.Height() != height || u.net.Market.Jobs() != 0 {
		t.Fatal("something was sent")
	}
	raw, err := base64.StdEncoding.DecodeString(signed.Open.Transaction)
	if err != nil {
		t.Fatal(err)
	}
	if r := u.net.Ledger.Apply(raw); r.GetReceipt().GetStatus() != 1 {
		t.Fatalf("open the escrow: %v", r)
	}
	submit := &schedulerv1.SubmitJobRequest{}
	if err := protojson.Unmarshal(signed.Submit, submit); err != nil {
		t.Fatal(err)
	}
	if _, err := job.Verify(submit.GetRevision(), sig.KeySet{}); err != nil {
		t.Errorf("the revision: %v", err)
	}
	if submit.GetDelivery() != schedulerv1.Delivery_DELIVERY_SCHEDULER ||
		id.Bech32(id.Escrow, [32]byte(submit.GetEscrow())) != signed.Escrow {
		t.Errorf("the request is %v", submit)
	}
	answer, err := u.net.Market.SubmitJob(t.Context(), submit)
	if err != nil || id.Bech32(id.Job, [32]byte(answer.GetJob())) != signed.Job {
		t.Errorf("submitted as %v, %v; printed was %s", answer, err, signed.Job)
	}
	out := u.must("job", "get", signed.Job)
	if !strings.Contains(out, signed.Escrow) {
		t.Errorf("the job shows %s", out)
	}
	file := filepath.Join(t.TempDir(), "job.yaml")
	spec := "name: keyed\nimage: " + imageCID + "\nsecrets: [KEY]\n"
	if err := os.WriteFile(file, []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	_, complaint, code := u.run("job", "sign", "-f", file)
	if code != 2 || !strings.Contains(complaint, "secrets ([KEY])") {
		t.Errorf("with secrets: exit code %d, %s", code, complaint)
	}
}

// TestUpdateForREST: job update --print signs and sends nothing.
func TestUpdateForREST(t *testing.T) {
	u := started(t, honest)
	name := result(t, u.must("job", "run", imageCID, "--detach", "--json", "--max-total", "0.5",
		"--trigger", "always"))["job"].(string)
	text := u.must("job", "update", name, "--replicas", "3", "--print")
	body := &schedulerv1.UpdateJobRequest{}
	if err := protojson.Unmarshal([]byte(text), body); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if u.net.Market.Updated() != nil {
		t.Error("it was sent")
	}
	body.Job = mustParse(t, name)
	if _, err := u.net.Market.UpdateJob(t.Context(), body); err != nil {
		t.Errorf("what was printed is refused: %v", err)
	}
	got := u.net.Market.Updated()
	if got.GetRevision().GetSpec().GetReplicas() != 3 {
		t.Errorf("the revision says %v", got)
	}
}
