package wiretest_test

import (
	"errors"
	"testing"

	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/server"
	"github.com/united-containers/ucn/services/ledger/wire/wiretest"
)

// BenchmarkSingle100k does not loop: one run has 198,000 transfers.
func BenchmarkSingle100k(b *testing.B) {
	perSecond, err := wiretest.Single100k(b.Context(), b.TempDir(), 2)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(perSecond, "tx/s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkLoneSubmit is one transfer after the other, each waiting for its block.
func BenchmarkLoneSubmit(b *testing.B) {
	n, err := ledgertest.NewNetwork(1, 2)
	if err != nil {
		b.Fatal(err)
	}
	c, err := wiretest.Config(n, b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	s, err := wiretest.Serve(n, c, nil)
	if err != nil {
		b.Fatal(err)
	}
	conn, err := s.Dial(n.Keys[0], server.Scope)
	if err != nil {
		b.Fatal(err)
	}
	client := ledgerv1.NewLedgerServiceClient(conn)
	nonce := uint64(0)
	for b.Loop() {
		raw := n.Transfer(0, 1, nonce, 1)
		_, err := client.Submit(b.Context(), &ledgerv1.SubmitRequest{Transaction: raw})
		if err != nil {
			b.Fatal(err)
		}
		nonce++
	}
	if err := errors.Join(conn.Close(), s.Stop()); err != nil {
		b.Fatal(err)
	}
}
