package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const stallWait = time.Minute // without a byte; then the connection is given up

// blob reads a blob, and goes on where it was when the registry breaks off.
type blob struct {
	ctx     context.Context
	session *session
	digest  string
	size    int64

	at     int64
	body   io.ReadCloser
	cancel context.CancelFunc
	failed int // tries without a byte between them
}

// Read implements io.Reader.
func (b *blob) Read(p []byte) (int, error) {
	for {
		n, err := b.once(p)
		switch {
		case n > 0:
			b.failed = 0
			b.at += int64(n)
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
	b.cancel = cancel
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

// awake reads the body of a blob; a registry that says nothing for stallWait ends it.
type awake struct{ *blob }

// Read implements io.Reader.
func (a awake) Read(p []byte) (int, error) {
	watch := time.AfterFunc(stallWait, a.cancel)
	defer watch.Stop()
	return a.body.Read(p)
}

func (b *blob) close() {
	if b.body != nil {
		b.cancel()
		_ = b.body.Close() // only read
		b.body = nil
	}
}
