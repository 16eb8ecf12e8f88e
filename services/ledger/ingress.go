package ledger

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/united-containers/ucn/chain/sig"
)

// Bounds of signature verification.
const (
	// verifyQueue is how many jobs wait for a verifier; more make their submitters wait.
	verifyQueue = 256
	// verifyBatch is how many signatures are verified together, if so many wait.
	verifyBatch = sig.MaxBatch
)

// errEnded says that the chain has ended while something was under way.
var errEnded = errors.New("the chain has ended")

// claim is a signature to verify, and the verdict.
type claim struct {
	key       sig.PublicKey
	preimage  []byte
	signature sig.Signature
	// judged is false where those before it in the submission were too often bad.
	judged, good bool
}

// job is up to verifyBatch claims of one submitter.
type job struct {
	claims []claim
	from   *debtor // the submitter; nil for this process
	all    *verdicts
	// skipped says that its submitter's claims before it cost too much already.
	skipped bool
}

// verdicts tells a submitter when all its jobs are judged.
type verdicts struct {
	left atomic.Int32
	// lone is how many claims were verified one by one, because a bad one was among them.
	lone atomic.Int64
	done chan struct{}
}

func (v *verdicts) one() {
	if v.left.Add(-1) == 0 {
		close(v.done)
	}
}

// ingress verifies signatures beside the executor: as many workers as processors, each taking as
// many signatures together as wait, since a batch costs a fifth of single checks. Whoever spoils a
// batch by a bad one answers for all of it and is verified apart from then on: that is judged when
// a batch is put together, not when a job begins to wait, so that what one peer submits at the same
// time spoils one batch of each worker and no more.
type ingress struct {
	verifier *sig.Verifier
	waste    *debts
	clock    func() time.Time
	queue    chan job
	suspects chan job      // of submitters whose signatures were bad of late
	ended    chan struct{} // closed when nobody verifies any more
}

// newIngress makes one that caches so many expanded keys (0: sig.MaxCachedKeys).
func newIngress(cachedKeys int, waste *debts, clock func() time.Time) *ingress {
	return &ingress{
		verifier: sig.NewVerifier(cachedKeys), waste: waste, clock: clock,
		queue: make(chan job, verifyQueue), suspects: make(chan job, verifyQueue),
		ended: make(chan struct{}),
	}
}

// run verifies until ctx ends. Whoever waits then is told that the chain stops.
func (i *ingress) run(ctx context.Context) {
	defer close(i.ended)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() { i.work(ctx) })
	}
	workers.Wait()
}

func (i *ingress) work(ctx context.Context) {
	batch := i.verifier.NewBatch(verifyBatch)
	var together, apart []job
	for {
		together, apart = together[:0], apart[:0]
		select {
		case <-ctx.Done():
			return
		case first := <-i.queue:
			together, apart = i.gather(first, together, apart)
		case one := <-i.suspects:
			apart = append(apart, one)
		}
		if len(together) > 0 {
			i.judge(batch, together)
		}
		for n := range apart { // a bad one makes no other submitter's batch slow
			i.judge(batch, apart[n:n+1])
		}
		clear(together)
		clear(apart)
	}
}

// gather adds jobs that wait already to the first, up to a full batch, but puts those of suspects
// apart.
func (i *ingress) gather(first job, together, apart []job) (_, _ []job) {
	now := i.clock()
	for n, next := 0, first; ; {
		if i.suspect(next.from, now) {
			apart = append(apart, next)
		} else {
			together = append(together, next)
		}
		if n += len(next.claims); n >= verifyBatch {
			return together, apart
		}
		select {
		case next = <-i.queue:
		default:
			return together, apart
		}
	}
}

func (i *ingress) suspect(who *debtor, now time.Time) bool {
	return who != nil && i.waste.suspect(*who, now)
}

// spent tells whether a submitter has wasted so much that nothing more of it is verified.
func (i *ingress) spent(j *job, now time.Time) bool {
	if j.all.lone.Load() >= wasteRoom {
		return true
	}
	return j.from != nil && i.waste.tooMuch(*j.from, now) != nil
}

// judge verifies the claims of all jobs together.
func (i *ingress) judge(batch *sig.Batch, jobs []job) {
	batch.Reset()
	now := i.clock()
	for n := range jobs {
		j := &jobs[n]
		if j.skipped = i.spent(j, now); j.skipped {
			continue
		}
		for _, c := range j.claims {
			batch.Add(c.key, c.preimage, c.signature)
		}
	}
	verdicts := batch.Verify()
	var spoilers []debtor
	for _, j := range jobs {
		if j.skipped {
			continue
		}
		bad := false
		for n := range j.claims {
			j.claims[n].judged, j.claims[n].good = true, verdicts[n]
			bad = bad || !verdicts[n]
		}
		verdicts = verdicts[len(j.claims):]
		if bad {
			j.all.lone.Add(int64(len(j.claims)))
		}
		if bad && j.from != nil && !slices.Contains(spoilers, *j.from) {
			spoilers = append(spoilers, *j.from)
		}
	}
	for _, who := range spoilers {
		i.waste.spoil(who, batch.Len(), now)
	}
	for _, j := range jobs { // last: who is told finds what it owes
		j.all.one()
	}
}

// verify judges all claims of a submitter, nil for this process. When it fails they are not judged,
// and must not be used again.
func (i *ingress) verify(ctx context.Context, claims []claim, from *debtor) error {
	all := &verdicts{done: make(chan struct{})}
	jobs := (len(claims) + verifyBatch - 1) / verifyBatch
	if jobs == 0 {
		return nil
	}
	queue := i.queue
	if i.suspect(from, i.clock()) {
		queue = i.suspects
	}
	all.left.Store(int32(jobs))
	for len(claims) > 0 {
		n := min(len(claims), verifyBatch)
		select {
		case queue <- job{claims: claims[:n], from: from, all: all}:
		case <-i.ended:
			return errEnded
		case <-ctx.Done():
			return ctx.Err()
		}
		claims = claims[n:]
	}
	select {
	case <-all.done:
		return nil
	case <-i.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}
