package wiretest_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/united-containers/ucn/kit/fault"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
)

// TestLeasesAreBounded: one call asks for 1 to 256 leases by whole ids, of a chain that is here;
// those that are not on it are said to be absent.
func TestLeasesAreBounded(t *testing.T) {
	f := newFixture(t)
	unknown := bytes.Repeat([]byte{9}, 32)
	for name, c := range map[string]struct {
		chain  string
		leases [][]byte
		want   fault.Reason
	}{
		"none":          {"", nil, ledger.ReasonBadRequest},
		"too many":      {"", slices.Repeat([][]byte{unknown}, 257), ledger.ReasonBadRequest},
		"short id":      {"", [][]byte{unknown, unknown[:31]}, ledger.ReasonBadRequest},
		"another chain": {"side", [][]byte{unknown}, ledger.ReasonChainUnknown},
	} {
		_, err := f.client.GetLeases(t.Context(), &ledgerv1.GetLeasesRequest{
			Chain: c.chain, Leases: c.leases,
		})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	r, err := f.client.GetLeases(t.Context(), &ledgerv1.GetLeasesRequest{
		Leases: slices.Repeat([][]byte{unknown}, 256),
	})
	if err != nil || len(r.GetLeases()) != 256 || r.GetLeases()[255].GetLease() != nil {
		t.Errorf("%d leases, %v, want 256 that are absent", len(r.GetLeases()), err)
	}
}
