package server

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// leastProgress is how many bytes a client must send within the stall time: one that sends a byte
// now and then stalls as well.
const leastProgress = 64 << 10

// patient reads a body from a client who must get on with it. When the body ends the deadline is
// lifted, so that the connection is watched for the client's leaving.
type patient struct {
	body    io.ReadCloser
	control *http.ResponseController
	stall   time.Duration
	more    time.Duration // what progress adds to the deadline; 0: it gives stall anew
	until   time.Time
	due     int // bytes that must come before the deadline moves on
}

func newPatient(w http.ResponseWriter, body io.ReadCloser, stall time.Duration) *patient {
	return &patient{body: body, control: http.NewResponseController(w), stall: stall}
}

// newHasty reads a body that lies in memory until it is whole: it has the stall time and a second
// for each leastProgress, all in all, so that few slow clients cannot hold much for long.
func newHasty(w http.ResponseWriter, body io.ReadCloser, stall time.Duration) *patient {
	p := newPatient(w, body, stall)
	p.more = time.Second
	return p
}

// Read implements io.Reader.
func (p *patient) Read(b []byte) (int, error) {
	if p.due <= 0 {
		if p.until.IsZero() || p.more == 0 {
			p.until = time.Now().Add(p.stall)
		} else {
			p.until = p.until.Add(p.more)
		}
		if err := p.control.SetReadDeadline(p.until); err != nil {
			return 0, err
		}
		p.due = leastProgress
	}
	n, err := p.body.Read(b)
	p.due -= n
	if errors.Is(err, io.EOF) {
		if failed := p.control.SetReadDeadline(time.Time{}); failed != nil {
			return n, failed
		}
	}
	return n, err
}

// Close implements io.Closer.
func (p *patient) Close() error { return p.body.Close() }

// patientWriter writes to a client who must take each piece within a time. Between pieces there is
// no deadline: a stream may have nothing to say.
type patientWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration
}

// newPatientWriter also lifts the deadline of an ordinary call.
func newPatientWriter(w http.ResponseWriter, stall time.Duration) *patientWriter {
	p := &patientWriter{
		ResponseWriter: w, control: http.NewResponseController(w), stall: stall,
	}
	p.lift()
	return p
}

// Write implements http.ResponseWriter.
func (p *patientWriter) Write(b []byte) (int, error) {
	if err := giveTime(p.control, p.stall); err != nil {
		return 0, err
	}
	defer p.lift()
	return p.ResponseWriter.Write(b)
}

// FlushError implements what http.ResponseController.Flush looks for.
func (p *patientWriter) FlushError() error {
	if err := giveTime(p.control, p.stall); err != nil {
		return err
	}
	defer p.lift()
	return p.control.Flush()
}

func (p *patientWriter) lift() { _ = p.control.SetWriteDeadline(time.Time{}) }

// giveTime lets what is written from now on take so long.
func giveTime(c *http.ResponseController, stall time.Duration) error {
	return c.SetWriteDeadline(time.Now().Add(stall))
}

// Unwrap lets http.ResponseController find what it controls.
func (p *patientWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }
