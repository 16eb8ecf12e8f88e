package wiretest_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"math"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/trie"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/server"
	"github.com/united-containers/ucn/services/ledger/wire/wiretest"
)

// fixture is a ledger that serves a small network, and a client with a token.
type fixture struct {
	*ledgertest.Network
	service *wiretest.Service
	client  ledgerv1.LedgerServiceClient
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	n, err := ledgertest.NewNetwork(1, 10)
	if err != nil {
		t.Fatal(err)
	}
	c, err := wiretest.Config(n, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := wiretest.Serve(n, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("the ledger ended with %v", err)
		}
	})
	f := &fixture{Network: n, service: s}
	f.client = f.dial(t, n.Keys[0], server.Scope)
	return f
}

func (f *fixture) dial(t *testing.T, key sig.PrivateKey, scopes ...string,
) ledgerv1.LedgerServiceClient {
	t.Helper()
	conn, err := f.service.Dial(key, scopes...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return ledgerv1.NewLedgerServiceClient(conn)
}

func (f *fixture) submit(t *testing.T, raw []byte) *ledgerv1.SubmitResult {
	t.Helper()
	r, err := f.client.Submit(t.Context(), &ledgerv1.SubmitRequest{Transaction: raw})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetResult()
}

// commit wants the transaction committed and ok.
func (f *fixture) commit(t *testing.T, raw []byte) *ledgerv1.SubmitResult {
	t.Helper()
	r := f.submit(t, raw)
	if r.GetReceipt().GetStatus() != chainv1.Status_STATUS_OK {
		t.Fatalf("not committed: %v", r)
	}
	return r
}

func (f *fixture) conserved(t *testing.T) {
	t.Helper()
	if err := ledgertest.Conserved(f.Network, f.service.Ledger.Chain(block.Main)); err != nil {
		t.Error(err)
	}
}

// sign signs a body of account 3 after a change.
func (f *fixture) sign(change func(*tx.Body)) []byte {
	body := f.Body(3, 0, &tx.Transfer{To: f.Accounts[4], Amount: 1000})
	change(&body)
	return f.Sign(3, body)
}

// operations encodes a transaction with as many operations as asked, whatever the limit.
func (f *fixture) operations(t *testing.T, n int) []byte {
	t.Helper()
	m := &chainv1.Transaction{}
	if err := canon.Unmarshal(f.sign(func(*tx.Body) {}), m); err != nil {
		t.Fatal(err)
	}
	for len(m.Body.Operations) < n {
		m.Body.Operations = append(m.Body.Operations, m.Body.Operations[0])
	}
	raw, err := canon.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestBadTransactionsAreNamedAndNothingIsLost(t *testing.T) {
	f := newFixture(t)
	f.commit(t, f.Transfer(5, 6, 0, 1)) // so that account 5 has an old nonce and a key set
	good := f.sign(func(*tx.Body) {})
	other := *f.Network
	other.Anchor[0] ^= 1 // another network whose chain is main too
	poor := *f.Network
	poor.Accounts, poor.Keys = []sig.AccountID{sig.AccountOfKey(poorKey().Public())},
		[]sig.PrivateKey{poorKey()}
	cases := map[string]struct {
		raw  []byte
		want fault.Reason
	}{
		"wrong signature": {flipLast(good), ledger.ReasonBadSignature},
		"another's key": {f.Sign(5, f.Body(3, 1, &tx.Transfer{To: f.Accounts[4], Amount: 1})),
			ledger.ReasonBadSignature},
		"foreign key set": {f.Sign(5, f.Body(3, 0, &tx.Transfer{To: f.Accounts[4], Amount: 1})),
			ledger.ReasonBadSignature},
		"network of the same name": {other.Transfer(3, 4, 0, 1000), ledger.ReasonBadSignature},
		"wrong chain": {f.sign(func(b *tx.Body) {
			b.Chain = "0190b0a0-0000-8000-8000-000000000000"
		}), ledger.ReasonWrongChain},
		"delegate":     {f.sign(func(b *tx.Body) { b.Signer = 1 }), ledger.ReasonSigner},
		"old nonce":    {f.Transfer(5, 6, 0, 2), ledger.ReasonBadSignature}, // the set is known now
		"used nonce":   {f.again(t), ledger.ReasonNonceOld},
		"future nonce": {f.Transfer(5, 6, 9, 1), ledger.ReasonNonceFuture},
		"expired": {f.sign(func(b *tx.Body) {
			b.ValidUntil = tx.Millis(time.Now().Add(-time.Second).UnixMilli())
		}), ledger.ReasonExpired},
		"valid too long": {f.sign(func(b *tx.Body) {
			b.ValidUntil = tx.Millis(time.Now().Add(25 * time.Hour).UnixMilli())
		}), ledger.ReasonTooFarAhead},
		"never valid": {f.sign(func(b *tx.Body) { b.ValidUntil = 0 }), ledger.ReasonExpired},
		"fee too low": {f.sign(func(b *tx.Body) { b.Fee = 10 }), ledger.ReasonFeeTooLow},
		"no account": {poor.Sign(0, poor.Body(0, 0, &tx.Transfer{To: f.Accounts[1], Amount: 1})),
			ledger.ReasonCannotPay},
		"no operation":            {f.operationsOf(t), ledger.ReasonMalformed},
		"too many operations":     {f.operations(t, tx.MaxOperations+1), ledger.ReasonMalformed},
		"unknown field":           {append(bytes.Clone(good), 0x78, 1), ledger.ReasonMalformed},
		"repeated":                {append(bytes.Clone(good), good...), ledger.ReasonMalformed},
		"length is not minimal":   {notMinimal(t, good), ledger.ReasonMalformed},
		"truncated":               {good[:len(good)-1], ledger.ReasonMalformed},
		"empty":                   {nil, ledger.ReasonMalformed},
		"random":                  {random(t, 300), ledger.ReasonMalformed},
		"too large":               {random(t, tx.MaxTransaction+1), ledger.ReasonTooLarge},
		"body larger than a body": {f.sized(t, tx.MaxBody+1), ledger.ReasonMalformed},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := f.submit(t, c.raw)
			if r.GetErrorReason() != string(c.want) || r.GetErrorMessage() == "" ||
				r.GetErrorCode() == 0 {
				t.Errorf("refused for %q (%s), want %s", r.GetErrorReason(), r.GetErrorMessage(),
					c.want)
			}
			if r.GetFinality() != ledgerv1.Finality_FINALITY_UNSPECIFIED || r.GetReceipt() != nil {
				t.Errorf("it came as far as %v, %v", r.GetFinality(), r.GetReceipt())
			}
			f.conserved(t)
		})
	}
	// Nothing of the above is in the way of the good one.
	f.commit(t, good)
	f.conserved(t)
}

func poorKey() sig.PrivateKey { return sig.FromSeed([sig.SeedSize]byte{0xee}) }

func flipLast(raw []byte) []byte {
	raw = bytes.Clone(raw)
	raw[len(raw)-1] ^= 1
	return raw
}

// again signs with the set that is in force a transaction whose nonce is used.
func (f *fixture) again(t *testing.T) []byte {
	t.Helper()
	set := sig.SingleKey(f.Keys[5].Public())
	body := f.Body(5, 0, &tx.Transfer{To: f.Accounts[6], Amount: 2})
	signed, err := tx.Sign(body, f.Anchor, set, false, f.Keys[5])
	if err != nil {
		t.Fatal(err)
	}
	return signed.Append(nil)
}

func (f *fixture) operationsOf(t *testing.T) []byte {
	t.Helper()
	m := &chainv1.Transaction{}
	if err := canon.Unmarshal(f.sign(func(*tx.Body) {}), m); err != nil {
		t.Fatal(err)
	}
	m.Body.Operations = nil
	raw, err := canon.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// sized makes a transaction whose body has about so many bytes, out of large settles.
func (f *fixture) sized(t *testing.T, size int) []byte {
	t.Helper()
	m := &chainv1.Transaction{}
	if err := canon.Unmarshal(f.sign(func(*tx.Body) {}), m); err != nil {
		t.Fatal(err)
	}
	settle := &chainv1.Settle{}
	for range 100 {
		settle.Leases = append(settle.Leases, bytes.Repeat([]byte{7}, 32))
	}
	for n := 0; n < size; n += 34 * 100 {
		m.Body.Operations = append(m.Body.Operations,
			&chainv1.Operation{Kind: &chainv1.Operation_Settle{Settle: settle}})
	}
	raw, err := canon.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) > tx.MaxTransaction {
		t.Fatalf("%d bytes are more than a transaction may have at all", len(raw))
	}
	return raw
}

// notMinimal writes the first length with one byte more than it needs.
func notMinimal(t *testing.T, raw []byte) []byte {
	t.Helper()
	if raw[1]&0x80 != 0 {
		t.Fatalf("the body's length is not one byte: % x", raw[:4])
	}
	return append([]byte{raw[0], raw[1] | 0x80, 0}, raw[2:]...)
}

func random(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFailedTransactionsCostTheirFeeOnly(t *testing.T) {
	f := newFixture(t)
	cases := []struct {
		amount tx.Grains
		want   chainv1.Reason
	}{
		{math.MaxUint64, chainv1.Reason_REASON_BALANCE_TOO_LOW},
		{ledgertest.Each + 1, chainv1.Reason_REASON_BALANCE_TOO_LOW},
		{0, chainv1.Reason_REASON_AMOUNT_ZERO},
	}
	for nonce, c := range cases {
		r := f.submit(t, f.Transfer(1, 2, uint64(nonce), c.amount))
		if r.GetFinality() != ledgerv1.Finality_FINALITY_COMMITTED ||
			r.GetReceipt().GetReason() != c.want {
			t.Errorf("transfer of %d: %v", c.amount, r)
		}
		f.conserved(t)
	}
	r, err := f.client.GetAccount(t.Context(),
		&ledgerv1.GetAccountRequest{Account: f.Accounts[2][:]})
	want := uint64(ledgertest.Each - f.Genesis.Params.AccountLock)
	if err != nil || r.GetAccount().GetBalance() != want {
		t.Errorf("the receiver holds %v, %v; want %d", r.GetAccount(), err, want)
	}
}

func TestCallsWithoutTheRightTokenAreRefused(t *testing.T) {
	f := newFixture(t)
	submit := &ledgerv1.SubmitRequest{Transaction: f.Transfer(1, 2, 0, 5)}
	cases := map[string]struct {
		client ledgerv1.LedgerServiceClient
		want   fault.Reason
	}{
		"no token":    {f.dial(t, sig.PrivateKey{}), rpc.ReasonTokenMissing},
		"other scope": {f.dial(t, f.Keys[1], "job"), rpc.ReasonScopeMissing},
	}
	for name, c := range cases {
		if _, err := c.client.Submit(t.Context(), submit); !errors.Is(err, c.want) {
			t.Errorf("%s: submit: %v", name, err)
		}
		_, err := c.client.RequestFaucet(t.Context(), &ledgerv1.RequestFaucetRequest{})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: faucet: %v", name, err)
		}
		stream, err := c.client.SubmitStream(t.Context())
		if err == nil {
			_, err = stream.Recv()
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: stream: %v", name, err)
		}
		chain, err := c.client.GetChain(t.Context(), &ledgerv1.GetChainRequest{})
		if err != nil || chain.GetNow() < chain.GetHead().GetTime() || chain.GetNow() == 0 {
			t.Errorf("%s: a public read: now %d, head %d, %v", name, chain.GetNow(),
				chain.GetHead().GetTime(), err)
		}
	}
	f.commit(t, submit.GetTransaction())
}

func TestFaucetGivesOnce(t *testing.T) {
	f := newFixture(t)
	client := f.dial(t, poorKey(), server.Scope)
	r, err := client.RequestFaucet(t.Context(), &ledgerv1.RequestFaucetRequest{})
	if err != nil || r.GetResult().GetReceipt().GetStatus() != chainv1.Status_STATUS_OK {
		t.Fatalf("faucet: %v, %v", r, err)
	}
	_, err = client.RequestFaucet(t.Context(), &ledgerv1.RequestFaucetRequest{})
	if !errors.Is(err, ledger.ReasonFaucetUsed) {
		t.Errorf("a second request: %v", err)
	}
	account := sig.AccountOfKey(poorKey().Public())
	got, err := f.client.GetAccount(t.Context(), &ledgerv1.GetAccountRequest{Account: account[:]})
	if err != nil || got.GetAccount().GetBalance()+got.GetAccount().GetLock() != r.GetAmount() {
		t.Errorf("the account holds %v, %v; want %d", got.GetAccount(), err, r.GetAmount())
	}
}

func TestProofsLeadToTheCertifiedHeader(t *testing.T) {
	f := newFixture(t)
	committed := f.commit(t, f.Transfer(1, 2, 0, 5))
	r, err := f.client.GetTransaction(t.Context(),
		&ledgerv1.GetTransactionRequest{Id: committed.GetId(), Prove: true})
	if err != nil {
		t.Fatal(err)
	}
	p := r.GetProof()
	header := f.certified(t, p.GetHeader(), p.GetCertificate())
	decoded, err := tx.Decode(p.GetTransaction())
	if err != nil {
		t.Fatal(err)
	}
	entry := block.TransactionEntry(decoded.ID(f.Anchor), decoded.Witness())
	for _, one := range []struct {
		proof *chainv1.ListProof
		entry []byte
		root  tx.Hash
	}{
		{p.GetTransactionProof(), entry[:], header.TransactionsRoot},
		{p.GetReceiptProof(), p.GetReceipt(), header.ReceiptsRoot},
	} {
		proof, err := block.ListProofFromPB(one.proof)
		if err == nil {
			err = proof.Verify(one.entry, one.root)
		}
		if err != nil {
			t.Error(err)
		}
	}
	for _, account := range []sig.AccountID{f.Accounts[2], sig.AccountOfKey(poorKey().Public())} {
		a, err := f.client.GetAccount(t.Context(),
			&ledgerv1.GetAccountRequest{Account: account[:], Prove: true})
		if err != nil {
			t.Fatal(err)
		}
		header := f.certified(t, a.GetProof().GetHeader(), a.GetProof().GetCertificate())
		found, err := trie.Verify(trie.Hash(header.StateRoot), a.GetProof().GetProof())
		if err != nil || found != (a.GetAccount() != nil) {
			t.Errorf("account %v: proof says %v, %v", a.GetAccount(), found, err)
		}
		found, err = trie.Verify(trie.Hash(header.StateRoot), a.GetSignersProof().GetProof())
		if err != nil || found != (a.GetSigners() != nil) ||
			!proto.Equal(a.GetProof().GetHeader(), a.GetSignersProof().GetHeader()) {
			t.Errorf("signers %v: proof says %v, %v", a.GetSigners(), found, err)
		}
	}
}

func (f *fixture) certified(t *testing.T, h *chainv1.Header, c *chainv1.Certificate,
) block.Header {
	t.Helper()
	header, err := block.HeaderFromPB(h)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := block.CertificateFromPB(c)
	if err == nil {
		err = certificate.Verify(&header, f.Anchor, f.Genesis.Validators, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	return header
}

func TestReadsNameWhatIsMissing(t *testing.T) {
	f := newFixture(t)
	unknown := bytes.Repeat([]byte{9}, 32)
	calls := map[string]struct {
		call func() error
		want fault.Reason
	}{
		"chain": {func() error {
			_, err := f.client.GetChain(t.Context(), &ledgerv1.GetChainRequest{Chain: "side"})
			return err
		}, ledger.ReasonChainUnknown},
		"escrow": {func() error {
			_, err := f.client.GetEscrow(t.Context(), &ledgerv1.GetEscrowRequest{Escrow: unknown})
			return err
		}, ledger.ReasonNotFound},
		"lease": {func() error {
			_, err := f.client.GetLease(t.Context(), &ledgerv1.GetLeaseRequest{Lease: unknown})
			return err
		}, ledger.ReasonNotFound},
		"block height": {func() error {
			_, err := f.client.GetBlock(t.Context(), &ledgerv1.GetBlockRequest{Height: 1 << 40})
			return err
		}, ledger.ReasonNotFound},
		"short id": {func() error {
			_, err := f.client.GetAccount(t.Context(),
				&ledgerv1.GetAccountRequest{Account: unknown[:31]})
			return err
		}, ledger.ReasonBadRequest},
	}
	for name, c := range calls {
		if err := c.call(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	genesis, err := f.client.GetBlock(t.Context(), &ledgerv1.GetBlockRequest{})
	if err != nil || genesis.GetBlock().GetHeader().GetHeight() != 0 {
		t.Errorf("block 0: %v, %v", genesis, err)
	}
	same, err := f.client.GetBlock(t.Context(), &ledgerv1.GetBlockRequest{
		Hash: genesis.GetHash(), HeaderOnly: true,
	})
	if err != nil || !bytes.Equal(same.GetHash(), genesis.GetHash()) {
		t.Errorf("block 0 by its hash: %v, %v", same, err)
	}
}

func TestStreamAnswersInOrder(t *testing.T) {
	f := newFixture(t)
	var batches [][][]byte
	for nonce := range uint64(30) { // each account's line goes through all batches
		var batch [][]byte
		for i := range f.Keys {
			batch = append(batch, f.Transfer(i, (i+1)%10, nonce, 1000))
		}
		batches = append(batches, batch)
	}
	if err := ledgertest.Drive(t.Context(), f.client, batches); err != nil {
		t.Fatal(err)
	}
	// The same once more is answered with what became of it.
	if err := ledgertest.Drive(t.Context(), f.client, batches); err != nil {
		t.Fatal(err)
	}
	f.conserved(t)
	stream, err := f.client.SubmitStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&ledgerv1.SubmitStreamRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, ledger.ReasonBatch) {
		t.Errorf("an empty batch: %v", err)
	}
}
