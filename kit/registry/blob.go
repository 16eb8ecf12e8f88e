package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// A registry that makes us wait for stallWait without sending leastProgress bytes is given up, and
// so is one that breaks off maxTries times without as many new ones: a byte now and then is none.
const (
	stallWait     = time.Minute
	leastProgress = 64 << 10
)

// blob reads a blob, and goes on where it was when the registry breaks off.
type blob struct {
	ctx     context.Context
	session *session
	digest  string
	size    int64

	at     int64
	body   io.ReadCloser
	cancel context.CancelFunc
	failed int // tries without leastProgress new bytes between them
	fresh  int // new bytes since the last of them

	waited time.Duration // for the registry, since it sent leastProgress
	sent   int           // bytes, meanwhile
}

// Read implements io.Reader.
func (b *blob) Read(p []byte) (int, error) {
	for {
		n, err := b.once(p)
		switch {
		case n > 0:
			b.at += int64(n)
			if b.fresh += n; b.fresh >= leastProgress {
				b.failed, b.fresh = 0, 0
			}
			if b.at > b.size {
				return n, refuse(ReasonMismatch, "a layer has more bytes than its manifest says")
			}
			return n, nil
		case errors.Is(err, io.EOF) && b.at >= b.size:
			return 0, io.EOF
		case err == nil:
			continue
		}
		b.close()
		b.fresh = 0
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		err = asFault(b.session.repo.RegistryStr(), err)
		if b.failed++; lasting(err) || b.failed >= maxTries {
			return 0, err
		}
		if err := pause(b.ctx, firstPause<<(b.failed-1)); err != nil {
			return 0, err
		}
	}
}

// once reads some bytes, from a new connection if there is none.
func (b *blob) once(p []byte) (int, error) {
	if b.body == nil {
		if err := b.open(); err != nil {
			return 0, err
		}
	}
	return awake{b}.Read(p)
}

func (b *blob) open() error {
	ctx, cancel := context.WithCancel(context.WithValue(b.ctx, blobKey{}, true))
	b.cancel, b.waited, b.sent = cancel, 0, 0
	part := ""
	if b.at > 0 {
		part = fmt.Sprintf("bytes=%d-%d", b.at, b.size-1)
	}
	answer, err := b.session.get(ctx, "blobs/"+b.digest, part)
	if err != nil {
		cancel()
		return err
	}
	b.body = answer.Body
	skip := b.at
	if answer.StatusCode == http.StatusPartialContent {
		skip = 0
		from := fmt.Sprintf("bytes %d-", b.at)
		if got := answer.Header.Get("Content-Range"); len(got) < len(from) || got[:len(from)] != from {
			return refuse(ReasonMismatch, "the registry sends another part of a layer than asked for")
		}
	}
	if _, err := io.CopyN(io.Discard, awake{b}, skip); err != nil {
		return fmt.Errorf("skip what is here: %w", err)
	}
	return nil
}

// awake reads the body of a blob; a registry that is too slow ends it. Only the time that we wait
// for it counts: whoever reads may be slow himself.
type awake struct{ *blob }

// Read implements io.Reader.
func (a awake) Read(p []byte) (int, error) {
	watch := time.AfterFunc(stallWait-a.waited, a.cancel)
	defer watch.Stop()
	began := time.Now()
	n, err := a.body.Read(p)
	a.waited += time.Since(began)
	if a.sent += n; a.sent >= leastProgress {
		a.waited, a.sent = 0, 0
	}
	return n, err
}

func (b *blob) close() {
	if b.body != nil {
		b.cancel()
		_ = b.body.Close() // only read
		b.body = nil
	}
}
