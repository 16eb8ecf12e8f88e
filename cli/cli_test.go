package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/cli/clitest"
	"github.com/united-containers/ucn/cli/session"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/network"
)

const imageCID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"

func ownerKey() sig.PrivateKey { return sig.FromSeed([32]byte{50}) }

// user is a person with a data folder.
type user struct {
	t    *testing.T
	data string
	net  *clitest.Network // nil: none is running
	ctx  context.Context
	// columns and rows are the terminal's; 0: there is none.
	columns, rows int
	// skew is how far the person's clock is ahead.
	skew time.Duration
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
		Env:     func(string) string { return "" },
		Now:     func() time.Time { return time.Now().Add(u.skew) },
		Columns: func(any) int { return u.columns }, Rows: func(any) int { return u.rows },
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

// TestGetIntoAPipe: what is no ordinary file is written into. Replacing it would, for root, take
// /dev/null from the whole machine.
func TestGetIntoAPipe(t *testing.T) {
	u := started(t, honest)
	out, _, code := u.feed("some bytes", "file", "put", "-", "--name", "n")
	if code != cli.ExitOK {
		t.Fatalf("put ended with %d", code)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	read := make(chan string, 1)
	go func() {
		got, err := os.ReadFile(pipe)
		if err != nil {
			got = []byte(err.Error())
		}
		read <- string(got)
	}()
	u.must("file", "get", strings.TrimSpace(out), "-o", pipe)
	if got := <-read; got != "some bytes" {
		t.Errorf("the pipe's reader got %q", got)
	}
	if info, err := os.Lstat(pipe); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("the pipe became %v, %v", info, err)
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
		{u, []string{"frobnicate"}, cli.ExitUsage, "there is no command"},
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
