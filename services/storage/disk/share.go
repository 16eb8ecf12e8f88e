package disk

import (
	"sync"
	"time"

	"github.com/united-containers/ucn/services/storage"
)

// Defaults of what one account may make this service say. An account that changes something without
// end needs 11 days to turn over the million events that are kept, and as long to fill the million
// that may wait for a broker.
const (
	DefaultEventRate  = 1      // events per second, over time
	DefaultEventBurst = 65_536 // at once: a sixteenth of what is kept

	// jobFactor is how much faster the share of jobs fills up again: their hosts put what the
	// account paid for, and what is not stored in time is lost.
	jobFactor = 8
)

// maxShares bounds the accounts whose use is remembered. One whose share is whole again is as good
// as unknown, and only such are forgotten.
const maxShares = 65_536

// shares bound how fast each account makes events: what it does itself and what the hosts of its
// jobs put have a share each. They begin whole with each start.
type shares struct {
	rate  float64 // per second
	burst float64

	mu sync.Mutex // guards of
	of map[shareKey]*share
}

// shareKey names a share.
type shareKey struct {
	account storage.Account
	job     bool // what hosts of jobs put
}

// share is what was made of late: used events at a time, fewer since.
type share struct {
	used float64
	at   time.Time
}

func newShares(perSecond float64, burst int) *shares {
	return &shares{rate: perSecond, burst: float64(burst), of: map[shareKey]*share{}}
}

func (s *shares) rateOf(key shareKey) float64 {
	if key.job {
		return s.rate * jobFactor
	}
	return s.rate
}

// settle forgets what time has made good. The lock is held.
func (s *shares) settle(now time.Time, key shareKey, one *share) {
	if passed := now.Sub(one.at).Seconds(); passed > 0 {
		one.used = max(0, one.used-passed*s.rateOf(key))
	}
	one.at = now
}

// take counts n events, and refuses them all when there were too many of late. One that is larger
// than a whole share is let through when nothing of the share is used.
func (s *shares) take(now time.Time, key shareKey, n int) error {
	if n == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.of[key]
	if one == nil {
		if len(s.of) >= maxShares && !s.forget(now) {
			return s.tooMany(key, time.Second)
		}
		one = &share{at: now}
		s.of[key] = one
	}
	s.settle(now, key, one)
	if missing := one.used + float64(n) - s.burst; missing > 0 && one.used > 0 {
		missing = min(missing, one.used)
		wait := time.Duration(missing / s.rateOf(key) * float64(time.Second))
		return s.tooMany(key, max(wait, time.Millisecond))
	}
	one.used += float64(n)
	return nil
}

func (s *shares) tooMany(key shareKey, again time.Duration) error {
	return storage.TooManyEvents(again, s.rateOf(key), int(s.burst))
}

// give takes back n events that were counted and not made.
func (s *shares) give(key shareKey, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.of[key]; one != nil {
		one.used = max(0, one.used-float64(n))
	}
}

// forget drops the shares that are whole. The lock is held.
func (s *shares) forget(now time.Time) (any bool) {
	for key, one := range s.of {
		if s.settle(now, key, one); one.used == 0 {
			delete(s.of, key)
			any = true
		}
	}
	return any
}

// counted is how many of the events are somebody's doing: what ends by itself or is found damaged
// is free.
func counted(told []storage.Event) (n int) {
	for _, e := range told {
		if e.What != storage.RefExpired && e.What != storage.RefDamaged {
			n++
		}
	}
	return n
}

// prepaid are events counted before the change that makes them. nil: none.
type prepaid struct {
	shares *shares
	key    shareKey
	left   int
}

// prepay counts one event of an account, before its bytes come.
func (d *Disk) prepay(a storage.Account, job bool) (*prepaid, error) {
	p := &prepaid{shares: d.shares, key: shareKey{a, job}}
	if d.outbox == nil {
		return p, nil
	}
	if err := d.shares.take(d.cfg.Now(), p.key, 1); err != nil {
		return nil, err
	}
	p.left = 1
	return p, nil
}

// use takes up to n of what was counted and returns the rest of n.
func (p *prepaid) use(n int) int {
	if p == nil {
		return n
	}
	used := min(n, p.left)
	p.left -= used
	return n - used
}

// end gives back what was not used.
func (p *prepaid) end() {
	if p != nil && p.left > 0 {
		p.shares.give(p.key, p.left)
		p.left = 0
	}
}
