package cli_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/cli/clitest"
	"github.com/united-containers/ucn/kit/id"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// TestUpdateSignsNoLies: a scheduler that shows another specification gets no signature under it.
func TestUpdateSignsNoLies(t *testing.T) {
	u := started(t, honest)
	name := result(t, u.must("job", "run", imageCID, "--detach", "--json", "--max-total", "0.5",
		"--trigger", "always"))["job"].(string)
	for what, lie := range map[string]func(*schedulerv1.Job){
		"another program": func(j *schedulerv1.Job) {
			j.Revision.Revision.Spec.Args = []string{"mine bitcoin"}
		},
		"an update that nobody signed": func(j *schedulerv1.Job) {
			j.Update = proto.CloneOf(j.Revision)
			j.Update.Revision.Number, j.Update.Revision.Job = 2, mustParse(t, name)
			j.Update.Revision.Spec.Replicas = 100
		},
		"another image in an update": func(j *schedulerv1.Job) {
			j.Update = proto.CloneOf(j.Revision)
			j.Update.Revision.Number, j.Update.Revision.Job = 2, mustParse(t, name)
			j.Update.Revision.Spec.Args = []string{"mine bitcoin"}
		},
		"nothing": func(j *schedulerv1.Job) { j.Revision = nil },
	} {
		u.net.Market.Lie = lie
		_, complaint, code := u.run("job", "update", name, "--backoff", "3s")
		if code == 0 || !strings.Contains(complaint, "did not sign") || u.net.Market.Updated() != nil {
			t.Errorf("%s: exit code %d, %s", what, code, complaint)
		}
	}
	u.net.Market.Lie = nil
	u.must("job", "update", name, "--backoff", "3s")
}

func mustParse(t *testing.T, text string) []byte {
	t.Helper()
	parsed, err := id.ParseBech32(id.Job, text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed[:]
}

// TestUpdate: revisions follow each other, signed by the wallet; what may not change is refused.
func TestUpdate(t *testing.T) {
	u := started(t, honest)
	run := func(flags ...string) string {
		return result(t, u.must(append([]string{
			"job", "run", imageCID, "--detach", "--json", "--max-total", "0.5",
		}, flags...)...))["job"].(string)
	}
	job := run("--trigger", "always")
	for n, replicas := range []string{"3", "2"} {
		text := u.must("job", "update", job, "--replicas", replicas, "--backoff", "3s")
		if want := []string{"revision 2", "revision 3"}[n]; !strings.Contains(text, want) {
			t.Errorf("updated: %s, want %s", text, want)
		}
		got := u.net.Market.Updated()
		if s := got.GetRevision().GetSpec(); s.GetReplicas() != uint32(3-n) ||
			s.GetLimits().GetBackoffMs() != 3000 {
			t.Errorf("the revision says %v", s)
		}
	}
	once := run()
	for _, bad := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{job}, 2, "--replicas or --backoff"},
		{[]string{job, "--replicas", "0"}, 2, "1 or more"},
		{[]string{job, "--backoff", "-1s"}, 2, "below 0"},
		{[]string{job, "--replicas", "101"}, 1, "replicas"},
		{[]string{once, "--replicas", "2"}, 1, "always"},
		{[]string{"ucnj1nothing", "--replicas", "2"}, 2, ""},
	} {
		_, complaint, code := u.run(append([]string{"job", "update"}, bad.args...)...)
		if code != bad.code || !strings.Contains(complaint, bad.text) {
			t.Errorf("job update %v: exit code %d, %s, want %d with %q", bad.args, code, complaint,
				bad.code, bad.text)
		}
	}
}

// TestUpdateTellsWhatItNeeds: what runs holds the escrow's money, so more replicas would wait for
// ever. The command says what to type; fewer need nothing.
func TestUpdateTellsWhatItNeeds(t *testing.T) {
	u := started(t, func(*user) clitest.Script {
		return func(v *clitest.Visit) *jobv1.Outcome {
			v.Running()
			<-v.Cancelled()
			return &jobv1.Outcome{Reason: jobv1.EndReason_END_REASON_CANCELLED, Usage: once().PB()}
		}
	})
	job := result(t, u.must("job", "run", imageCID, "--detach", "--json", "--max-total", "0.5",
		"--trigger", "always", "--replicas", "2"))["job"].(string)
	_, told, code := u.run("job", "update", job, "--replicas", "4")
	if code != 0 || !strings.Contains(told, "2 replicas more will wait") ||
		!strings.Contains(told, " 0.5 --raise") {
		t.Errorf("exit code %d, %s", code, told)
	}
	if _, told, code := u.run("job", "update", job, "--replicas", "1"); code != 0 || told != "" {
		t.Errorf("fewer: exit code %d, %s", code, told)
	}
}
