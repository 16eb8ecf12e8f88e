package server

import (
	"context"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/keys"
)

var _ keys.Sets = (*Server)(nil)

// KeySet implements keys.Sets for the chains of this ledger, so that its own tokens are judged
// by the keys in force without a call.
func (s *Server) KeySet(_ context.Context, chain string, account sig.AccountID) (
	sig.KeySet, error,
) {
	c, err := s.chain(chain)
	if err != nil {
		return sig.KeySet{}, err
	}
	return c.Keys(account), nil
}
