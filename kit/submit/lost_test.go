package submit_test

import (
	"errors"
	"testing"

	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/submit"
)

// late breaks the first sending of the next call and refuses its repetition. The first sending was
// only under way: it comes to the ledger when what says so is called the nth time from then.
func late(c *chain, reason, method string, nth int) {
	var raw []byte
	c.sends, c.judged = 0, 0
	c.before = times(1, errBroken)
	c.judge = func(n int, t *tx.Transaction) string {
		if n > 1 {
			return ""
		}
		raw = t.Append(nil)
		return reason
	}
	c.reading = func(called string) error {
		if called != method || raw == nil {
			return nil
		}
		if nth--; nth == 0 {
			c.take(raw)
			raw = nil
		}
		return nil
	}
}

// TestLateBytes: whenever a sending that was given up comes through after all, one of what was
// signed for a call is in a block, and it is told which.
func TestLateBytes(t *testing.T) {
	reasons := []string{"POOL_FULL", "FEE_TOO_LOW", "NONCE_TAKEN", "DROPPED", "INDEX_LAGS"}
	for _, reason := range reasons {
		for _, method := range []string{"GetTransaction", "GetChain", "GetAccount"} {
			for nth := 1; nth <= 2; nth++ {
				t.Run(reason+" "+method, func(t *testing.T) {
					bubble(t, func(t *testing.T, c *chain, s *submit.Sender) {
						send(t, s, "a")
						late(c, reason, method, nth)
						r, err := s.SendMemo(t.Context(), []byte("b"), pay())
						want(t, c, "a", "b")
						if err != nil || r.ID != c.committed[1].ID([32]byte{}) {
							t.Errorf("Send = %+v, %v, want the one in the block", r, err)
						}
						send(t, s, "c")
						want(t, c, "a", "b", "c")
					})
				})
			}
		}
	}
}

// TestLateBytesAfterSigningAnew: the late bytes come in the moment in which what was signed anew
// with their nonce is judged.
func TestLateBytesAfterSigningAnew(t *testing.T) {
	bubble(t, func(t *testing.T, c *chain, s *submit.Sender) {
		send(t, s, "a")
		var first *tx.Transaction
		c.sends, c.judged = 0, 0
		c.before = times(1, errBroken)
		c.judge = func(n int, x *tx.Transaction) string {
			switch n {
			case 1:
				first = x
				return "FEE_TOO_LOW"
			case 2:
				if x.Nonce != first.Nonce {
					t.Errorf("signed with nonce %d while bytes with %d are lost", x.Nonce, first.Nonce)
				}
				c.take(first.Append(nil))
			}
			return ""
		}
		c.byteFee = 1
		send(t, s, "b")
		want(t, c, "a", "b")
	})
}

// TestLostAndOvertaken: another process used the nonce, so the lost bytes can be in no block any
// more, and the call is signed with another.
func TestLostAndOvertaken(t *testing.T) {
	bubble(t, func(t *testing.T, c *chain, s *submit.Sender) {
		send(t, s, "a")
		c.sends = 0
		c.before = func(n int) error {
			if n == 1 {
				c.use()
				return errBroken
			}
			return nil
		}
		send(t, s, "b")
		want(t, c, "a", "b")
	})
}

// TestLostAndRefused: what was lost may still come into a block, whatever a repetition is told.
func TestLostAndRefused(t *testing.T) {
	for reason, unknown := range map[string]bool{
		"CANNOT_PAY": true, "NOT_ALLOWED": true, "NONCE_FUTURE": true, "POOL_FULL": true,
		"INDEX_LAGS": true,
		"NONCE_OLD":  false, "EXPIRED": false,
	} {
		t.Run(reason, func(t *testing.T) {
			bubble(t, func(t *testing.T, c *chain, s *submit.Sender) {
				send(t, s, "a")
				c.sends, c.judged = 0, 0
				c.before, c.judge = times(1, errBroken), first(9, reason)
				_, err := s.Send(t.Context(), pay())
				if errors.Is(err, submit.ErrUnknown) != unknown || err == nil {
					t.Errorf("Send = %v, want unknown: %v", err, unknown)
				}
				want(t, c, "a")
			})
		})
	}
}
