package ledger

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

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
// many signatures together as wait, since a batch costs a fifth of single checks.
type ingress struct {
	verifier *sig.Verifier
	queue    chan job
	suspects chan job      // of submitters whose signatures were bad of late
	ended    chan struct{} // closed when nobody verifies any more
}

// newIngress makes one that caches so many expanded keys (0: sig.MaxCachedKeys).
func newIngress(cachedKeys int) *ingress {
	return &ingress{
		verifier: sig.NewVerifier(cachedKeys), queue: make(chan job, verifyQueue),
		suspects: make(chan job, verifyQueue),
		ended:    make(chan struct{}),
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
	var jobs []job
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-i.queue:
			jobs = i.gather(append(jobs[:0], first))
			judge(batch, jobs)
			clear(jobs)
		case alone := <-i.suspects: // a bad one makes no other submitter's batch slow
			jobs = append(jobs[:0], alone)
			judge(batch, jobs)
			clear(jobs)
		}
	}
}

// gather adds jobs that wait already, up to a full batch.
func (i *ingress) gather(jobs []job) []job {
	n := len(jobs[0].claims)
	for n < verifyBatch {
		select {
		case next := <-i.queue:
			jobs = append(jobs, next)
			n += len(next.claims)
		default:
			return jobs
		}
	}
	return jobs
}

// judge verifies the claims of all jobs together.
func judge(batch *sig.Batch, jobs []job) {
	batch.Reset()
	for n := range jobs {
		j := &jobs[n]
		j.skipped = j.all.lone.Load() >= wasteRoom
		if j.skipped {
			continue
		}
		for _, c := range j.claims {
			batch.Add(c.key, c.preimage, c.signature)
		}
	}
	verdicts := batch.Verify()
	for _, j := range jobs {
		bad := false
		if !j.skipped {
			for n := range j.claims {
				j.claims[n].judged, j.claims[n].good = true, verdicts[n]
				bad = bad || !verdicts[n]
			}
			verdicts = verdicts[len(j.claims):]
		}
		if bad {
			j.all.lone.Add(int64(len(j.claims)))
		}
		j.all.one()
	}
}

// verify judges all claims, those of a suspect apart from others', and returns how many it had to
// verify one by one. When it fails they are not judged, and must not be used again.
func (i *ingress) verify(ctx context.Context, claims []claim, suspect bool) (lone int, err error) {
	all := &verdicts{done: make(chan struct{})}
	jobs := (len(claims) + verifyBatch - 1) / verifyBatch
	if jobs == 0 {
		return 0, nil
	}
	queue := i.queue
	if suspect {
		queue = i.suspects
	}
	all.left.Store(int32(jobs))
	for len(claims) > 0 {
		n := min(len(claims), verifyBatch)
		select {
		case queue <- job{claims: claims[:n], all: all}:
		case <-i.ended:
			return 0, errEnded
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		claims = claims[n:]
	}
	select {
	case <-all.done:
		return int(all.lone.Load()), nil
	case <-i.ended:
		return 0, errEnded
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
