package wiretest_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/server"
	"github.com/united-containers/ucn/services/ledger/wire/wiretest"
)

// killDir tells the test binary that it is the ledger to be killed, and where its files are.
const killDir = "UCN_TEST_LEDGER_DIR"

const killSeed, killAccounts = 7, 6

// TestMain runs the ledger instead of the tests in a process that is there to be killed.
func TestMain(m *testing.M) {
	dir := os.Getenv(killDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := serveUntilKilled(dir); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func serveUntilKilled(dir string) error {
	n, err := killNetwork()
	if err != nil {
		return err
	}
	c, err := wiretest.Config(n, dir)
	if err != nil {
		return err
	}
	c.Segment = 16 << 10 // many rolls
	c.SnapshotEvery = 50 // many snapshots
	s, err := wiretest.Serve(n, c, nil)
	if err != nil {
		return err
	}
	fmt.Println("serving", s.Addr())
	select {}
}

// killNetwork is the same in both processes: its genesis has a fixed time.
func killNetwork() (*ledgertest.Network, error) {
	n, err := ledgertest.NewNetwork(killSeed, killAccounts)
	if err != nil {
		return nil, err
	}
	n.Genesis.Time = 1_700_000_000_000
	n.Anchor = n.Genesis.Anchor()
	return n, nil
}

// victim is a ledger in a process of its own.
type victim struct {
	cmd  *exec.Cmd
	addr string
}

func startVictim(t *testing.T, dir string) *victim {
	t.Helper()
	v := &victim{cmd: exec.Command(os.Args[0])}
	v.cmd.Env = append(os.Environ(), killDir+"="+dir)
	out, err := v.cmd.StdoutPipe()
	if err == nil {
		err = v.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "serving ")
	if err != nil || !ok {
		t.Fatalf("the ledger said %q, %v", line, err)
	}
	v.addr = addr
	return v
}

// kill ends the process as a power cut would, and waits until it is gone.
func (v *victim) kill() {
	_ = v.cmd.Process.Kill()
	_ = v.cmd.Wait()
}

func (v *victim) client(t *testing.T, n *ledgertest.Network) ledgerv1.LedgerServiceClient {
	t.Helper()
	operator := sig.AccountOfKey(n.Proposer.Public())
	conn, err := wiretest.Dial(v.addr, operator, n.Keys[0], server.Scope)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return ledgerv1.NewLedgerServiceClient(conn)
}

// acknowledged collects what was answered as committed.
type acknowledged struct {
	mu  sync.Mutex
	all map[string]*ledgerv1.SubmitResult
}

func (a *acknowledged) add(r *ledgerv1.SubmitResult) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all[string(r.GetId())] = r
}

// TestKillNineLosesNothingAcknowledged kills the ledger at random moments while every account
// submits, and then wants each transaction that was answered as committed at its place, once.
func TestKillNineLosesNothingAcknowledged(t *testing.T) {
	const rounds = 6
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	n, err := killNetwork()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	done := &acknowledged{all: map[string]*ledgerv1.SubmitResult{}}
	for range rounds {
		v := startVictim(t, dir)
		submitUntilKilled(t, n, v, done, time.Duration(50+random.IntN(400))*time.Millisecond)
	}
	v := startVictim(t, dir)
	checkAcknowledged(t, n, v.client(t, n), done)
}

// submitUntilKilled lets every account submit until the ledger is killed under it.
func submitUntilKilled(t *testing.T, n *ledgertest.Network, v *victim, done *acknowledged,
	after time.Duration,
) {
	t.Helper()
	client := v.client(t, n)
	timer := time.AfterFunc(after, v.kill)
	defer timer.Stop()
	var accounts sync.WaitGroup
	for i := range n.Keys {
		accounts.Go(func() {
			if err := submitLine(t.Context(), n, client, i, done); err != nil {
				t.Error(err)
			}
		})
	}
	accounts.Wait()
}

// submitLine submits one transfer after the other until the ledger is gone. It returns an error
// for an answer that must not be.
func submitLine(ctx context.Context, n *ledgertest.Network, client ledgerv1.LedgerServiceClient,
	account int, done *acknowledged,
) error {
	got, err := client.GetAccount(ctx, &ledgerv1.GetAccountRequest{Account: n.Accounts[account][:]})
	if err != nil {
		return nil // killed
	}
	for nonce := got.GetAccount().GetNonce(); ; nonce++ {
		r, err := client.Submit(ctx, &ledgerv1.SubmitRequest{
			Transaction: n.Transfer(account, (account+1)%len(n.Keys), nonce, 1000),
		})
		if err != nil {
			return nil // killed: nothing is known of this one
		}
		if r.GetResult().GetReceipt().GetStatus() != chainv1.Status_STATUS_OK {
			return fmt.Errorf("account %d, nonce %d: %v", account, nonce, r.GetResult())
		}
		done.add(r.GetResult())
	}
}

// checkAcknowledged walks the whole chain and compares it with what was answered.
func checkAcknowledged(t *testing.T, n *ledgertest.Network, client ledgerv1.LedgerServiceClient,
	done *acknowledged,
) {
	t.Helper()
	if len(done.all) < killAccounts {
		t.Fatalf("only %d transactions were acknowledged: nothing was tested", len(done.all))
	}
	chain, err := client.GetChain(t.Context(), &ledgerv1.GetChainRequest{})
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for height := uint64(1); height <= chain.GetHead().GetHeight(); height++ {
		b, err := client.GetBlock(t.Context(), &ledgerv1.GetBlockRequest{Height: height})
		if err != nil {
			t.Fatal(err)
		}
		total += len(b.GetBlock().GetBody().GetTransactions())
	}
	for _, want := range done.all {
		got, err := client.GetTransaction(t.Context(),
			&ledgerv1.GetTransactionRequest{Id: want.GetId()})
		if err != nil {
			t.Fatalf("acknowledged at block %d, and now: %v", want.GetHeight(), err)
		}
		if got.GetResult().GetHeight() != want.GetHeight() ||
			got.GetResult().GetIndex() != want.GetIndex() {
			t.Errorf("acknowledged at %d/%d, found at %d/%d", want.GetHeight(), want.GetIndex(),
				got.GetResult().GetHeight(), got.GetResult().GetIndex())
		}
	}
	// Every committed transaction used one nonce, so none is there twice.
	nonces := uint64(0)
	for _, id := range n.Accounts {
		a, err := client.GetAccount(t.Context(), &ledgerv1.GetAccountRequest{Account: id[:]})
		if err != nil {
			t.Fatal(err)
		}
		nonces += a.GetAccount().GetNonce()
	}
	if nonces != uint64(total) || total < len(done.all) {
		t.Errorf("%d transactions are in blocks, %d nonces were used, %d were acknowledged", total,
			nonces, len(done.all))
	}
	t.Logf("%d acknowledged, %d committed on chain %s", len(done.all), total, block.Main)
}

func TestSecondLedgerOnTheSameFilesIsRefused(t *testing.T) {
	dir := t.TempDir()
	v := startVictim(t, dir)
	n, err := killNetwork()
	if err != nil {
		t.Fatal(err)
	}
	c, err := wiretest.Config(n, dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = wiretest.Serve(n, c, nil)
	if want := fmt.Sprintf("in use by process %d", v.cmd.Process.Pid); err == nil ||
		!strings.Contains(err.Error(), want) {
		t.Errorf("second ledger: %v, want %q", err, want)
	}
}
