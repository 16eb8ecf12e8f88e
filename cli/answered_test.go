package cli_test

import (
	"context"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/kit/id"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// TestHistoryIsProven: a block is proven to be an ancestor of the last one, online and from the
// file offline; a proof of another block and a changed one are refused.
func TestHistoryIsProven(t *testing.T) {
	u := started(t, honest)
	to := u.friend("bob")
	u.must("transfer", to, "1")
	u.must("transfer", to, "1")
	file := filepath.Join(t.TempDir(), "history.json")
	var online struct {
		Hash string
		Head uint64 `json:"proven_ancestor_of"`
	}
	decode(t, u.must("chain", "block", "1", "-o", file, "--json"), &online)
	var shown struct {
		Block    uint64
		Hash     string `json:"block_hash"`
		Head     uint64 `json:"ancestor_of"`
		Verified bool
	}
	offline, trusted := newUser(t, nil), []string{"--anchor", u.net.File().Anchor}
	decode(t, offline.must(append([]string{"verify", file, "--json"}, trusted...)...), &shown)
	if !shown.Verified || shown.Block != 1 || shown.Hash != online.Hash || shown.Head != online.Head ||
		online.Head < 2 {
		t.Errorf("offline %+v, online %+v", shown, online)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.json")
	forged := strings.Replace(string(text), `"height":"1"`, `"height":"2"`, 1)
	forged = strings.Replace(forged, `"height": "1"`, `"height": "2"`, 1)
	if err := os.WriteFile(bad, []byte(forged), 0o600); err != nil || forged == string(text) {
		t.Fatal(err, "nothing was forged")
	}
	if out, _, code := offline.run(append([]string{"verify", bad}, trusted...)...); code !=
		cli.ExitFailed {
		t.Errorf("forged: %d, %s", code, out)
	}
	u.net.Ledger.LieOfHistory = func(r *ledgerv1.GetHistoryProofResponse) {
		r.Proof.Ancestor = r.GetProof().GetHeader()
	}
	if out, _, code := u.run("chain", "block", "1", "-o", bad); code != cli.ExitFailed {
		t.Errorf("a proof of another block: %d, %s", code, out)
	}
}

// TestAnswersOfREST: what REST answers to a question with prove=true is verified offline with the
// genesis beside it. What is said beside the proof is not shown.
func TestAnswersOfREST(t *testing.T) {
	u := started(t, honest)
	account := walletOf(t, u.must("wallet", "show", "--json"))
	to := u.friend("bob")
	var sent struct{ Transaction string }
	decode(t, u.must("transfer", to, "1", "--json"), &sent)
	l, ctx := u.net.Ledger, context.Background()
	genesis := filepath.Join(t.TempDir(), "genesis.bin")
	if err := os.WriteFile(genesis, l.Genesis.Append(nil), 0o600); err != nil {
		t.Fatal(err)
	}
	none := make([]byte, 32)
	raw, err := id.ParseBech32(id.Account, account)
	if err != nil {
		t.Fatal(err)
	}
	sentID, err := hex.DecodeString(sent.Transaction)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ask  func() (proto.Message, error)
		says string
	}{
		"account": {func() (proto.Message, error) {
			r, err := l.GetAccount(ctx, &ledgerv1.GetAccountRequest{Account: raw[:], Prove: true})
			if err == nil {
				r.Account.Balance, r.Height = 1, 99
			}
			return r, err
		}, account},
		"no account": {func() (proto.Message, error) {
			return l.GetAccount(ctx, &ledgerv1.GetAccountRequest{Account: none, Prove: true})
		}, "does not exist"},
		"no escrow": {func() (proto.Message, error) {
			return l.GetEscrow(ctx, &ledgerv1.GetEscrowRequest{Escrow: none, Prove: true})
		}, "escrow"},
		"no lease": {func() (proto.Message, error) {
			return l.GetLease(ctx, &ledgerv1.GetLeaseRequest{Lease: none, Prove: true})
		}, "lease"},
		"supply": {func() (proto.Message, error) {
			return l.GetSupply(ctx, &ledgerv1.GetSupplyRequest{Prove: true})
		}, "burned since"},
		"history": {func() (proto.Message, error) {
			return l.GetHistoryProof(ctx, &ledgerv1.GetHistoryProofRequest{Height: 0})
		}, "ancestor of"},
		"transaction": {func() (proto.Message, error) {
			return l.GetTransaction(ctx, &ledgerv1.GetTransactionRequest{
				Id: sentID, Prove: true,
			})
		}, sent.Transaction},
	} {
		m, err := c.ask()
		if err != nil {
			t.Fatal(name, err)
		}
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "answer.json")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		out := newUser(t, nil).must("verify", file, "--genesis", genesis)
		if !strings.Contains(out, "proof verified") || !strings.Contains(out, c.says) {
			t.Errorf("%s: %s", name, out)
		}
		if out, _, code := newUser(t, nil).run("verify", file); code != cli.ExitFailed {
			t.Errorf("%s without the genesis: %d, %s", name, code, out)
		}
	}
}
