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
	"syscall"
	"time"
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
type client struct {
	http   *http.Client
	ensure func(ctx context.Context) error
}

// request says what is asked of the service.
type request struct {
	method, path string
	query        url.Values
}

// Connections to the service that are kept, and for how long: an open one keeps the service awake.
const (
	maxIdleConns = 8
	idleConn     = 10 * time.Second
)

// newClient makes a client of the socket. ensure must be set before the first call.
func newClient(socket string) *client {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &client{http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
		MaxIdleConns:        maxIdleConns,
		MaxIdleConnsPerHost: maxIdleConns,
		IdleConnTimeout:     idleConn,
		DisableCompression:  true,
	}}}
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

// call sends in as JSON, if not nil, and decodes the answer into out, if not nil.
func (c *client) call(ctx context.Context, r request, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encoding for podman: %w", err)
		}
	}
	req := func() (*http.Response, error) {
		return c.send(ctx, r, "application/json", bytes.NewReader(body))
	}
	res, err := req()
	if noService(err) || r.method == http.MethodGet && serviceEnded(err) {
		if err := c.ensure(ctx); err != nil {
			return err
		}
		res, err = req()
	}
	if err != nil {
		return fmt.Errorf("asking podman: %w", err)
	}
	return answer(res, out)
}

// upload streams body and decodes the answer into out. The service must be up.
func (c *client) upload(ctx context.Context, path string, body io.Reader, out any) error {
	res, err := c.send(ctx, request{http.MethodPost, path, nil}, "application/x-tar", body)
	if err != nil {
		return fmt.Errorf("uploading to podman: %w", err)
	}
	return answer(res, out)
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
func answer(res *http.Response, out any) (err error) {
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading podman's answer: %w", err)
	}
	if res.StatusCode >= 400 {
		e := &apiError{Status: res.StatusCode}
		if json.Unmarshal(b, e) != nil || e.Message == "" {
			e.Message = string(b[:min(len(b), 500)])
		}
		return e
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("decoding podman's answer: %w", err)
	}
	return nil
}
