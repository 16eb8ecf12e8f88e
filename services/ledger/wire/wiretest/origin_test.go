package wiretest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/origin"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/token"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/server"
)

// gateway connects to the ledger as a gateway of an operator does. Its users are strangers: their
// tokens are of accounts that no chain knows.
func (f *fixture) gateway(t *testing.T, operator sig.PrivateKey) ledgerv1.LedgerServiceClient {
	t.Helper()
	seal, err := keys.NewSealKey()
	if err != nil {
		t.Fatal(err)
	}
	key := sig.FromSeed([32]byte{77})
	certificate, err := cert.Issue(keys.SingleSigner(operator), cert.Certificate{
		Chain: block.Main, InstanceKey: key.Public(), SealKey: seal.Public(),
		Services: []string{"gateway"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), Serial: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := rpc.DefaultClient()
	c.Peers = map[string]rpc.Peer{"ledger": {Addr: f.service.Addr()}}
	dialer, err := rpc.NewDialer(c, rpc.ClientDeps{
		Origins: &origin.Source{Key: key, Certificate: certificate},
		Tokens: &token.Source{
			Signer: keys.SingleSigner(sig.FromSeed([32]byte{78})), Chain: block.Main,
			Scopes: []string{server.Scope}, AnyService: f.service.Operator,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dialer.Dial(t.Context(), "ledger")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return ledgerv1.NewLedgerServiceClient(conn)
}

// spoilt are transfers by account 6 that it did not sign.
func (f *fixture) spoilt(t *testing.T, n int) [][]byte {
	t.Helper()
	all := make([][]byte, n)
	for i := range all {
		transfer, err := tx.Decode(f.Transfer(6, 1, uint64(i), 5))
		if err != nil {
			t.Fatal(err)
		}
		transfer.Signature.Signatures[0].Signature[3]++
		all[i] = transfer.Append(nil)
	}
	return all
}

// refused tells whether a caller at an address behind a gateway is refused for waste.
func refused(t *testing.T, via ledgerv1.LedgerServiceClient, address string, batch [][]byte) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(
		rpc.WithOrigin(t.Context(), address))
	defer cancel()
	stream, err := via.SubmitStream(ctx)
	if err == nil {
		err = stream.Send(&ledgerv1.SubmitStreamRequest{Transactions: batch})
	}
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil && !errors.Is(err, ledger.ReasonWaste) {
		t.Fatal(err)
	}
	return err != nil
}

// TestStrangersBehindAGateway: those behind a gateway of the ledger's operator answer for
// themselves. Another operator's gateway is one address, whatever it says of its callers.
func TestStrangersBehindAGateway(t *testing.T) {
	f := newFixture(t)
	batch := f.spoilt(t, 1024)
	own := f.gateway(t, f.Proposer)
	foreign := f.gateway(t, sig.FromSeed([32]byte{79}))
	waste := func(via ledgerv1.LedgerServiceClient, address string) {
		t.Helper()
		for n := 0; !refused(t, via, address, batch); n++ {
			if n > 4 {
				t.Fatalf("%s is never refused", address)
			}
		}
	}
	waste(own, "192.0.2.1")
	if refused(t, own, "192.0.2.2", batch[:1]) || refused(t, own, "2001:db8::1", batch[:1]) {
		t.Error("another stranger behind the same gateway is refused")
	}
	waste(foreign, "192.0.2.3")
	if !refused(t, foreign, "192.0.2.4", batch[:1]) {
		t.Error("another operator's gateway is believed")
	}
	if refused(t, own, "192.0.2.2", batch[:1]) {
		t.Error("who is behind the own gateway is refused for the other's callers")
	}
}
