package server

import (
	"context"
	"time"

	"github.com/united-containers/ucn/services/storage"
)

// leastProgress is how many bytes a writer must send within the stall time: one that sends a byte
// now and then stalls as well.
const leastProgress = 64 << 10

// patient receives the messages of an upload from a writer who must get on with it: uploads under
// way have places that others wait for. Only time spent waiting for the writer counts.
type patient[M part] struct {
	ctx    context.Context
	recv   func() (M, error)
	stall  time.Duration
	parts  chan received[M]
	waited time.Duration // since the writer last made its progress
	due    int           // bytes until it has
}

// part is one message of an upload.
type part interface{ GetChunk() []byte }

type received[M part] struct {
	message M
	err     error
}

// newPatient starts receiving; that ends with the stream, whose context ctx is.
func newPatient[M part](recv func() (M, error), ctx context.Context, stall time.Duration,
) *patient[M] {
	p := &patient[M]{ctx: ctx, recv: recv, stall: stall, parts: make(chan received[M]),
		due: leastProgress}
	go p.receive()
	return p
}

func (p *patient[M]) receive() {
	for {
		m, err := p.recv()
		select {
		case p.parts <- received[M]{m, err}:
		case <-p.ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// next returns the next message, io.EOF after the last, or UPLOAD_STALLED.
func (p *patient[M]) next() (m M, err error) {
	began := time.Now()
	timer := time.NewTimer(p.stall - p.waited)
	defer timer.Stop()
	select {
	case got := <-p.parts:
		p.waited += time.Since(began)
		if p.due -= len(got.message.GetChunk()); p.due <= 0 {
			p.waited, p.due = 0, leastProgress
		}
		return got.message, got.err
	case <-timer.C:
		return m, storage.Stalled(p.stall)
	case <-p.ctx.Done():
		return m, p.ctx.Err()
	}
}
