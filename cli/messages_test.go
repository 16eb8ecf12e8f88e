package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/cli/screen"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"

	"github.com/united-containers/ucn/cli/clitest"
)

func idle(*clitest.Visit) *jobv1.Outcome { return nil }

// TestMessagesHelp: what is refused says what to do, fits a narrow terminal, and costs no fee.
func TestMessagesHelp(t *testing.T) {
	u := newUser(t, idle)
	u.columns = 80
	none := "ucne1943evkp6dxv0ajgvhrdynu9nmtz3p234qnne9d5qdqm0qra3hhgsqq7nhg"
	lease := "ucnl1ceqq4msp6x3slc4kem8mxy9fu24wg38zu9quyudqxqwvwestynvsm5vmay"
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"jbo"}, cli.ExitUsage, "did you mean job?"},
		{[]string{"wallet", "shwo"}, cli.ExitUsage, "did you mean show?"},
		{[]string{"transfer"}, cli.ExitUsage, "0 arguments given; the call is: ucn transfer TO AMOUNT"},
		{[]string{"job", "wait"}, cli.ExitUsage, "the call is: ucn job wait JOB..."},
		{[]string{"transfer", u.operator(), "0"}, cli.ExitUsage, "nothing to send"},
		{[]string{"transfer", u.operator(), "10001"}, cli.ExitFailed, "9999.999 UCN, which is less"},
		{[]string{"job", "get", "nothing"}, cli.ExitUsage, `"nothing" is not the id of a job`},
		{[]string{"job", "get", none}, cli.ExitUsage, `begins with "ucne1", want "ucnj1"`},
		{[]string{"escrow", "get", none}, cli.ExitFailed, "ucn escrow story"},
		{[]string{"chain", "lease", lease}, cli.ExitFailed, "ucn chain charges"},
		{[]string{"wallet", "balance", "--network", "/a/rather/long/path/to/no/network/file/at/all"},
			cli.ExitUnreachable, "ucn up --detach"},
	} {
		before := u.net.Ledger.Height()
		_, complaint, code := u.run(c.args...)
		if words := strings.Join(strings.Fields(complaint), " "); code != c.code ||
			!strings.Contains(words, c.says) || u.net.Ledger.Height() != before {
			t.Errorf("%q: exit code %d, %s", c.args, code, complaint)
		}
		for line := range strings.Lines(complaint) {
			line = strings.TrimRight(line, "\n")
			if screen.Width(line) > u.columns || strings.TrimSpace(line) == "" {
				t.Errorf("%q: a line of %d columns: %q", c.args, screen.Width(line), line)
			}
		}
		if _, complaint, _ := u.run(append(c.args, "--json")...); !json.Valid([]byte(complaint)) {
			t.Errorf("%q: %s", c.args, complaint)
		}
	}
}

// TestFailedTransactionIsSaidOnce: in the words of the chain, and that it cost its fee.
func TestFailedTransactionIsSaidOnce(t *testing.T) {
	u := newUser(t, idle)
	none := "ucne1943evkp6dxv0ajgvhrdynu9nmtz3p234qnne9d5qdqm0qra3hhgsqq7nhg"
	_, complaint, code := u.run("escrow", "topup", none, "1")
	if want := "ucn: the transaction is in a block and failed, which cost its fee: "; code !=
		cli.ExitFailed || !strings.HasPrefix(complaint, want) ||
		strings.Contains(complaint, "REASON_") {
		t.Errorf("exit code %d, %s", code, complaint)
	}
}

// TestEmptyListsAreSentences: a header alone would leave a person wondering.
func TestEmptyListsAreSentences(t *testing.T) {
	u := newUser(t, idle)
	for _, list := range [][]string{
		{"job", "ls"}, {"escrow", "ls"}, {"file", "ls"}, {"file", "uploads"},
		{"wallet", "delegate", "ls"}, {"job", "resume", "--list"}, {"wallet", "recovery", "show"},
	} {
		if out := u.must(list...); strings.ToUpper(out) == out {
			t.Errorf("%q: %s", list, out)
		}
		if out := u.must(append(list, "--json")...); !json.Valid([]byte(out)) {
			t.Errorf("%q --json: %s", list, out)
		}
	}
}
