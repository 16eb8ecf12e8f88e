package wire_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/kittest"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	"github.com/united-containers/ucn/services/gateway/wire"
)

// largeBlock is the height of the faked ledger's only block that is large: 400 KB as JSON.
const largeBlock = 501

func large(height uint64) *chainv1.Block {
	return &chainv1.Block{
		Header: &chainv1.Header{Height: height},
		Body:   &chainv1.Body{Transactions: [][]byte{make([]byte, 300_000)}},
	}
}

// thrifty is a world with room for answers of 1 MiB, whose client leaves what it does not read at
// the gateway.
func thrifty(t *testing.T) *world {
	t.Helper()
	certFile, keyFile := kittest.TLS(t)
	w := newWorld(t, func(c *wire.Config) {
		c.HTTP.TLSCert, c.HTTP.TLSKey = certFile, config.SecretFile(keyFile)
		c.HTTP.MaxAnswers = config.MiB
	})
	pem, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	w.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10},
	}}
	t.Cleanup(w.client.CloseIdleConnections)
	return w
}

// unread asks for a large block and reads nothing of it.
func (w *world) unread(t *testing.T) *http.Response {
	t.Helper()
	got := w.open(t.Context(), t, request{method: "GET", path: "/v1/blocks/" +
		strconv.Itoa(largeBlock)})
	if got.StatusCode != http.StatusOK || got.ProtoMajor != 2 {
		t.Fatalf("a large block: status %d over %s", got.StatusCode, got.Proto)
	}
	t.Cleanup(func() { _ = got.Body.Close() })
	return got
}

// TestAnswersThatNobodyReads: while one waits to be read, the same address is refused another for
// which it has no room, in the usual form; small ones go on, and once it is read, large ones too.
func TestAnswersThatNobodyReads(t *testing.T) {
	w := thrifty(t)
	held := w.unread(t)
	block := request{method: "GET", path: "/v1/blocks/" + strconv.Itoa(largeBlock)}
	got, body := w.do(t, block)
	if f := failureOf(t, body); got.StatusCode != http.StatusTooManyRequests ||
		f.Reason != "ANSWERS_NOT_READ" || got.Header.Get("Retry-After") == "" {
		t.Errorf("a second one: status %d, %+v", got.StatusCode, f)
	}
	if got, body := w.do(t, request{method: "GET", path: "/v1/blocks/1"}); got.StatusCode != 200 {
		t.Errorf("a small one: status %d, %s", got.StatusCode, body)
	}
	var whole struct {
		Block struct {
			Body struct {
				Transactions [][]byte `json:"transactions"`
			} `json:"body"`
		} `json:"block"`
	}
	if err := json.NewDecoder(held.Body).Decode(&whole); err != nil ||
		len(whole.Block.Body.Transactions) != 1 || len(whole.Block.Body.Transactions[0]) != 300_000 {
		t.Errorf("the first one: %v", err)
	}
	for t.Context().Err() == nil { // it may be a moment until the gateway knows
		if got, _ := w.do(t, block); got.StatusCode == http.StatusOK {
			return
		}
	}
}

// TestStreamWithoutRoomEnds and says so, as events and as lines, whether it has begun or not.
func TestStreamWithoutRoomEnds(t *testing.T) {
	w := thrifty(t)
	w.unread(t)
	const reason = `"reason":"ANSWERS_NOT_READ"`
	for name, tt := range map[string]struct {
		accept, reason string
	}{
		"lines":  {"application/json", `{"error":{"code":"RESOURCE_EXHAUSTED",` + reason},
		"events": {"text/event-stream", `data: {"code":"RESOURCE_EXHAUSTED",` + reason},
	} {
		t.Run(name, func(t *testing.T) {
			ask := func(from int) (*http.Response, string) {
				got, body := w.do(t, request{method: "GET", path: "/v1/blocks:watch?from=" +
					strconv.Itoa(from), header: map[string]string{"Accept": tt.accept}})
				return got, string(body)
			}
			got, body := ask(largeBlock)
			if f := failureOf(t, []byte(body)); got.StatusCode != http.StatusTooManyRequests ||
				f.Reason != "ANSWERS_NOT_READ" {
				t.Errorf("before the first: status %d, %s", got.StatusCode, body)
			}
			got, body = ask(largeBlock - 1)
			if got.StatusCode != http.StatusOK || !strings.Contains(body, strconv.Itoa(largeBlock-1)) ||
				!strings.Contains(body, tt.reason) || len(body) > 2000 {
				t.Errorf("after the first: status %d, %.2000s", got.StatusCode, body)
			}
		})
	}
}

// TestLargeEvent comes whole, on one line.
func TestLargeEvent(t *testing.T) {
	w := thrifty(t)
	got := w.open(t.Context(), t, request{method: "GET", path: "/v1/blocks:watch?from=" +
		strconv.Itoa(largeBlock), header: map[string]string{"Accept": "text/event-stream"}})
	defer func() { _ = got.Body.Close() }()
	in := bufio.NewReader(got.Body)
	var lines []string
	for range 3 {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	var event struct {
		Block struct {
			Body struct {
				Transactions [][]byte `json:"transactions"`
			} `json:"body"`
		} `json:"block"`
	}
	data, ok := strings.CutPrefix(lines[2], "data: ")
	err := json.Unmarshal([]byte(data), &event)
	if !ok || err != nil || lines[0] != "event: block\n" || lines[1] != "id: 501\n" ||
		len(event.Block.Body.Transactions) != 1 {
		t.Errorf("%q, %q, %v", lines[0], lines[1], err)
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		t.Error(err)
	}
}
