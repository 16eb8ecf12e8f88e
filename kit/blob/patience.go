package blob

import (
	"context"
	"io"
	"time"

	"github.com/united-containers/ucn/kit/fault"
)

// How long Upload and Fetch go on over connections that break.
const (
	firstWait = 200 * time.Millisecond
	mostWait  = 10 * time.Second
	// patienceTime is how long nothing may get on before they give up.
	patienceTime = 5 * time.Minute
)

// patience repeats what a broken connection or a busy service may have failed, more rarely each
// time, as long as something gets on.
type patience struct {
	wait time.Duration // 0: the service was never reached, which is told at once
	idle time.Time     // since when nothing got on; zero: it does
	most int64         // bytes that were there at most
}

// got notes that the service answered when at bytes were there.
func (p *patience) got(at int64) {
	if p.wait == 0 || at > p.most {
		p.wait, p.idle, p.most = firstWait, time.Time{}, at
	}
}

// next notes that one thing of many is done.
func (p *patience) next() {
	p.most = -1
	p.got(0)
}

// do repeats what has no place to go on from.
func (p *patience) do(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil {
			p.next()
			return nil
		}
		if !p.again(ctx, err) {
			return err
		}
	}
}

// again waits and tells whether to repeat what failed with err.
func (p *patience) again(ctx context.Context, err error) bool {
	if p.wait == 0 || !passing(err) || ctx.Err() != nil {
		return false
	}
	if now := time.Now(); p.idle.IsZero() {
		p.idle = now
	} else if now.Sub(p.idle) > patienceTime {
		return false
	}
	wait := p.wait
	if f := fault.From(err); f.Retry() > 0 { // passing: it is a fault
		wait = min(max(wait, f.Retry()), patienceTime)
	}
	p.wait = min(2*p.wait, mostWait)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// passing tells whether an error says something of this moment alone.
func passing(err error) bool {
	f := fault.From(err)
	if f == nil {
		return false
	}
	switch f.Kind() {
	case fault.Unavailable, fault.Cancelled, fault.DeadlineExceeded:
		return true
	}
	return f.Retry() > 0
}

// Progress is told how a transfer gets on. Both may be nil.
type Progress struct {
	// Kept is told of bytes that an earlier transfer moved already; negative when they turned out to
	// be of no use.
	Kept func(n int64)
	// Moved is told of bytes that this one moved.
	Moved func(n int64)
}

// progress counts what Progress was told.
type progress struct {
	tell Progress
	at   int64 // told of in all
}

// moved tells of n more bytes.
func (p *progress) moved(n int) {
	p.at += int64(n)
	if p.tell.Moved != nil && n != 0 {
		p.tell.Moved(int64(n))
	}
}

// settle makes what was told agree with what there is.
func (p *progress) settle(at int64) {
	if p.tell.Kept != nil && at != p.at {
		p.tell.Kept(at - p.at)
	}
	p.at = at
}

// reader tells of what is read.
func (p *progress) reader(from io.Reader) io.Reader { return toldReader{from, p} }

type toldReader struct {
	from io.Reader
	told *progress
}

// Read implements io.Reader.
func (r toldReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	r.told.moved(n)
	return n, err
}
