package executor

import (
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/fault"
)

// How images take turns.
const (
	pullShare = 2                // one owner may have half of the turns, at least one
	pullLook  = 10 * time.Second // between looks at a pull
	// A pull that brought less than slowBytes in slowSpan gives its turn up when others wait.
	slowSpan  = time.Minute
	slowBytes = 8 << 20
	showLook  = time.Second // between looks whether an image waits
)

// ReasonPullSlow: the image's source kept others waiting.
const ReasonPullSlow fault.Reason = "PULL_SLOW"

// ReasonPullUnwanted: nobody waits for the image any more.
const ReasonPullUnwanted fault.Reason = "PULL_UNWANTED"

var (
	errPullSlow = fault.New(fault.Unavailable, ReasonPullSlow,
		"the image comes too slowly, and others wait for their turn")
	errPullUnwanted = fault.New(fault.Unavailable, ReasonPullUnwanted,
		"nobody waits for the image any more")
)

// pulls lets images in by turns, since each on its way costs memory (up to the window of its packed
// layers, 128 MiB), disk and processor, and any job may name one. At most so many come at once, at
// most half of them on one owner's turns, and whoever waits is served owner by owner. A slow source
// cannot keep its turn while others wait, and an image that nobody wants any more is given up.
type pulls struct {
	most int

	mu sync.Mutex // guards what follows
	// wants counts the attempts that wait for an image of a source, by owner; together at most
	// MaxAttempts.
	wants map[origin]map[sig.AccountID]int
	under map[sig.AccountID]int // pulls under way by whose turn it is; their sum is running
	// served is the number of the turn that an owner got last, while it wants or pulls anything.
	served  map[sig.AccountID]uint64
	running int
	turns   uint64
	queue   []*pull // in the order of their coming; one for each wanted origin
}

// origin is an image and where it comes from. An image comes from each source by itself: whoever
// names a source that hangs keeps nobody who names another one waiting for the same image.
type origin struct {
	image  ImageID
	source string // as Files.Source names it
}

// pull is one image that waits for its turn or has it.
type pull struct {
	from  origin
	owner sig.AccountID // whose turn it is; once it is let in
	in    chan struct{} // closed when it is let in
	came  atomic.Int64  // bytes
	whole atomic.Bool   // all of it came; the engine may still unpack
}

func newPulls(most int) *pulls {
	return &pulls{
		most: most, wants: map[origin]map[sig.AccountID]int{}, under: map[sig.AccountID]int{},
		served: map[sig.AccountID]uint64{},
	}
}

// want says that an attempt of owner waits for what comes from there, until it calls done.
func (p *pulls) want(from origin, owner sig.AccountID) (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wants[from] == nil {
		p.wants[from] = map[sig.AccountID]int{}
	}
	p.wants[from][owner]++
	p.admit() // a queued image may have got an owner with a better turn
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		by := p.wants[from]
		if by[owner]--; by[owner] == 0 {
			delete(by, owner)
		}
		if len(by) == 0 {
			delete(p.wants, from)
		}
		p.forget(owner)
	}
}

// forget drops what is remembered of an owner who neither wants nor pulls anything. The caller
// holds mu.
func (p *pulls) forget(owner sig.AccountID) {
	if p.under[owner] > 0 {
		return
	}
	for _, by := range p.wants {
		if by[owner] > 0 {
			return
		}
	}
	delete(p.under, owner)
	delete(p.served, owner)
}

// wanted tells whether an attempt waits for the image of this source.
func (p *pulls) wanted(from origin) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.wants[from]) > 0
}

// enqueue stands at the end; the pull's in is closed when it is let in. Call leave at last.
func (p *pulls) enqueue(from origin) *pull {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := &pull{from: from, in: make(chan struct{})}
	p.queue = append(p.queue, one)
	p.admit()
	return one
}

// leave gives the place up, in the queue or under way.
func (p *pulls) leave(one *pull) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.queue, one); i >= 0 {
		p.queue = slices.Delete(p.queue, i, i+1)
		return
	}
	p.running--
	p.under[one.owner]--
	p.forget(one.owner)
	p.admit()
}

// admit lets in who is next while there is room. The caller holds mu.
func (p *pulls) admit() {
	for p.running < p.most {
		at, owner := p.next()
		if at < 0 {
			return
		}
		one := p.queue[at]
		p.queue = slices.Delete(p.queue, at, at+1)
		p.turns++
		p.running++
		p.under[owner]++
		p.served[owner] = p.turns
		one.owner = owner
		close(one.in)
	}
}

// next picks from the queue: the owner with the fewest pulls under way, of those the one whose turn
// is longest ago, and of its images the one that came first. -1 is none.
func (p *pulls) next() (at int, owner sig.AccountID) {
	at = -1
	for i, one := range p.queue {
		for o := range p.wants[one.from] {
			if p.under[o] < max(p.most/pullShare, 1) && (at < 0 || p.before(o, owner)) {
				at, owner = i, o
			}
		}
	}
	return at, owner
}

// before tells whether it is rather a's turn than b's.
func (p *pulls) before(a, b sig.AccountID) bool {
	if p.under[a] != p.under[b] {
		return p.under[a] < p.under[b]
	}
	return p.served[a] < p.served[b]
}

// waiting tells whether the image waits for its turn, and how many are under way and wait.
func (p *pulls) waiting(from origin) (waits bool, under, queued int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	waits = slices.ContainsFunc(p.queue, func(one *pull) bool { return one.from == from })
	return waits, p.running, len(p.queue)
}

// othersWait tells whether a turn that is given up would be somebody's.
func (p *pulls) othersWait() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue) > 0
}

// open waits for the image's turn and opens it. The turn ends when what is returned is closed.
func (p *pulls) open(ctx context.Context, from origin, open OpenLayout) (io.ReadCloser, error) {
	one := p.enqueue(from)
	if err := p.await(ctx, one); err != nil {
		p.leave(one)
		return nil, err
	}
	source, err := open(ctx)
	if err != nil {
		p.leave(one)
		return nil, err
	}
	r := &turn{p: p, one: one, source: source, over: make(chan struct{})}
	r.watch.Go(r.look)
	return r, nil
}

// await waits until the pull is let in, or nobody wants it any more.
func (p *pulls) await(ctx context.Context, one *pull) error {
	tick := time.NewTicker(pullLook)
	defer tick.Stop()
	for unwanted := 0; ; {
		select {
		case <-one.in:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if unwanted++; p.wanted(one.from) {
			unwanted = 0
		}
		if unwanted > 1 { // an attempt that tries again is away only for a moment
			return errPullUnwanted
		}
	}
}

// turn is an image that is on its way.
type turn struct {
	p      *pulls
	one    *pull
	source io.ReadCloser
	over   chan struct{} // closed by Close
	watch  sync.WaitGroup
	ended  sync.Once
	cause  atomic.Pointer[fault.Error] // why it was given up
}

// Read implements io.Reader.
func (t *turn) Read(b []byte) (int, error) {
	n, err := t.source.Read(b)
	t.one.came.Add(int64(n))
	if err != nil {
		if cause := t.cause.Load(); cause != nil {
			return n, cause
		}
		t.one.whole.Store(true)
	}
	return n, err
}

// Close ends the turn.
func (t *turn) Close() error {
	t.ended.Do(func() { close(t.over) })
	t.watch.Wait()
	err := t.source.Close()
	t.one.whole.Store(true)
	if t.p != nil {
		t.p.leave(t.one)
		t.p = nil
	}
	return err
}

// look gives the pull up when it is slow and others wait, or nobody wants it.
func (t *turn) look() {
	tick := time.NewTicker(pullLook)
	defer tick.Stop()
	mark, since, unwanted := int64(0), time.Duration(0), 0
	for {
		select {
		case <-t.over:
			return
		case <-tick.C:
		}
		if since += pullLook; since >= slowSpan {
			came := t.one.came.Load()
			if came-mark < slowBytes && !t.one.whole.Load() && t.p.othersWait() {
				t.giveUp(errPullSlow)
				return
			}
			mark, since = came, 0
		}
		if unwanted++; t.p.wanted(t.one.from) {
			unwanted = 0
		}
		if unwanted > 1 {
			t.giveUp(errPullUnwanted)
			return
		}
	}
}

func (t *turn) giveUp(cause *fault.Error) {
	t.cause.Store(cause)
	_ = t.source.Close() // it was only read
}
