package ledger

import (
	"fmt"
	"sync"
	"time"

	"github.com/united-containers/ucn/kit/fault"
)

// poolRetry is what a caller is told to wait when the pool is full.
const poolRetry = 100 * time.Millisecond

// lagRetry is what a caller is told to wait for the index.
const lagRetry = time.Second

// PoolLimits bound what waits for a block.
type PoolLimits struct {
	// Transactions and Bytes (raw transactions) bound the whole pool.
	Transactions int
	Bytes        int
	// Line bounds the transactions of one signer.
	Line int
}

// DefaultPool are the limits of a pool for one chain.
func DefaultPool() PoolLimits {
	return PoolLimits{Transactions: 1 << 17, Bytes: 256 << 20, Line: 1 << 12}
}

// Validate reports the first limit that cannot be used.
func (l PoolLimits) Validate() error {
	if l.Transactions < 1 || l.Bytes < 1 || l.Line < 1 {
		return fmt.Errorf("pool limits %+v must all be positive", l)
	}
	return nil
}

// signer is who counts nonces: an account's key set (number 0) or one of its delegates.
type signer struct {
	account Hash
	number  uint32
}

// entry is a transaction in the pool: decoded, its signatures verified.
type entry[T any] struct {
	id         Hash
	from       signer
	nonce      uint64
	operations int
	bytes      int
	payload    T
	waiting    []place // those who want to know what becomes of it
	gone       bool    // dropped, still in the queue
}

// line is the unbroken sequence of one signer's waiting transactions.
type line[T any] struct {
	first   uint64
	entries []*entry[T]
}

// next returns the nonce that the line lacks.
func (l *line[T]) next() uint64 { return l.first + uint64(len(l.entries)) }

// pool keeps transactions in the order in which they came, which is an order in which they can
// be executed: a signer's nonces have no gap. An entry stays until its block is committed, so
// that further nonces can follow it.
type pool[T any] struct {
	limits PoolLimits

	// mu guards everything below. A line that is not empty begins at the signer's nonce in the
	// committed state, or would once the blocks being built are committed.
	mu    sync.Mutex
	queue []*entry[T]
	head  int // of queue: what is before it was removed
	lines map[signer]*line[T]
	byID  map[Hash]*entry[T]
	bytes int
}

func newPool[T any](limits PoolLimits) *pool[T] {
	return &pool[T]{
		limits: limits, lines: map[signer]*line[T]{}, byID: map[Hash]*entry[T]{},
	}
}

// size returns how many transactions wait, and their bytes.
func (p *pool[T]) size() (transactions, bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.byID), p.bytes
}

// offer is an entry that wants in, and where its result goes.
type offer[T any] struct {
	entry *entry[T]
	at    place
	// acceptedOnly settles as soon as the entry is in the pool.
	acceptedOnly bool
	// repeated says that the same was in the pool a moment ago and was not verified again: it is
	// not taken in anew.
	repeated bool
	// first is the same transaction earlier in its submission, of which this is a copy: it is
	// repeated, and becomes of it what becomes of that.
	first *offer[T]
	// counted is what its execution may waste, put down to its account.
	counted int
	refusal *fault.Error // set by add
}

// add takes the offers into the pool in order. committed returns a signer's next nonce in the
// committed state; it is called only when none of the signer's transactions waits. Refusals are
// left in the offers; all other tickets are settled now or later. It returns the number,
// operations and bytes of the entries that were new. Nothing is taken when ended fails: it is
// asked under the same lock that clear takes, so what a session leaves behind is cleared.
func (p *pool[T]) add(ended func() error, offers []*offer[T], committed func(signer) uint64) (
	n, operations, bytes int, err error,
) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ended(); err != nil {
		return 0, 0, 0, err
	}
	for _, o := range offers {
		if o == nil || o.refusal != nil {
			continue
		}
		if held := p.byID[o.entry.id]; held != nil {
			p.attach(held, o)
			o.repeated = true // also if it came in by another submission meanwhile
			continue
		}
		if o.repeated {
			if o.refusal = dropped(); o.first != nil && o.first.refusal != nil {
				o.refusal = o.first.refusal
			}
			continue
		}
		if o.refusal = p.admit(o.entry, committed); o.refusal != nil {
			continue
		}
		p.attach(o.entry, o)
		n, operations, bytes = n+1, operations+o.entry.operations, bytes+o.entry.bytes
	}
	return n, operations, bytes, nil
}

func (p *pool[T]) attach(e *entry[T], o *offer[T]) {
	if o.acceptedOnly {
		o.at.ticket.settle(o.at.slot, Result{ID: e.id, Finality: Accepted})
		return
	}
	e.waiting = append(e.waiting, o.at)
}

func (p *pool[T]) admit(e *entry[T], committed func(signer) uint64) *fault.Error {
	if len(p.byID) >= p.limits.Transactions || p.bytes+e.bytes > p.limits.Bytes {
		return poolFull("try again a little later")
	}
	l := p.lines[e.from]
	if l == nil {
		l = &line[T]{first: committed(e.from)}
	}
	switch next := l.next(); {
	case e.nonce < l.first:
		return nonceOld(e.nonce, next)
	case e.nonce < next:
		return nonceTaken(e.nonce)
	case e.nonce > next:
		return nonceFuture(e.nonce, next)
	case len(l.entries) >= p.limits.Line:
		return poolFull("wait until earlier ones of this account are committed")
	}
	l.entries = append(l.entries, e)
	p.lines[e.from] = l
	p.byID[e.id] = e
	p.queue = append(p.queue, e)
	p.bytes += e.bytes
	return nil
}

// front returns waiting entries in order, without removing them, until one would exceed the
// operations or bytes. The first comes even if it alone exceeds them: it would wait for ever, and
// all others with it.
func (p *pool[T]) front(operations, bytes int) []*entry[T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	var taken []*entry[T]
	for _, e := range p.queue[p.head:] {
		if e.gone {
			continue
		}
		if len(taken) > 0 && (e.operations > operations || e.bytes > bytes) {
			break
		}
		operations -= e.operations
		bytes -= e.bytes
		taken = append(taken, e)
	}
	return taken
}

// remove takes out entries that are now committed. They are the first of their lines.
func (p *pool[T]) remove(entries []*entry[T]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range entries {
		if e.gone {
			continue
		}
		l := p.lines[e.from]
		if l == nil || l.entries[0] != e {
			panic("ledger: a committed transaction is not the first of its line")
		}
		l.entries[0] = nil
		l.entries = l.entries[1:]
		l.first++
		if len(l.entries) == 0 {
			delete(p.lines, e.from)
		}
		p.forget(e)
	}
	p.compact()
}

// drop takes out an entry that cannot be included, and those that follow it in its line, since
// their nonces cannot come any more. It returns them, the entry first.
func (p *pool[T]) drop(e *entry[T]) []*entry[T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lines[e.from]
	if e.gone || l == nil {
		return nil
	}
	at := int(e.nonce - l.first)
	dropped := append([]*entry[T](nil), l.entries[at:]...)
	l.entries = l.entries[:at:at]
	if at == 0 {
		delete(p.lines, e.from)
	}
	for _, d := range dropped {
		p.forget(d)
	}
	p.compact()
	return dropped
}

// clear forgets everything that waits. Nobody's ticket is settled by it.
func (p *pool[T]) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.byID {
		e.gone = true
	}
	clear(p.byID)
	clear(p.lines)
	p.queue, p.head, p.bytes = nil, 0, 0
}

// lookup tells whether a transaction waits.
func (p *pool[T]) lookup(id Hash) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byID[id] != nil
}

// pending returns the nonce after a signer's waiting transactions; false when none waits.
func (p *pool[T]) pending(s signer) (uint64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lines[s]
	if l == nil {
		return 0, false
	}
	return l.next(), true
}

// before returns what waits before a nonce of a signer: the last one if there is a gap.
func (p *pool[T]) before(s signer, nonce uint64) (payload T, found bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lines[s]
	if l == nil || nonce <= l.first {
		return payload, false
	}
	at := min(nonce-l.first, uint64(len(l.entries))) - 1
	return l.entries[at].payload, true
}

// forget drops all but the place in the queue. mu is held.
func (p *pool[T]) forget(e *entry[T]) {
	e.gone = true
	delete(p.byID, e.id)
	p.bytes -= e.bytes
}

// compact lets go of the queue's beginning. mu is held.
func (p *pool[T]) compact() {
	for p.head < len(p.queue) && p.queue[p.head].gone {
		p.queue[p.head] = nil
		p.head++
	}
	if p.head*2 > len(p.queue) {
		n := copy(p.queue, p.queue[p.head:])
		clear(p.queue[n:])
		p.queue, p.head = p.queue[:n], 0
	}
}
