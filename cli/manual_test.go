package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/united-containers/ucn/cli"
)

func TestManPages(t *testing.T) {
	u := newUser(t, nil)
	dir := filepath.Join(t.TempDir(), "man1")
	u.must("man", dir)
	page, err := os.ReadFile(filepath.Join(dir, "ucn-job-run.1"))
	if err != nil || !strings.Contains(string(page), "countersign") ||
		!strings.Contains(string(page), "array") {
		t.Errorf("%v: %s", err, page)
	}
}

// completed is what a shell is told.
func (u *user) completed(words ...string) string {
	u.t.Helper()
	var out, bad bytes.Buffer
	root := u.command("", &out, &bad)
	root.SetArgs(append([]string{"__complete", "--data", u.data}, words...))
	cli.ExecuteContext(u.ctx, root)
	return out.String()
}

func TestCompletionNamesJobs(t *testing.T) {
	u := started(t, honest)
	u.must("job", "run", imageCID, "--no-outputs")
	out := u.completed("job", "bill", "")
	if !strings.Contains(out, "ucnj1") || !strings.Contains(out, "completed") {
		t.Errorf("completed to %q", out)
	}
	if out := u.completed("job", "bill", "ucnj1zz"); strings.Contains(out, "ucnj1") {
		t.Errorf("another beginning completed to %q", out)
	}
	if out := newUser(t, nil).completed("job", "logs", ""); strings.Contains(out, "network") {
		t.Errorf("without a network a shell is told %q", out)
	}
}
