package accounts

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/cli/session"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/network"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/wire/wiretest"
)

// The people, by their place among the network's accounts.
const (
	owner = iota
	ann
	bob
	cem
	host
	people
)

// names are those of their wallets; the owner's is the default one.
func names() [people]string { return [people]string{"default", "ann", "bob", "cem", "host"} }

// world is a ledger and people with wallets, who all sit at one machine.
type world struct {
	t    *testing.T
	n    *ledgertest.Network
	data string
	pipe *rpc.Pipe
	s    *wiretest.Service
	// escrows are those that a test opened.
	escrows []tx.EscrowID
}

// play runs a test in simulated time.
func play(t *testing.T, test func(*world)) {
	dir := folder(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dir)
		defer w.stop()
		test(w)
		w.conserved()
	})
}

// folder is in memory where that is possible: a day has thousands of blocks, each durable.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ucn-accounts-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func newWorld(t *testing.T, dir string) *world {
	t.Helper()
	n, err := ledgertest.NewNetwork(1, people)
	if err != nil {
		t.Fatal(err)
	}
	c, err := wiretest.Config(n, dir)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, n: n, data: filepath.Join(dir, "data"), pipe: &rpc.Pipe{}}
	listener, err := w.pipe.Listen("ledger")
	if err != nil {
		t.Fatal(err)
	}
	if w.s, err = wiretest.ServeOn(listener, n, c, nil); err != nil {
		t.Fatal(err)
	}
	w.writeData()
	return w
}

// writeData makes the folder of wallets and the network file.
func (w *world) writeData() {
	w.t.Helper()
	err := os.MkdirAll(filepath.Join(w.data, "wallets"), 0o700)
	for i, name := range names() {
		text, encoding := keys.EncodeSigning(w.n.Keys[i], nil)
		path := filepath.Join(w.data, "wallets", name+".key")
		err = errors.Join(err, encoding, keys.Create(path, text))
	}
	err = errors.Join(err, network.Save(network.Path(w.data), network.File{
		API: "127.0.0.1:1", Chain: block.Main, Anchor: hex.EncodeToString(w.n.Anchor[:]),
		Operator: id.Bech32(id.Account, w.s.Operator),
	}))
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) stop() {
	if err := w.s.Stop(); err != nil {
		w.t.Error(err)
	}
}

// run runs a command and returns what it printed and its exit code.
func (w *world) run(input string, args ...string) (out, complaint string, code int) {
	w.t.Helper()
	var stdout, stderr bytes.Buffer
	root := cli.NewWith(cli.Deps{
		Version: "test", In: strings.NewReader(input), Out: &stdout, Err: &stderr,
		Env: func(string) string { return "" }, Now: time.Now,
		Columns:  func(any) int { return 0 },
		Password: func(string) ([]byte, error) { return nil, errors.New("nobody types") },
		Open: func(ctx context.Context, cfg session.Config) (*session.Session, error) {
			cfg.Dial = func(deps rpc.ClientDeps) (rpc.Dialer, error) {
				return rpc.NewPipeDialer(w.pipe, deps), nil
			}
			return session.Open(ctx, cfg)
		},
	})
	root.SetArgs(append(args, "--data", w.data))
	code = cli.ExecuteContext(w.t.Context(), root)
	return stdout.String(), stderr.String(), code
}

// must runs a command that succeeds.
func (w *world) must(args ...string) string {
	w.t.Helper()
	out, complaint, code := w.run("", args...)
	if code != cli.ExitOK {
		w.t.Fatalf("%v: exit code %d: %s%s", args, code, complaint, out)
	}
	return out
}

// refused runs a command that fails for a reason.
func (w *world) refused(reason string, args ...string) {
	w.t.Helper()
	w.refusedOf("", reason, args...)
}

func (w *world) refusedOf(input, reason string, args ...string) {
	w.t.Helper()
	out, complaint, code := w.run(input, append(args, "--json")...)
	if code != cli.ExitFailed || !strings.Contains(out+complaint, reason) {
		w.t.Errorf("%v: exit code %d, want %s: %s%s", args, code, reason, out, complaint)
	}
}

// parsed reads what a command printed as JSON.
func parsed[T any](w *world, args ...string) (v T) {
	w.t.Helper()
	out := w.must(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		w.t.Fatalf("%v: %v: %s", args, err, out)
	}
	return v
}

func text(account sig.AccountID) string { return id.Bech32(id.Account, account) }

func (w *world) account(person int) string { return text(w.n.Accounts[person]) }

// chain is the ledger's, for looking without asking anybody.
func (w *world) chain() *ledger.Chain { return w.s.Ledger.Chain(block.Main) }

// pass lets simulated time pass.
func (w *world) pass(d time.Duration) { time.Sleep(d) }

// conserved counts the money of all accounts and of the escrows that are open.
func (w *world) conserved() {
	w.t.Helper()
	if err := ledgertest.Conserved(w.n, w.chain(), w.escrows...); err != nil {
		w.t.Error(err)
	}
}

// do signs operations by the command line, as a file, and submits them.
func (w *world) do(operations ...tx.Operation) {
	w.t.Helper()
	signed := w.sign(operations...)
	if out, complaint, code := w.run(signed, "tx", "submit"); code != cli.ExitOK {
		w.t.Fatalf("%T: exit code %d: %s%s", operations[0], code, complaint, out)
	}
}

// fails is do for operations that the chain refuses.
func (w *world) fails(reason string, operations ...tx.Operation) {
	w.t.Helper()
	w.refusedOf(w.sign(operations...), reason, "tx", "submit")
}

func (w *world) sign(operations ...tx.Operation) string {
	w.t.Helper()
	body := tx.Body{
		Chain: block.Main, Account: w.n.Accounts[owner], Fee: 1, ValidUntil: 1,
		Operations: operations,
	}
	var list []json.RawMessage
	for _, one := range body.PB().GetOperations() {
		raw, err := protojson.Marshal(one)
		if err != nil {
			w.t.Fatal(err)
		}
		list = append(list, raw)
	}
	raw, err := json.Marshal(list)
	if err != nil {
		w.t.Fatal(err)
	}
	out, complaint, code := w.run(string(raw), "tx", "sign", "-")
	if code != cli.ExitOK {
		w.t.Fatalf("%T: exit code %d: %s", operations[0], code, complaint)
	}
	return out
}
