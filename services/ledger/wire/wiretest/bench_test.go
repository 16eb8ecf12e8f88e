package wiretest_test

import (
	"testing"

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
