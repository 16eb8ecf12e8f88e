package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
)

// TestJobResume: a job that could not be queued is gone on with later, under its own escrow.
func TestJobResume(t *testing.T) {
	u := started(t, honest)
	if _, complaint, code := u.run("job", "resume"); code != 1 ||
		!strings.Contains(complaint, "no job run of this machine was interrupted") {
		t.Errorf("nothing to resume: exit code %d: %s", code, complaint)
	}
	u.net.Market.Refuse = fault.New(fault.Unavailable, "AWAY", "the scheduler is away")
	_, complaint, code := u.run("job", "run", imageCID, "--no-outputs")
	if code != 1 || !strings.Contains(complaint, "ucn job resume ucnj1") {
		t.Fatalf("exit code %d: %s", code, complaint)
	}
	var list []struct{ Job, Name string }
	if err := json.Unmarshal([]byte(u.must("job", "resume", "--list", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Name != "job" {
		t.Fatalf("interrupted are %+v", list)
	}
	u.net.Market.Refuse = nil
	report := result(t, u.must("job", "resume", "--no-outputs", "--json"))
	bill := report["bill"].(map[string]any)
	if report["job"] != list[0].Job || report["result"] != "completed" ||
		bill["balance_before"] != "9999.999" {
		t.Errorf("the report: %v", report)
	}
	if open := u.net.Ledger.Escrows(); open != 0 {
		t.Errorf("%d escrows are left", open)
	}
	if out := u.must("job", "resume", "--list"); !strings.Contains(out, "no job run") {
		t.Errorf("still interrupted: %s", out)
	}
}

func jobOf(t *testing.T, text string) [32]byte {
	t.Helper()
	raw, err := id.ParseBech32(id.Job, text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestJobResumeRefuses: what is damaged, another's or unknown is told by name.
func TestJobResumeRefuses(t *testing.T) {
	u := started(t, honest)
	u.net.Market.Refuse = fault.New(fault.Unavailable, "AWAY", "the scheduler is away")
	for range 2 {
		u.run("job", "run", imageCID, "--no-outputs")
	}
	u.net.Market.Refuse = nil
	folder := jobrun.Folder(filepath.Join(u.data, "errands"))
	kept, _, err := folder.List()
	if err != nil || len(kept) != 2 {
		t.Fatalf("%d are kept, %v", len(kept), err)
	}
	foreign := kept[0]
	foreign.Account = id.Bech32(id.Account, [32]byte{9})
	other := "ucnj1" + strings.Repeat("q", 52) + "xxxxxx"
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"one of two":   {nil, 2, "name one"},
		"no job":       {[]string{"x"}, 2, "not the id of a job"},
		"unknown":      {[]string{other}, 2, "job:"},
		"both flags":   {[]string{"--list", "--forget"}, 2, "list"},
		"forget none":  {[]string{"--forget"}, 2, "needs a job"},
		"a bad secret": {[]string{kept[0].Job, "--secret", "x"}, 2, "a secret is"},
		"more secrets": {[]string{kept[0].Job, "--secret", "A=b"}, 1, "secrets"},
	} {
		_, complaint, code := u.run(append([]string{"job", "resume"}, c.args...)...)
		if code != c.code || !strings.Contains(complaint, c.want) {
			t.Errorf("%s: exit code %d: %s", name, code, complaint)
		}
	}
	if err := folder.Keep(foreign); err != nil {
		t.Fatal(err)
	}
	if _, complaint, code := u.run("job", "resume", foreign.Job); code != 1 ||
		!strings.Contains(complaint, "another account") {
		t.Errorf("another's: exit code %d: %s", code, complaint)
	}
	file := filepath.Join(string(folder), kept[1].Job+".json")
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, complaint, code := u.run("job", "resume", kept[1].Job); code != 1 ||
		!strings.Contains(complaint, "damaged") {
		t.Errorf("damaged: exit code %d: %s", code, complaint)
	}
	if out := u.must("job", "resume", "--list"); !strings.Contains(out, "damaged") ||
		!strings.Contains(out, "interrupted") {
		t.Errorf("the list: %s", out)
	}
	release, err := folder.Hold(job.ID(jobOf(t, kept[0].Job)))
	if err != nil {
		t.Fatal(err)
	}
	if _, complaint, code := u.run("job", "resume", kept[0].Job); code != 1 {
		t.Errorf("a job that another command works on: exit code %d: %s", code, complaint)
	}
	release()
	for _, k := range kept {
		u.must("job", "resume", "--forget", k.Job)
	}
	if out := u.must("job", "resume", "--list"); !strings.Contains(out, "no job run") {
		t.Errorf("still interrupted: %s", out)
	}
}
