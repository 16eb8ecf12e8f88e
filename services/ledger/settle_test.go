package ledger_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/ledger"
	"github.com/united-containers/ucn/services/ledger/ledgertest"
)

// TestWhatIsInForceIsFound: at the moment when the state says that a nonce is used, whoever asks
// finds by what, before the block is the head. And however far whoever writes the index gets at
// that moment, it learns of the block once it is.
func TestWhatIsInForceIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := network(t, 1, 3)
		index := &ledgertest.Index{}
		d := deps(n, (&ledgertest.Disk{}).Open())
		d.Index = index
		var c *ledger.Chain
		var sent ledger.Hash
		looked := 0
		d.SetInForce(func() {
			if sent == (ledger.Hash{}) {
				return
			}
			looked++
			synctest.Wait() // who writes the index has looked, and sleeps
			account, _ := c.State().Account(n.Accounts[0])
			known, err := c.Transaction(t.Context(), sent)
			if account.Nonce != 2 || err != nil || known.At.Height != c.Head().Height+1 {
				t.Errorf("the nonce is %d, the head %d; the transaction: %+v, %v", account.Nonce,
					c.Head().Height, known, err)
			}
		})
		var stop func() error
		c, stop = ledgertest.Start(t, config(), d)
		submit(t, c, n.Transfer(0, 1, 0, 5))
		synctest.Wait()
		began := time.Now()
		raw := n.Transfer(0, 1, 1, 5)
		transfer, err := tx.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		sent = ledger.Hash(transfer.ID(n.Anchor))
		r := submit(t, c, raw)[0]
		synctest.Wait()
		if lag, err := c.Lag(); lag != 0 || err != nil || time.Since(began) > time.Second {
			t.Errorf("after %v the index lags by %d blocks, %v", time.Since(began), lag, err)
		}
		if r.ID != sent || looked == 0 {
			t.Errorf("%x became %x, looked %d times", sent, r.ID, looked)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
