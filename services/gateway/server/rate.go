package server

import (
	"container/list"
	"context"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
)

// Rate bounds requests of one kind. Zero is no limit.
type Rate struct {
	// PerSecond on average, and Burst at once.
	PerSecond float64 `yaml:"per_second"`
	Burst     int     `yaml:"burst"`
}

// Rates bound what one client may ask. Whoever has a token that is signed by an account and for
// this operator is that account; all others are their address.
type Rates struct {
	// Read is for GET and HEAD, Write for everything else.
	Read  Rate `yaml:"read"`
	Write Rate `yaml:"write"`
	// Address bounds all requests of an address, accounts or not, before a token is looked at.
	Address Rate `yaml:"address"`
}

func (r Rates) validate() error {
	for _, one := range []struct {
		field string
		rate  Rate
	}{{"read", r.Read}, {"write", r.Write}, {"address", r.Address}} {
		switch {
		case one.rate.PerSecond < 0 || math.IsNaN(one.rate.PerSecond) ||
			math.IsInf(one.rate.PerSecond, 0):
			return config.Invalid(one.field, "%v is not a rate", one.rate.PerSecond)
		case one.rate.PerSecond > 0 && one.rate.Burst < 1:
			return config.Invalid(one.field, "burst must be at least 1 when there is a rate")
		}
	}
	return nil
}

// maxRated is how many clients a meter remembers. One whose bucket is full again is as good as
// unknown, and only such are forgotten: nobody can fill the memory to have his own use forgotten.
const maxRated = 65_536

// meter is a token bucket per client for one kind of requests.
type meter struct {
	kind string
	rate Rate

	mu      sync.Mutex // guards both; order has every bucket, most recently used first
	buckets map[string]*list.Element
	order   *list.List
}

type rated struct {
	who     string
	limiter *rate.Limiter
}

func newMeter(kind string, r Rate) *meter {
	if r.PerSecond == 0 {
		return nil
	}
	return &meter{kind: kind, rate: r, buckets: map[string]*list.Element{}, order: list.New()}
}

// allow takes one request of a client, or says when to try again. It writes the RateLimit fields
// (draft-ietf-httpapi-ratelimit-headers) either way.
func (m *meter) allow(header http.Header, who string, now time.Time) error {
	if m == nil {
		return nil
	}
	limiter := m.bucket(who, now)
	if limiter == nil {
		return busy("clients")
	}
	ok := limiter.AllowN(now, 1)
	left := math.Floor(max(limiter.TokensAt(now), 0))
	wait := time.Duration(0)
	if missing := 1 - limiter.TokensAt(now); missing > 0 {
		wait = time.Duration(missing / m.rate.PerSecond * float64(time.Second))
	}
	window := max(int(math.Ceil(float64(m.rate.Burst)/m.rate.PerSecond)), 1)
	header.Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=%d", m.kind, m.rate.Burst, window))
	header.Set("RateLimit", fmt.Sprintf("%q;r=%d;t=%d", m.kind, int(left),
		int(math.Ceil(wait.Seconds()))))
	if ok {
		return nil
	}
	return fault.New(fault.ResourceExhausted, rpc.ReasonRateLimited,
		"too many %s requests: %g a second and %d at once are allowed, try again in %s", m.kind,
		m.rate.PerSecond, m.rate.Burst, wait.Round(time.Millisecond)).
		With("limit", m.kind).WithRetry(wait)
}

// bucket returns a client's; nil when nobody can be forgotten for a new one.
func (m *meter) bucket(who string, now time.Time) *rate.Limiter {
	m.mu.Lock()
	defer m.mu.Unlock()
	if element, known := m.buckets[who]; known {
		m.order.MoveToFront(element)
		return element.Value.(*rated).limiter
	}
	if m.order.Len() >= maxRated {
		oldest := m.order.Back().Value.(*rated)
		if oldest.limiter.TokensAt(now) < float64(m.rate.Burst) {
			return nil
		}
		m.order.Remove(m.order.Back())
		delete(m.buckets, oldest.who)
	}
	r := &rated{who, rate.NewLimiter(rate.Limit(m.rate.PerSecond), m.rate.Burst)}
	m.buckets[who] = m.order.PushFront(r)
	return r.limiter
}

// rates are the meters of a gateway.
type rates struct{ address, read, write *meter }

func newRates(r Rates) rates {
	return rates{newMeter("address", r.Address), newMeter("read", r.Read),
		newMeter("write", r.Write)}
}

// admit lets a request in, or says when to try again.
func (s *Server) admit(w http.ResponseWriter, r *http.Request, token string) error {
	now := s.deps.Now()
	address := addressOf(r)
	if err := s.rates.address.allow(w.Header(), address, now); err != nil {
		return err
	}
	kind := s.rates.write
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		kind = s.rates.read
	}
	if kind == nil {
		return nil
	}
	return kind.allow(w.Header(), s.whose(r.Context(), token, address).who, now)
}

// addressOf is whose requests without a proven account are counted together.
func addressOf(r *http.Request) string { return rpc.Origin(r.RemoteAddr) }

// whose names the client whose bucket a request is from: the account that signed its token, which
// is proven then, or its address. The token gives no right here; services judge it again.
func (s *Server) whose(ctx context.Context, token, address string) client {
	stranger := client{who: "address:" + address, address: address}
	if token == "" || s.deps.Callers == nil {
		return stranger
	}
	caller, err := s.deps.Callers.Authenticate(ctx, token)
	if err != nil {
		return stranger
	}
	return client{who: "account:" + string(caller.Account[:]), address: address, proven: true,
		caller: caller}
}
