package wiretest_test

import (
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
)

// deputy signs for account 3 as delegate 1.
func deputy() sig.PrivateKey { return sig.FromSeed([sig.SeedSize]byte{0xde}) }

// delegate makes deputy a delegate of account 3 that may send so much within an hour.
func (f *fixture) delegate(t *testing.T, nonce uint64, number uint32, limit tx.Grains) {
	t.Helper()
	f.commit(t, f.Sign(3, f.Body(3, nonce, &tx.SetDelegate{
		Number: number, Key: deputy().Public(), Bounds: tx.Bounds{
			Operations: tx.OperationsOf(tx.KindTransfer, tx.KindTopUp), Limit: limit,
			Period: 3_600_000, Until: tx.Millis(time.Now().Add(time.Hour).UnixMilli()),
		},
	})))
}

func (f *fixture) asDelegate(number uint32, nonce uint64, operations ...tx.Operation) []byte {
	body := f.Body(3, nonce, operations...)
	body.Signer = number
	signed, err := tx.Sign(body, f.Anchor, sig.SingleKey(deputy().Public()), false, deputy())
	if err != nil {
		panic(err)
	}
	return signed.Append(nil)
}

// TestDelegatesThroughTheService: two signers of an account submit at once, each with nonces of
// its own; the account is read with its delegates; what a delegate may not is refused by name.
func TestDelegatesThroughTheService(t *testing.T) {
	f := newFixture(t)
	f.delegate(t, 0, 0, 1<<40)
	send := &tx.Transfer{To: f.Accounts[4], Amount: 1000}
	stream, err := f.client.SubmitStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	request := &ledgerv1.SubmitStreamRequest{Wait: ledgerv1.Finality_FINALITY_COMMITTED}
	set := sig.SingleKey(f.Keys[3].Public())
	const each = 20
	for n := range uint64(each) {
		own, err := tx.Sign(f.Body(3, n+1, send), f.Anchor, set, false, f.Keys[3])
		if err != nil {
			t.Fatal(err)
		}
		request.Transactions = append(request.Transactions, own.Append(nil),
			f.asDelegate(1, n, send))
	}
	if err := stream.Send(request); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range answer.GetResults() {
		if r.GetReceipt().GetStatus() != chainv1.Status_STATUS_OK {
			t.Errorf("transaction %d: %v", i, r)
		}
	}
	account := func(signer uint32) *ledgerv1.GetAccountResponse {
		r, err := f.client.GetAccount(t.Context(), &ledgerv1.GetAccountRequest{
			Account: f.Accounts[3][:], Signer: signer,
		})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	delegates := account(1).GetSigners().GetDelegates()
	if len(delegates) != 1 || delegates[0].GetNonce() != each || delegates[0].GetSpent() == 0 ||
		account(1).GetPendingNonce() != each || account(0).GetPendingNonce() != each+1 ||
		account(2).GetPendingNonce() != 0 {
		t.Errorf("the account is read as %v, nonces %d and %d", delegates,
			account(0).GetPendingNonce(), account(1).GetPendingNonce())
	}
	f.refuseDelegates(t, each, send)
	// What is committed is told again, whatever the delegate may do by now.
	if r := f.submit(t, request.GetTransactions()[1]); r.GetReceipt() == nil {
		t.Errorf("a committed transaction of a delegate at its limit: %v", r)
	}
	f.conserved(t)
}

func (f *fixture) refuseDelegates(t *testing.T, nonce uint64, send tx.Operation) {
	t.Helper()
	refused := func(name string, raw []byte, want fault.Reason) {
		t.Helper()
		if r := f.submit(t, raw); r.GetErrorReason() != string(want) {
			t.Errorf("%s: refused for %q (%s), want %s", name, r.GetErrorReason(),
				r.GetErrorMessage(), want)
		}
	}
	refused("unknown", f.asDelegate(2, 0, send), ledger.ReasonSigner)
	refused("not allowed", f.asDelegate(1, nonce, &tx.SetKeys{
		Keys: sig.SingleKey(deputy().Public()),
	}), ledger.ReasonNotAllowed)
	refused("old nonce", f.asDelegate(1, 0, send, send), ledger.ReasonNonceOld)
	refused("future nonce", f.asDelegate(1, nonce+1, send), ledger.ReasonNonceFuture)
	broken := f.asDelegate(1, nonce, send)
	broken[len(broken)-1] ^= 1
	refused("broken signature", broken, ledger.ReasonBadSignature)
	body := f.Body(3, nonce+1, &tx.SetDelegate{
		Number: 1, Key: deputy().Public(), Bounds: tx.Bounds{
			Operations: tx.OperationsOf(tx.KindTransfer), Limit: 1, Period: 60_000,
			Until: tx.Millis(time.Now().Add(time.Hour).UnixMilli()),
		},
	})
	change, err := tx.Sign(body, f.Anchor, sig.SingleKey(f.Keys[3].Public()), false, f.Keys[3])
	if err != nil {
		t.Fatal(err)
	}
	f.commit(t, change.Append(nil))
	refused("over its limit", f.asDelegate(1, nonce, send), ledger.ReasonSignerLimit)
}
