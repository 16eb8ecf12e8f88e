package podman

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"time"

	"github.com/united-containers/ucn/services/executor"
)

// maxAnswer bounds an answer of the service that is not streamed.
const maxAnswer = 16 << 20

// apiError is an answer of the service that says no.
type apiError struct {
	Status  int    `json:"-"`
	Cause   string `json:"cause"`
	Message string `json:"message"`
}

func (e *apiError) Error() string {
	return fmt.Sprintf("podman: %s (status %d)", e.Message, e.Status)
}

// status returns the HTTP status of an apiError, or 0.
func status(err error) int {
	var e *apiError
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// client speaks libpod's REST interface over a unix socket. It starts the service through ensure
// when nobody listens, and then tries once more: the request had not left. A question is asked once
// more, too, when the service ends over it.
//
// The engine can hang over one container, with its lock held, for ever. So every call has a limit
// of its own, whatever its caller's is, and ends the service when that is over: the lock goes with
// it, and containers go on.
type client struct {
	http   *http.Client
	ensure func(ctx context.Context) error
	abort  func(since time.Time) // ends the service that hangs, unless it is younger
	limit  time.Duration         // for an answer to what has none of its own

	mu     sync.Mutex // guards what follows
	closed bool
	calls  sync.WaitGroup
	life   context.Context // ends with close
	end    context.CancelFunc
}

// Limits of calls to the engine.
const (
	callLimit   = 2 * time.Minute
	createLimit = 10 * time.Minute // it may have to give every file of an image to other users
	pingLimit   = 10 * time.Second
)

// errHung says that the engine did not answer within the limit. The service was ended for it.
var errHung = errors.New("podman hangs")

// request says what is asked of the service.
type request struct {
	method, path string
	query        url.Values
	limit        time.Duration // 0: the client's
}

func get(path string) request    { return request{method: http.MethodGet, path: path} }
func post(path string) request   { return request{method: http.MethodPost, path: path} }
func remove(path string) request { return request{method: http.MethodDelete, path: path} }

func (r request) with(q url.Values) request {
	r.query = q
	return r
}

func (r request) within(limit time.Duration) request {
	r.limit = limit
	return r
}

// Connections to the service that are kept, and for how long: an open one keeps the service awake.
const (
	maxIdleConns = 8
	idleConn     = 10 * time.Second
)

// newClient makes a client of the socket. ensure and abort must be set before the first call.
func newClient(socket string) *client {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	life, end := context.WithCancel(context.Background())
	c := &client{limit: callLimit, life: life, end: end}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
		MaxIdleConns:        maxIdleConns,
		MaxIdleConnsPerHost: maxIdleConns,
		IdleConnTimeout:     idleConn,
		DisableCompression:  true,
	}}
	return c
}

// noService tells that nobody listens on the socket.
func noService(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
}

// serviceEnded tells that the service ended before it answered: it may have acted.
func serviceEnded(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.EOF)
}

// close ends the calls that nobody waits for any more, and all others.
func (c *client) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.calls.Wait()
	c.http.CloseIdleConnections()
}

// call sends in as JSON, if not nil, and decodes the answer into out, if not nil. When ctx ends,
// the call goes on without its caller: the engine does not hear that nobody waits, and whether it
// hangs must be seen all the same.
func (c *client) call(ctx context.Context, r request, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encoding for podman: %w", err)
		}
	}
	type answered struct {
		body []byte
		err  error
	}
	got := make(chan answered, 1)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return executor.ErrClosed
	}
	c.calls.Go(func() {
		b, err := c.attend(context.WithoutCancel(ctx), r, body)
		got <- answered{b, err}
	})
	c.mu.Unlock()
	select {
	case <-ctx.Done():
		return fmt.Errorf("asking podman: %w", ctx.Err())
	case a := <-got:
		if a.err != nil {
			return a.err
		}
		return decode(a.body, out)
	}
}

// attend sees a call through, over at most two tries.
func (c *client) attend(ctx context.Context, r request, body []byte) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	began := time.Now()
	b, err := c.try(ctx, r, body)
	if errors.Is(err, errHung) {
		c.abort(began)
	}
	again := serviceEnded(err) || errors.Is(err, errHung)
	if noService(err) || r.method == http.MethodGet && again {
		if err := c.ensure(ctx); err != nil {
			return nil, err
		}
		b, err = c.try(ctx, r, body)
	}
	return b, err
}

// try makes the call once, within its limit.
func (c *client) try(ctx context.Context, r request, body []byte) ([]byte, error) {
	limit := r.limit
	if limit == 0 {
		limit = c.limit
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errHung)
	defer cancel()
	res, err := c.send(ctx, r, "application/json", bytes.NewReader(body))
	var b []byte
	if err == nil {
		b, err = answer(res)
	}
	if err != nil && status(err) == 0 {
		if errors.Is(context.Cause(ctx), errHung) {
			return nil, fmt.Errorf("%w: no answer to %s %s within %s", errHung, r.method, r.path, limit)
		}
		return nil, fmt.Errorf("asking podman: %w", err)
	}
	return b, err
}

// upload streams body and decodes the answer into out. The service must be up.
func (c *client) upload(ctx context.Context, path string, body io.Reader, out any) error {
	res, err := c.send(ctx, post(path), "application/x-tar", body)
	if err != nil {
		return fmt.Errorf("uploading to podman: %w", err)
	}
	b, err := answer(res)
	if err != nil {
		return err
	}
	return decode(b, out)
}

func (c *client) send(
	ctx context.Context, r request, kind string, body io.Reader,
) (*http.Response, error) {
	u := "http://podman/v4.0.0/libpod" + r.path
	if len(r.query) > 0 {
		u += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", kind)
	return c.http.Do(req)
}

// answer reads res and closes it. 304 (already so) is success.
func answer(res *http.Response) (b []byte, err error) {
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	b, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("reading podman's answer: %w", err)
	}
	if res.StatusCode >= 400 {
		e := &apiError{Status: res.StatusCode}
		if json.Unmarshal(b, e) != nil || e.Message == "" {
			e.Message = string(b[:min(len(b), 500)])
		}
		return nil, e
	}
	return b, nil
}

// decode reads an answer into out, if both are there.
func decode(b []byte, out any) error {
	if out == nil || len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("decoding podman's answer: %w", err)
	}
	return nil
}
