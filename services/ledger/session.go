package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How long a chain waits before it tries to mend its storage: the first time, and at most, doubling
// in between. It begins anew once a block was made.
const (
	mendFirst = time.Second
	mendMost  = 30 * time.Second
)

// session is a time in which blocks are made: from the start, or from the mending of the storage,
// to a failure or the end. Whoever waits for a block waits for one of a session.
type session struct {
	orderer Orderer
	ended   chan struct{} // closed when no block will be made in it any more
	cause   error         // why it ended; set before
}

// newSession makes a session that continues after the head. It starts nothing.
func (c *Chain) newSession() (*session, error) {
	tip := c.Tip()
	orderer, err := c.deps.Orderer(c.seam(&tip.Header, tip.Hash))
	if err != nil {
		return nil, fmt.Errorf("make the orderer: %w", err)
	}
	return &session{orderer: orderer, ended: make(chan struct{})}, nil
}

// Run makes blocks until ctx ends. When the storage fails, it takes no transactions, says so (Err,
// Failure), goes on answering reads, and tries to mend the storage until it can go on: nothing that
// was answered is lost by it. Any other failure is for good. It returns the failure it was in when
// ctx ended.
func (c *Chain) Run(ctx context.Context, ready func()) error {
	inner, cancel := context.WithCancel(ctx)
	c.helpers.Go(func() { c.ingress.run(inner) })
	c.helpers.Go(func() { c.project(inner) })
	defer c.helpers.Wait()
	defer cancel()
	ready()
	for wait := mendFirst; ; {
		began := c.Head().Height
		failure := c.order(ctx)
		if failure == nil {
			c.current().end(errEnded)
			c.snapshotAtEnd(context.WithoutCancel(ctx))
			return nil
		}
		if c.Head().Height != began {
			wait = mendFirst
		}
		c.fail(failure)
		var mended bool
		if wait, mended = c.mend(ctx, failure, wait); !mended {
			return failure
		}
	}
}

// order drives one session; nil when ctx has ended.
func (c *Chain) order(ctx context.Context) error {
	err := c.current().orderer.Run(ctx, c)
	c.discard()
	if err == nil && ctx.Err() == nil {
		err = errors.New("the orderer stopped on its own")
	}
	return err
}

// fail ends the session: whoever waits is told that nothing is known, and the pool is emptied,
// since what was told must not happen unasked later.
func (c *Chain) fail(err error) {
	c.log.Error("the chain takes no transactions: it has failed", "chain", c.name, "error", err)
	c.mu.Lock()
	c.session.end(err)
	c.announce()
	c.mu.Unlock()
	c.pool.clear()
}

// end closes a session. The chain's mu is held, or nobody else ends it.
func (s *session) end(cause error) {
	s.cause = cause
	close(s.ended)
}

// announce wakes those who watch. mu is held.
func (c *Chain) announce() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// mend tries to make the storage good until ctx ends, and begins a new session. It returns how long
// to wait the next time.
func (c *Chain) mend(ctx context.Context, failure error, wait time.Duration) (
	next time.Duration, mended bool,
) {
	if !errors.Is(failure, ErrBroken) {
		<-ctx.Done()
		return 0, false
	}
	for {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, false
		}
		wait = min(2*wait, mendMost)
		err := c.deps.Store.Mend(ctx)
		if err == nil {
			err = c.resume()
		}
		if err == nil {
			return wait, true
		}
		c.log.Warn("the storage is not mended; trying again", "chain", c.name, "error", err,
			"after", wait)
	}
}

// resume begins a new session on a storage that was mended.
func (c *Chain) resume() error {
	tip := c.Tip()
	if head, ok := c.deps.Store.Head(); !ok || head.Hash != tip.Hash {
		return fmt.Errorf("the head of the mended log is block %d, %x, the state is after %d, %x",
			head.Height, head.Hash, tip.Header.Height, tip.Hash)
	}
	next, err := c.newSession()
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.session = next
	c.announce()
	c.mu.Unlock()
	c.log.Info("the storage is mended: the chain goes on", "chain", c.name,
		"height", tip.Header.Height)
	return nil
}

func (c *Chain) current() *session {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.session
}

// Failure returns why the chain takes nothing because of a failure (a fault CHAIN_STOPPED or
// DISK_FULL), nil when there is none or the chain is shutting down, and a channel that closes when
// that changes.
func (c *Chain) Failure() (changed <-chan struct{}, err error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if err := c.session.failure(); err != nil && !errors.Is(err, errEnded) {
		return c.changed, err
	}
	return c.changed, nil
}

// Err returns CHAIN_STOPPED or DISK_FULL while the chain takes nothing, nil otherwise.
func (c *Chain) Err() error { return c.current().failure() }

// failure returns why a session has ended, as a fault; nil while it goes on.
func (s *session) failure() error {
	select {
	case <-s.ended:
		return stopped(s.cause)
	default:
		return nil
	}
}
