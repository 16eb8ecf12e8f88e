package wire_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// from is the same world seen from another address of this machine.
func (w *world) from(t *testing.T, address string) *world {
	other := *w
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	transport := &http.Transport{DialContext: dialer.DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	other.client = &http.Client{Transport: transport}
	return &other
}

// TestNewcomersFindStreamsOfBlocks: eight addresses have all streams of blocks, as many as each
// may. A ninth finds room: the newest of who has most ends, and is told why.
func TestNewcomersFindStreamsOfBlocks(t *testing.T) {
	w := newWorld(t, nil)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	watch := request{method: "GET", path: fmt.Sprint("/v1/blocks:watch?from=", heldBlocks)}
	ended := make(chan string, 200)
	opened := func(from *world, n int) {
		if watch.header = nil; n%2 == 0 {
			watch.header = map[string]string{"Accept": "text/event-stream"}
		}
		got := from.open(ctx, t, watch)
		if got.StatusCode != http.StatusOK {
			t.Fatalf("stream %d: status %d", n, got.StatusCode)
		}
		go func() {
			text, _ := io.ReadAll(got.Body)
			_ = got.Body.Close()
			ended <- string(text)
		}()
	}
	for address := range 8 {
		from := w.from(t, fmt.Sprint("127.0.0.", 2+address))
		for n := range 15 {
			opened(from, n)
		}
	}
	late := w.from(t, "127.0.0.20")
	for n := range 4 {
		opened(late, n)
		if text := <-ended; !strings.Contains(text, "STREAM_GAVE_WAY") ||
			!strings.Contains(text, "RESOURCE_EXHAUSTED") {
			t.Errorf("who gave way was told %s", text)
		}
	}
	got, body := w.from(t, "127.0.0.2").do(t, watch)
	if f := failureOf(t, body); got.StatusCode != 429 || f.Reason != "GATEWAY_BUSY" {
		t.Errorf("who has most: status %d, %+v", got.StatusCode, f)
	}
	select {
	case text := <-ended:
		t.Errorf("one more ended: %s", text)
	default:
	}
}

// TestServicesKnowWhoseACallIs: to the services behind, a call is of the client's address, whatever
// the client says of it. Streams too.
func TestServicesKnowWhoseACallIs(t *testing.T) {
	w := newWorld(t, nil)
	forged := map[string]string{"Ucn-Origin-Bin": "MTI3LjAuMC45", "X-Forwarded-For": "127.0.0.9",
		"Grpc-Metadata-Ucn-Origin-Bin": "MTI3LjAuMC45", "Forwarded": "for=127.0.0.9"}
	for _, address := range []string{"127.0.0.2", "127.0.0.3"} {
		for _, path := range []string{"/v1/blocks/7", "/v1/jobs",
			fmt.Sprint("/v1/blocks:watch?from=", noBlocks)} {
			for _, accept := range []string{"", "text/event-stream"} {
				forged["Accept"] = accept
				w.calls.take()
				w.from(t, address).do(t, request{method: "GET", path: path, header: forged})
				if got := w.calls.take(); len(got) != 1 || got[0].origin != address {
					t.Errorf("%s (%s) of %s is %+v", path, accept, address, got)
				}
			}
		}
	}
}
