package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/united-containers/ucn/kit/oci"
)

// mute is a registry that sends a few bytes of a blob, breaks off, ignores what part it is asked
// for then, and says nothing more.
type mute struct{ asked int }

func (m *mute) RoundTrip(r *http.Request) (*http.Response, error) {
	m.asked++
	body := io.Reader(silence{r.Context()})
	if m.asked == 1 {
		body = strings.NewReader("abc")
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(body)}, nil
}

type silence struct{ ctx context.Context }

func (s silence) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

// TestStalledRegistryIsGivenUp: also while what is here already is read again.
func TestStalledRegistryIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		repo, err := name.NewRepository("registry.example/some/image")
		if err != nil {
			t.Fatal(err)
		}
		away := &mute{}
		s := &session{repo: repo, scheme: "https", client: &http.Client{Transport: away}}
		ctx, cancel := context.WithTimeout(t.Context(), pullWait)
		defer cancel()
		begun := time.Now()
		b := &blob{ctx: ctx, session: s, digest: digestOf(nil), size: 10}
		defer b.close()
		if _, err := io.ReadAll(b); !errors.Is(err, ReasonUnavailable) {
			t.Errorf("read: %v", err)
		}
		if took := time.Since(begun); took > (maxTries+1)*stallWait {
			t.Errorf("given up after %v of %d tries", took, away.asked)
		}
	})
}

// trickle is a registry that sends a byte every half minute.
type trickle struct{}

func (trickle) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(drops{r.Context()})}, nil
}

type drops struct{ ctx context.Context }

func (d drops) Read(p []byte) (int, error) {
	timer := time.NewTimer(stallWait / 2)
	defer timer.Stop()
	select {
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	case <-timer.C:
		p[0] = ' '
		return 1, nil
	}
}

// TestTrickledDocumentsAreGivenUp: a config is as small as a manifest, and waited for no longer.
func TestTrickledDocumentsAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		repo, err := name.NewRepository("registry.example/some/image")
		if err != nil {
			t.Fatal(err)
		}
		s := &session{repo: repo, scheme: "https", client: &http.Client{Transport: trickle{}}}
		for what, read := range map[string]func() error{
			"config": func() error {
				_, err := s.config(t.Context(), oci.Descriptor{Digest: digestOf(nil), Size: 1000})
				return err
			},
			"manifest": func() error {
				_, err := s.manifest(t.Context(), digestOf(nil))
				return err
			},
			"right": func() error { return s.holds(t.Context(), digestOf(nil)) },
		} {
			begun := time.Now()
			if err := read(); !errors.Is(err, ReasonUnavailable) {
				t.Errorf("%s: %v", what, err)
			}
			if took := time.Since(begun); took > (maxTries+1)*documentWait {
				t.Errorf("%s given up after %v", what, took)
			}
		}
	})
}

// drip is a registry that sends a byte at a time, each after a pause.
type drip struct{ pause time.Duration }

func (d drip) RoundTrip(r *http.Request) (*http.Response, error) {
	status, header := http.StatusOK, http.Header{}
	if part, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
		status = http.StatusPartialContent
		header.Set("Content-Range", "bytes "+part+"/*")
	}
	body := io.NopCloser(dripping{r.Context(), d.pause})
	return &http.Response{StatusCode: status, Header: header, Body: body}, nil
}

type dripping struct {
	ctx   context.Context
	pause time.Duration
}

func (d dripping) Read(p []byte) (int, error) {
	if err := pause(d.ctx, d.pause); err != nil {
		return 0, err
	}
	return copy(p, "x"), nil
}

// TestDrippingRegistryIsGivenUp: a byte now and then keeps nobody waiting for an hour. One that is
// slow, but gets on, is read to the end, and so is any by a slow reader.
func TestDrippingRegistryIsGivenUp(t *testing.T) {
	for how, test := range map[string]struct {
		pause, reader time.Duration
		good          bool
	}{
		"a byte in 30 s": {pause: 30 * time.Second},
		"100 bytes/s":    {pause: 10 * time.Millisecond},
		"2,000 bytes/s":  {pause: 500 * time.Microsecond, good: true},
		"slow reader":    {reader: 10 * time.Millisecond, good: true},
	} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				repo, err := name.NewRepository("registry.example/some/image")
				if err != nil {
					t.Fatal(err)
				}
				const size = 100_000
				s := &session{repo: repo, scheme: "https", client: &http.Client{
					Transport: drip{test.pause}}}
				b := &blob{ctx: t.Context(), session: s, digest: digestOf(nil), size: size}
				defer b.close()
				begun, n, buf := time.Now(), 0, make([]byte, 1)
				for err == nil {
					var got int
					got, err = b.Read(buf)
					n += got
					if n == size {
						break
					}
					_ = pause(t.Context(), test.reader)
				}
				switch took := time.Since(begun); {
				case test.good && (err != nil || n != size):
					t.Errorf("read %d bytes, %v", n, err)
				case !test.good && !errors.Is(err, ReasonUnavailable):
					t.Errorf("read %d bytes, %v", n, err)
				case !test.good && took > (maxTries+1)*stallWait:
					t.Errorf("given up after %v", took)
				}
			})
		})
	}
}
