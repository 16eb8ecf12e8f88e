package server

import (
	"time"

	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/storage"
)

// leastProgress is how many bytes a writer must send within the stall time: one that sends a byte
// now and then stalls as well.
const leastProgress = 64 << 10

// patient receives the messages of an upload from a writer who must get on with it: uploads under
// way have places that others wait for. Only time spent waiting for the writer counts.
type patient struct {
	stream putStream
	stall  time.Duration
	parts  chan received
	waited time.Duration // since the writer last made its progress
	due    int           // bytes until it has
}

type received struct {
	message *storagev1.PutRequest
	err     error
}

// newPatient starts receiving; that ends with the stream.
func newPatient(stream putStream, stall time.Duration) *patient {
	p := &patient{stream: stream, stall: stall, parts: make(chan received), due: leastProgress}
	go p.receive()
	return p
}

func (p *patient) receive() {
	for {
		m, err := p.stream.Recv()
		select {
		case p.parts <- received{m, err}:
		case <-p.stream.Context().Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// next returns the next message, io.EOF after the last, or UPLOAD_STALLED.
func (p *patient) next() (*storagev1.PutRequest, error) {
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
		return nil, storage.Stalled(p.stall)
	case <-p.stream.Context().Done():
		return nil, p.stream.Context().Err()
	}
}
