package server

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// buildBytes is how many bytes of blocks are read, decoded and made messages of at once, over
	// all calls; that takes about nine times as much memory. A larger block is alone.
	buildBytes = 32 << 20
	// buildTime is after how long the next may begin even so. Nobody waits for a client meanwhile,
	// so it is never that long but on a machine that has no time.
	buildTime = 5 * time.Second
)

// builds are blocks that are being made messages of, in the order in which they were asked for.
type builds struct{ bytes *semaphore.Weighted }

func newBuilds() builds { return builds{semaphore.NewWeighted(buildBytes)} }

// begin waits for its turn. It is over with the first call of done.
func (b *builds) begin(ctx context.Context, size int) (done func(), err error) {
	n := int64(min(size, buildBytes))
	if err := b.bytes.Acquire(ctx, n); err != nil {
		return nil, err
	}
	give := sync.OnceFunc(func() { b.bytes.Release(n) })
	late := time.AfterFunc(buildTime, give)
	return func() {
		late.Stop()
		give()
	}, nil
}
