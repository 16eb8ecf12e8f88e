package disk

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/united-containers/ucn/services/storage"
)

// Defaults of what one account may make this service say. Of the 65,536 events that are kept, the
// million that may wait for a broker and the bytes per second of the operator, one account that
// changes something without end gets a small part.
const (
	DefaultEventRate  = 32     // events per second
	DefaultEventBurst = 10_000 // at once; more than the largest directory names
)

// maxShares bounds the accounts whose use is remembered. One whose share is whole again is as good
// as unknown, and only such are forgotten.
const maxShares = 65_536

// shares bound how fast each account makes events. They begin whole with each start.
type shares struct {
	rate  rate.Limit
	burst int

	mu sync.Mutex // guards of
	of map[storage.Account]*rate.Limiter
}

func newShares(perSecond float64, burst int) *shares {
	return &shares{rate: rate.Limit(perSecond), burst: burst,
		of: map[storage.Account]*rate.Limiter{}}
}

// take counts the events that an account made, and refuses when there were too many of late. What
// ends by itself or is found damaged is nobody's doing and is free.
func (s *shares) take(now time.Time, a storage.Account, told []storage.Event) error {
	made := 0
	for _, e := range told {
		if e.What != storage.RefExpired && e.What != storage.RefDamaged {
			made++
		}
	}
	if made == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	share, known := s.of[a]
	if !known {
		if len(s.of) >= maxShares && !s.forget(now) {
			return storage.TooManyEvents(time.Second)
		}
		share = rate.NewLimiter(s.rate, s.burst)
		s.of[a] = share
	}
	if share.AllowN(now, made) {
		return nil
	}
	missing := float64(made) - share.TokensAt(now)
	wait := time.Duration(missing / float64(s.rate) * float64(time.Second))
	return storage.TooManyEvents(max(wait, time.Millisecond))
}

// forget drops the accounts whose share is whole. The lock is held.
func (s *shares) forget(now time.Time) (any bool) {
	for a, share := range s.of {
		if share.TokensAt(now) >= float64(s.burst) {
			delete(s.of, a)
			any = true
		}
	}
	return any
}
