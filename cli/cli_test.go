package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/cli/clitest"
	"github.com/united-containers/ucn/cli/session"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/network"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

const imageCID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"

func ownerKey() sig.PrivateKey { return sig.FromSeed([32]byte{50}) }

// user is a person with a data folder.
type user struct {
	t    *testing.T
	data string
	net  *clitest.Network // nil: none is running
	ctx  context.Context
	// typed are the passphrases that the person types, one after the other.
	typed []string
}

// newUser has the default wallet, plain, and a network whose executor follows the script.
func newUser(t *testing.T, script clitest.Script) *user {
	t.Helper()
	u := &user{t: t, data: t.TempDir(), ctx: t.Context()}
	if script == nil {
		return u
	}
	u.net = clitest.Start(t, ownerKey(), script)
	if err := network.Save(network.Path(u.data), u.net.File()); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(u.data, "wallets"), 0o700); err != nil {
		t.Fatal(err)
	}
	text, err := keys.EncodeSigning(ownerKey(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Create(filepath.Join(u.data, "wallets", "default.key"), text); err != nil {
		t.Fatal(err)
	}
	return u
}

// run runs a command and returns what it printed and the exit code.
func (u *user) run(args ...string) (out, complaint string, code int) {
	u.t.Helper()
	return u.feed("", args...)
}

func (u *user) feed(input string, args ...string) (out, complaint string, code int) {
	u.t.Helper()
	var stdout, stderr bytes.Buffer
	root := u.command(input, &stdout, &stderr)
	root.SetArgs(append(args, "--data", u.data))
	if at := indexOf(args, "--"); at >= 0 { // flags stand before it
		root.SetArgs(append(append(append([]string{}, args[:at]...), "--data", u.data), args[at:]...))
	}
	code = cli.ExecuteContext(u.ctx, root)
	return stdout.String(), stderr.String(), code
}

func indexOf(list []string, text string) int {
	for i := range list {
		if list[i] == text {
			return i
		}
	}
	return -1
}

func (u *user) command(input string, stdout, stderr *bytes.Buffer) *cobra.Command {
	return cli.NewWith(cli.Deps{
		Version: "test", In: strings.NewReader(input), Out: stdout, Err: stderr,
		Env: func(string) string { return "" }, Now: time.Now,
		Columns: func(any) int { return 0 },
		Password: func(string) ([]byte, error) {
			if len(u.typed) == 0 {
				return nil, errors.New("nobody types")
			}
			next := u.typed[0]
			u.typed = u.typed[1:]
			return []byte(next), nil
		},
		Open: func(ctx context.Context, cfg session.Config) (*session.Session, error) {
			if u.net != nil {
				cfg = u.net.Attach(cfg)
			}
			return session.Open(ctx, cfg)
		},
	})
}

// must runs a command that succeeds.
func (u *user) must(args ...string) string {
	u.t.Helper()
	out, complaint, code := u.run(args...)
	if code != 0 {
		u.t.Fatalf("%v: exit code %d: %s%s", args, code, complaint, out)
	}
	return out
}

// once is the usage of the run alone: its price is 1,000,000 grains.
func once() price.Usage { return price.Usage{Runs: 1} }

const runPrice = 1_000_000

// honest runs a program that writes a picture.
func honest(u *user) clitest.Script {
	return func(v *clitest.Visit) *jobv1.Outcome {
		v.Running()
		v.Log(1, "rendering")
		note := v.Note(once(), runPrice, true)
		v.Charge(note, v.AwaitAck(note), true)
		return &jobv1.Outcome{
			Reason: jobv1.EndReason_END_REASON_COMPLETED, Amount: runPrice,
			Outputs: []*jobv1.OutputFile{{
				Path: "/out/picture.png", Cid: u.net.Storage.Keep([]byte("a picture")), Size: 9,
			}},
			Usage: once().PB(),
		}
	}
}

// started returns a user whose script may speak of the user's network.
func started(t *testing.T, script func(*user) clitest.Script) *user {
	t.Helper()
	var u *user
	u = newUser(t, func(v *clitest.Visit) *jobv1.Outcome { return script(u)(v) })
	return u
}

// ids replaces what differs between runs.
func ids(text string) string {
	for _, r := range []struct{ pattern, with string }{
		{`ucn[elj]?1[a-z0-9]{50,}`, "ID"}, {`[0-9a-f]{64}`, "HASH"}, {`[0-9a-f]{32}`, "TRACE"},
		{`\d\d:\d\d:\d\d`, "TIME"}, {`bafk[a-z0-9]+`, "CID"}, {`/\S*/picture.png`, "PICTURE"},
		{`0\.9989\d+|9999\.99\d+|0\.0000\d+`, "MONEY"}, {` +\n`, "\n"},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.with)
	}
	return text
}

func TestJobRun(t *testing.T) {
	u := started(t, honest)
	picture := filepath.Join(t.TempDir(), "picture.png")
	out := u.must("job", "run", imageCID, "--output", "/out/picture.png:"+picture, "--", "-w", "64")
	want := `TIME submitted ID, escrow ID, trace TRACE
TIME leased on alpha-1: leased to alpha-1
TIME running on alpha-1
rendering
TIME cost so far 0.001 UCN
TIME completed on alpha-1
TIME saved PICTURE (9 B)

result  completed
output  PICTURE -> PICTURE (9 B)

bill      escrow ID
charge 1  0.001 UCN to alpha-1 in block 3, final
          usage so far: 0.0 s, 0.00 core·s, 1 run
          prices in UCN: 0.0036/core·h, 0.001/run
          proof verified: HASH
paid      0.001 UCN in 1 charges
refunded  1 UCN
escrow    closed
fees      MONEY UCN
balance   10000 UCN before, 9999 UCN after
proof     verified: 3 receipts against certified headers
trace     TRACE
`
	got := regexp.MustCompile(`\d+\.\d+ UCN after`).ReplaceAllString(ids(out), "9999 UCN after")
	got = strings.ReplaceAll(got, "MONEY UCN before", "10000 UCN before")
	got = strings.ReplaceAll(got, "MONEY UCN after", "9999 UCN after")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if saved, err := os.ReadFile(picture); err != nil || string(saved) != "a picture" {
		t.Errorf("saved %q, %v", saved, err)
	}
	if n := len(u.net.Market.Acks()); n != 1 {
		t.Errorf("%d countersignatures", n)
	}
}

// result decodes the last line of --json.
func result(t *testing.T, out string) map[string]any {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var e struct {
		Event  string         `json:"event"`
		Report map[string]any `json:"report"`
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &e); err != nil || e.Event != "result" {
		t.Fatalf("the last line is no result: %v: %s", err, lines[len(lines)-1])
	}
	return e.Report
}

func TestJobRunJSON(t *testing.T) {
	u := started(t, honest)
	report := result(t, u.must("job", "run", imageCID, "--json", "--no-outputs"))
	bill := report["bill"].(map[string]any)
	charge := bill["charges"].([]any)[0].(map[string]any)
	for name, pair := range map[string][2]any{
		"result": {report["result"], "completed"}, "paid": {bill["paid"], "0.001"},
		"closed": {bill["escrow_closed"], true}, "proofs": {bill["proofs_verified"], 3.0},
		"host": {charge["host"], "alpha-1"}, "ack": {charge["countersigned"], true},
		"proof": {charge["proof_verified"], true}, "final": {charge["final"], true},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %v, want %v", name, pair[0], pair[1])
		}
	}
	if warnings := report["warnings"]; warnings != nil {
		t.Errorf("warnings: %v", warnings)
	}
}

// TestLyingHost: notes that do not follow are not countersigned, and without that the chain pays
// the lease's trust at most.
func TestLyingHost(t *testing.T) {
	liars := map[string]func(v *clitest.Visit) tx.Note{
		"inflated": func(v *clitest.Visit) tx.Note { return v.Note(once(), 900_000_000, true) },
		"backwards": func(v *clitest.Visit) tx.Note {
			v.AwaitAck(v.Note(price.Usage{Runs: 1, CPUNS: 9}, runPrice, false))
			return v.Note(once(), runPrice, true)
		},
		"impossible": func(v *clitest.Visit) tx.Note {
			return v.Note(price.Usage{Runs: 500}, 500*runPrice, true)
		},
	}
	for name, lie := range liars {
		t.Run(name, func(t *testing.T) {
			u := newUser(t, func(v *clitest.Visit) *jobv1.Outcome {
				v.Charge(lie(v), nil, true)
				return &jobv1.Outcome{Reason: jobv1.EndReason_END_REASON_COMPLETED}
			})
			out := u.must("job", "run", imageCID, "--json")
			if !strings.Contains(out, `"event":"refused"`) {
				t.Errorf("no note was refused:\n%s", out)
			}
			honest := 0
			if name == "backwards" {
				honest = 1
			}
			if n := len(u.net.Market.Acks()); n != honest {
				t.Errorf("%d notes were countersigned, want %d", n, honest)
			}
			paid := result(t, out)["bill"].(map[string]any)["paid"].(string)
			if paid > "0.001001" { // upfront and trust
				t.Errorf("the chain paid %s", paid)
			}
		})
	}
}

func TestJobThatFails(t *testing.T) {
	u := newUser(t, func(v *clitest.Visit) *jobv1.Outcome {
		note := v.Note(once(), runPrice, true)
		v.Charge(note, v.AwaitAck(note), true)
		return &jobv1.Outcome{
			Reason: jobv1.EndReason_END_REASON_FAILED, ExitCode: 7,
			Message: "the program exited with code 7",
		}
	})
	out, complaint, code := u.run("job", "run", imageCID, "--quiet")
	if code != cli.ExitJob || out != "failed\n" || complaint != "" {
		t.Errorf("exit code %d, %q, %q", code, out, complaint)
	}
}

// TestInterrupt: the first signal cancels the job, and the bill is waited for.
func TestInterrupt(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	u := newUser(t, func(v *clitest.Visit) *jobv1.Outcome {
		v.Running()
		interrupt()
		<-v.Cancelled()
		note := v.Note(once(), runPrice, true)
		v.Charge(note, v.AwaitAck(note), true)
		return &jobv1.Outcome{Reason: jobv1.EndReason_END_REASON_CANCELLED}
	})
	u.ctx = ctx
	out, _, code := u.run("job", "run", imageCID, "--json")
	bill := result(t, out)["bill"].(map[string]any)
	if code != cli.ExitJob || bill["paid"] != "0.001" || bill["escrow_closed"] != true {
		t.Errorf("exit code %d, bill %v", code, bill)
	}
}

// TestRefusedJob: what the scheduler does not take costs fees, nothing else.
func TestRefusedJob(t *testing.T) {
	u := started(t, honest)
	u.net.Market.Refuse = fault.New(fault.FailedPrecondition, "ESCROW_UNFIT", "no, thanks")
	_, complaint, code := u.run("job", "run", imageCID)
	if code != cli.ExitFailed || !strings.Contains(complaint, "no, thanks") {
		t.Errorf("exit code %d, %q", code, complaint)
	}
	if balance := u.must("wallet", "balance", "--quiet"); !strings.HasPrefix(balance, "9999.998") {
		t.Errorf("the balance is %s", balance)
	}
}

func TestDamagedOutputIsNotSaved(t *testing.T) {
	u := started(t, honest)
	name := u.net.Storage.Keep([]byte("precious"))
	u.net.Storage.Damage(name)
	to := filepath.Join(t.TempDir(), "x")
	if _, complaint, code := u.run("file", "get", name, "-o", to); code != cli.ExitFailed {
		t.Errorf("exit code %d, %q", code, complaint)
	}
	left, err := os.ReadDir(filepath.Dir(to))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFilePutGet(t *testing.T) {
	u := started(t, honest)
	out, _, code := u.feed("some bytes", "file", "put", "-", "--name", "n")
	if code != 0 {
		t.Fatal(code)
	}
	if got := u.must("file", "get", strings.TrimSpace(out), "-o", "-"); got != "some bytes" {
		t.Errorf("got %q", got)
	}
}

func TestTransferAndProof(t *testing.T) {
	u := started(t, honest)
	to := walletOf(t, u.must("wallet", "new", "bob", "--no-passphrase", "--json"))
	var sent map[string]any
	if err := json.Unmarshal([]byte(u.must("transfer", to, "1.5", "--json")), &sent); err != nil {
		t.Fatal(err)
	}
	if sent["status"] != "ok" || sent["amount"] != "1.5" || sent["to"] != to {
		t.Errorf("got %v", sent)
	}
	if got := u.must("wallet", "balance", "bob", "--quiet"); got != "1.499\n" { // less its deposit
		t.Errorf("bob has %s", got)
	}
	u.must("account", "get", to, "--proof")
	file := filepath.Join(t.TempDir(), "proof.json")
	u.must("tx", "get", sent["transaction"].(string), "--proof", "-o", file)
	anchor := u.net.File().Anchor
	offline := newUser(t, nil)
	out := offline.must("verify", file, "--anchor", anchor)
	if !strings.HasPrefix(out, "proof verified\n") {
		t.Error(out)
	}
	for name, change := range map[string][2]string{
		"another anchor": {}, "another receipt": {`"receipt": "`, `"receipt": "AAAA`},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		trusted := anchor
		if change[0] == "" {
			trusted = strings.Repeat("00", 32)
		}
		changed := strings.Replace(string(text), change[0], change[1], 1)
		bad := filepath.Join(t.TempDir(), "bad.json")
		if err := os.WriteFile(bad, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, code := offline.run("verify", bad, "--anchor", trusted); code != cli.ExitFailed {
			t.Errorf("%s: exit code %d", name, code)
		}
	}
}

func walletOf(t *testing.T, out string) string {
	t.Helper()
	var w struct{ Account string }
	if err := json.Unmarshal([]byte(out), &w); err != nil {
		t.Fatal(err)
	}
	return w.Account
}

func TestSignAndSubmit(t *testing.T) {
	u := started(t, honest)
	to := walletOf(t, u.must("wallet", "show", "--json"))
	signed, _, code := u.feed(`- transfer: {to: `+to+`, amount: "5"}`, "tx", "sign", "-")
	if code != 0 {
		t.Fatal(code)
	}
	out, complaint, code := u.feed(signed, "tx", "submit", "--json")
	if code != 0 || !strings.Contains(out, `"status": "ok"`) {
		t.Errorf("exit code %d, %s%s", code, out, complaint)
	}
	if out, _, _ := u.feed(signed, "tx", "submit", "--json"); !strings.Contains(out,
		`"status": "ok"`) {
		t.Errorf("the same again: %s", out)
	}
	for _, bad := range []string{"", "- fly: {}", "- transfer: {amount: \"5\"}", "{"} {
		if _, _, code := u.feed(bad, "tx", "sign", "-"); code != cli.ExitUsage {
			t.Errorf("%q: exit code %d", bad, code)
		}
	}
}

func TestPassphrases(t *testing.T) {
	u := started(t, honest)
	u.typed = []string{"one", "two"}
	if _, complaint, code := u.run("wallet", "new", "safe"); code != cli.ExitFailed ||
		!strings.Contains(complaint, "differ") {
		t.Errorf("exit code %d, %q", code, complaint)
	}
	u.typed = []string{"one", "one"}
	u.must("wallet", "new", "safe")
	u.typed = []string{"wrong"}
	if _, complaint, code := u.run("transfer", "--wallet", "safe", walletOf(t,
		u.must("wallet", "show", "--json")), "1"); code != cli.ExitFailed ||
		!strings.Contains(complaint, "passphrase") {
		t.Errorf("exit code %d, %q", code, complaint)
	}
	file := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(file, []byte("one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.must("auth", "token", "--wallet", "safe", "--passphrase-file", file, "--scope", "job")
}

func TestExitCodes(t *testing.T) {
	u := started(t, honest)
	away := newUser(t, nil)
	tests := []struct {
		who  *user
		args []string
		code int
		says string
	}{
		{u, []string{"frobnicate"}, cli.ExitUsage, "unknown command"},
		{u, []string{"job", "runn"}, cli.ExitUsage, "no command"},
		{u, []string{"job", "run"}, cli.ExitUsage, "names no image"},
		{u, []string{"job", "run", "a", "b"}, cli.ExitUsage, "after --"},
		{u, []string{"job", "run", imageCID, "--cpu", "x"}, cli.ExitUsage, "cores"},
		{u, []string{"job", "run", imageCID, "--secret", "A"}, cli.ExitUsage, "secret"},
		{u, []string{"job", "run", imageCID, "--max-total", "20000"}, cli.ExitFailed, "too little"},
		{u, []string{"job", "get", "ucne1x"}, cli.ExitUsage, "ucnj1"},
		{u, []string{"transfer", "ucn1x", "1"}, cli.ExitUsage, "account"},
		{u, []string{"wallet", "show", "nobody"}, cli.ExitFailed, "wallet new"},
		{u, []string{"auth", "token", "--scope", "job", "--expires", "48h"}, cli.ExitUsage, "24h"},
		{u, []string{"tx", "get", "12"}, cli.ExitUsage, "64 hexadecimal"},
		{away, []string{"market"}, cli.ExitUnreachable, "ucn up"},
	}
	for _, test := range tests {
		out, complaint, code := test.who.run(test.args...)
		if code != test.code || !strings.Contains(complaint, test.says) {
			t.Errorf("%v: exit code %d, %q%s; want %d, %q", test.args, code, complaint, out,
				test.code, test.says)
		}
	}
}

// TestHelp: every command says what it does and shows an example.
func TestHelp(t *testing.T) {
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		if c.Short == "" {
			t.Errorf("%s: no word about it", c.CommandPath())
		}
		if !c.HasSubCommands() && c.Example == "" {
			t.Errorf("%s: no example", c.CommandPath())
		}
		for _, inner := range c.Commands() {
			if inner.Name() != "help" && inner.Name() != "completion" {
				check(inner)
			}
		}
	}
	check(cli.New("test"))
}
