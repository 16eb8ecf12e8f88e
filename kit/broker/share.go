package broker

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/united-containers/ucn/chain/sig"
)

// burstSeconds of its rate is what an operator may send at once, such as after the broker was away.
const burstSeconds = 32

// maxShares bounds the operators whose use is remembered. One whose share is whole again is as good
// as unknown, and only such are forgotten.
const maxShares = 4096

// shares bound how fast each operator fills the streams, so that a flood of one does not push the
// events of others out within moments. All instances of an operator share, since it can certify as
// many as it likes.
type shares struct {
	rate int64 // bytes per second
	now  func() time.Time

	mu sync.Mutex // guards of
	of map[sig.AccountID]*rate.Limiter
}

func newShares(perSecond int64) *shares {
	return &shares{rate: perSecond, now: time.Now, of: map[sig.AccountID]*rate.Limiter{}}
}

// take reports whether the operator may send size bytes now, and counts them.
func (s *shares) take(operator sig.AccountID, size int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	share, known := s.of[operator]
	if !known {
		if len(s.of) >= maxShares && !s.forget(now) {
			return false
		}
		share = rate.NewLimiter(rate.Limit(s.rate), int(s.rate*burstSeconds))
		s.of[operator] = share
	}
	return share.AllowN(now, size)
}

// forget drops the operators whose share is whole. The lock is held.
func (s *shares) forget(now time.Time) (any bool) {
	for operator, share := range s.of {
		if share.TokensAt(now) >= float64(share.Burst()) {
			delete(s.of, operator)
			any = true
		}
	}
	return any
}
