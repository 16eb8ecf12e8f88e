package rpc

import (
	"container/list"
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/united-containers/ucn/kit/fault"
)

// MaxBuckets is how many accounts and addresses a limiter remembers. Beyond it the one that was
// quiet for longest is forgotten, which gives it a full bucket.
const MaxBuckets = 65_536

// Limiter decides whether a call may go on now.
type Limiter interface {
	// Allow returns nil, or a fault of kind ResourceExhausted that says when to try again. It
	// never waits. ctx holds the Caller when there is one. Safe for concurrent use.
	Allow(ctx context.Context, method string) error
}

// RateLimiter is a token bucket per account, and per Origin for calls without a caller.
type RateLimiter struct {
	limit rate.Limit
	burst int

	mu      sync.Mutex // guards both; every element of order is in buckets
	buckets map[string]*list.Element
	order   *list.List // most recently used first
}

var _ Limiter = (*RateLimiter)(nil)

type bucket struct {
	key     string
	limiter *rate.Limiter
}

// NewRateLimiter allows perSecond calls to each account on average and burst at once. Both must be
// positive.
func NewRateLimiter(perSecond float64, burst int) *RateLimiter {
	return &RateLimiter{
		limit: rate.Limit(perSecond), burst: burst,
		buckets: map[string]*list.Element{}, order: list.New(),
	}
}

// Allow implements Limiter.
func (l *RateLimiter) Allow(ctx context.Context, _ string) error {
	now := time.Now()
	reservation := l.bucket(limitKey(ctx)).ReserveN(now, 1)
	wait := reservation.DelayFrom(now)
	if reservation.OK() && wait == 0 {
		return nil
	}
	reservation.CancelAt(now)
	return fault.New(fault.ResourceExhausted, ReasonRateLimited,
		"too many calls: %g per second are allowed, try again in %s", float64(l.limit),
		wait.Round(time.Millisecond)).WithRetry(wait)
}

func (l *RateLimiter) bucket(key string) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if element, known := l.buckets[key]; known {
		l.order.MoveToFront(element)
		return element.Value.(*bucket).limiter
	}
	if l.order.Len() >= MaxBuckets {
		oldest := l.order.Remove(l.order.Back()).(*bucket)
		delete(l.buckets, oldest.key)
	}
	b := &bucket{key: key, limiter: rate.NewLimiter(l.limit, l.burst)}
	l.buckets[key] = l.order.PushFront(b)
	return b.limiter
}

// limitKey is the account, or the CallOrigin of a caller without one. All callers without account
// that share it, and all of a Pipe for which nobody vouches, share a bucket.
func limitKey(ctx context.Context) string {
	if c, ok := CallerFrom(ctx); ok {
		return "account:" + string(c.Account[:])
	}
	if origin := CallOrigin(ctx); origin != "" {
		return "host:" + origin
	}
	return "local"
}
