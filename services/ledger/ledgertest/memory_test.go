package ledgertest_test

import (
	"testing"

	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
)

func TestMemoryKeepsTheStoreContract(t *testing.T) {
	ledgertest.TestStore(t, func(*testing.T) ledgertest.Place {
		next := ledgertest.FailNot
		disk := &ledgertest.Disk{Next: func(ledger.Record) ledgertest.Failure {
			now := next
			next = ledgertest.FailNot
			return now
		}}
		return ledgertest.Place{
			Open:  func(*testing.T) ledger.Store { return disk.Open() },
			Break: func(f ledgertest.Failure) { next = f },
		}
	})
}

func TestMemoryKeepsTheIndexContract(t *testing.T) {
	ledgertest.TestIndex(t, func(*testing.T) func() ledger.Index {
		index := &ledgertest.Index{}
		return func() ledger.Index { return index }
	})
}
