package wire_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/token"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/gateway/server"
	"github.com/united-containers/ucn/services/gateway/wire"
)

// faucet asks the faucet under an Idempotency-Key.
func (w *world) faucet(t *testing.T, key string) (*http.Response, []byte) {
	t.Helper()
	return w.do(t, request{method: "POST", path: "/v1/faucet", body: strings.NewReader("{}"),
		header: map[string]string{"Idempotency-Key": key}})
}

// TestRefusalsAreNotKept: nothing was done, and the same may be granted next time: the account has
// money by then, the token more scopes, the thing is there.
func TestRefusalsAreNotKept(t *testing.T) {
	w := newWorld(t, nil)
	for name, err := range map[string]*fault.Error{
		"cancelled": fault.New(fault.Cancelled, "GONE", "gone"),
		"aborted":   fault.New(fault.Aborted, "CONFLICT", "again"),
		"retry":     fault.New(fault.NotFound, "SOON", "later").WithRetry(time.Second),
		"not-found": fault.New(fault.NotFound, "NONE", "there is none"),
		"refused":   fault.New(fault.PermissionDenied, "NO", "not with this token"),
		"no-money":  fault.New(fault.FailedPrecondition, "CANNOT_PAY", "it holds nothing"),
	} {
		w.calls.fail(err)
		first, _ := w.faucet(t, name)
		w.calls.fail(nil)
		again, body := w.faucet(t, name)
		third, _ := w.faucet(t, name)
		if again.Header.Get("Idempotency-Replayed") != "" || first.StatusCode < 400 ||
			again.StatusCode != 200 || third.Header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("%s: %d, then %d %s, then %v", name, first.StatusCode, again.StatusCode, body,
				third.Header)
		}
	}
}

// TestRefusedTransactions: one that is refused before any block fails the call, with the refusal's
// own kind, and is asked for again under the same key; so is one that waits for its block. One that
// stands in a block is answered, and kept.
func TestRefusedTransactions(t *testing.T) {
	w := newWorld(t, nil)
	refused := func(kind fault.Kind, reason string) *ledgerv1.SubmitResult {
		return &ledgerv1.SubmitResult{ErrorReason: reason, ErrorMessage: "no", ErrorCode: uint32(kind)}
	}
	waits := &ledgerv1.SubmitResult{Finality: ledgerv1.Finality_FINALITY_ACCEPTED}
	failed := &ledgerv1.SubmitResult{Finality: ledgerv1.Finality_FINALITY_COMMITTED, Height: 7,
		Receipt: &chainv1.Receipt{Status: chainv1.Status_STATUS_FAILED}}
	for name, c := range map[string]struct {
		first  *ledgerv1.SubmitResult
		status int
		kept   bool
	}{
		"no money":   {refused(fault.FailedPrecondition, "CANNOT_PAY"), 400, false},
		"malformed":  {refused(fault.InvalidArgument, "MALFORMED"), 400, false},
		"raced":      {refused(fault.Aborted, "NONCE_TAKEN"), 409, false},
		"full":       {refused(fault.ResourceExhausted, "POOL_FULL"), 429, false},
		"disk":       {refused(fault.Unavailable, "DISK_FULL"), 503, false},
		"of old":     {refused(0, "NONCE_OLD"), 400, false},
		"waits":      {waits, 200, false},
		"in a block": {failed, 200, true},
	} {
		send := func() (*http.Response, []byte) {
			return w.do(t, request{method: "POST", path: "/v1/transactions",
				body:   strings.NewReader(`{"transaction":"AQID"}`),
				header: map[string]string{"Idempotency-Key": name}})
		}
		w.ledger.result.Store(c.first)
		got, body := send()
		if got.StatusCode != c.status ||
			!strings.Contains(string(body), `"reason":"`+c.first.GetErrorReason()+`"`) &&
				c.status != 200 {
			t.Errorf("%s: %d %s", name, got.StatusCode, body)
		}
		w.ledger.result.Store(&ledgerv1.SubmitResult{
			Finality: ledgerv1.Finality_FINALITY_COMMITTED, Height: 99,
		})
		again, body := send()
		if kept := again.Header.Get("Idempotency-Replayed") == "true"; kept != c.kept ||
			again.StatusCode != 200 || strings.Contains(string(body), `"99"`) == kept {
			t.Errorf("%s: again %d %s, kept: %v", name, again.StatusCode, body, kept)
		}
	}
}

// TestLesserTokensHearNoAnswers: what an account's wide token was answered is not repeated to its
// narrow one.
func TestLesserTokensHearNoAnswers(t *testing.T) {
	w := newWorld(t, nil)
	ask := func(scopes ...string) (*http.Response, []byte) {
		return w.do(t, request{method: "POST", path: "/v1/faucet", body: strings.NewReader("{}"),
			header: map[string]string{"Idempotency-Key": "k",
				"Authorization": "Bearer " + w.token(t, func(c *token.Claims) { c.Scopes = scopes })}})
	}
	if got, body := ask("job", "file"); got.StatusCode != 200 {
		t.Fatalf("%d %s", got.StatusCode, body)
	}
	w.calls.take()
	if got, body := ask("job"); got.StatusCode != 422 || len(w.calls.take()) != 0 {
		t.Errorf("a lesser token: %d %s", got.StatusCode, body)
	}
	if got, body := ask("job", "file", "admin"); got.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("a wider token: %d %s", got.StatusCode, body)
	}
}

// TestBodiesTogether: one address cannot make the gateway hold more bytes of bodies than its share.
func TestBodiesTogether(t *testing.T) {
	w := newWorld(t, func(c *wire.Config) {
		c.HTTP.MaxBody, c.HTTP.MaxBodies = 64<<10, 256<<10
	})
	address := strings.TrimPrefix(w.url, "http://")
	begin := func() net.Conn {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprint(conn, "POST /v1/faucet HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n"+
			"\r\n")
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	send := func(c net.Conn, n int) {
		if _, err := c.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	answers := make(chan string, 3)
	conns := []net.Conn{begin(), begin(), begin()}
	for _, c := range conns {
		send(c, 65535) // all but the last byte: three times this is more than the share
		go func() {
			line, _ := bufio.NewReader(c).ReadString('\n')
			answers <- strings.TrimSpace(line)
		}()
	}
	if got := <-answers; got != "HTTP/1.1 429 Too Many Requests" {
		t.Errorf("the one that came last: %s", got)
	}
	for _, c := range conns {
		_, _ = c.Write([]byte{0}) // one of them is closed
	}
	for range 2 {
		if got := <-answers; got != "HTTP/1.1 400 Bad Request" {
			t.Errorf("a body of zeros within the share: %s", got)
		}
	}
}

// TestAnnouncedBodiesCostOthersNothing: what one address only announces keeps nobody out.
func TestAnnouncedBodiesCostOthersNothing(t *testing.T) {
	w := newWorld(t, func(c *wire.Config) { c.HTTP.MaxBodies = 2 * c.HTTP.MaxBody })
	for range 10 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(conn, "POST /v1/faucet HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"+
			"Expect: 100-continue\r\n\r\n", 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n') // now the gateway waits for the body
		if err != nil || strings.TrimSpace(line) != "HTTP/1.1 100 Continue" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	got, body := w.do(t, request{method: "POST", path: "/v1/faucet",
		body: strings.NewReader("{}")})
	if got.StatusCode == http.StatusTooManyRequests {
		t.Errorf("another one: %s", body)
	}
}

// TestCallOutlivesItsClient: a client that left before the answer hears it under the same key, and
// the call is made once.
func TestCallOutlivesItsClient(t *testing.T) {
	w := newWorld(t, nil)
	called := w.calls.slowNext()
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "POST", w.url+"/v1/faucet", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+w.token(t, nil))
	r.Header.Set("Idempotency-Key", "left")
	go func() {
		<-called
		leave()
	}()
	if got, err := http.DefaultClient.Do(r); err == nil {
		_ = got.Body.Close()
		t.Fatalf("the client stayed for status %d", got.StatusCode)
	}
	busy := time.NewTicker(20 * time.Millisecond)
	defer busy.Stop()
	for range 500 {
		got, body := w.faucet(t, "left")
		if got.StatusCode == http.StatusConflict { // still under way
			<-busy.C
			continue
		}
		if n := len(w.calls.take()); got.StatusCode != 200 || n != 1 ||
			got.Header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("status %d %s, called %d times, %v", got.StatusCode, body, n, got.Header)
		}
		return
	}
	t.Error("the call never ended")
}

// TestStrangersDoNotFillTheKeys: failures of made-up tokens are not kept.
func TestStrangersDoNotFillTheKeys(t *testing.T) {
	w := newWorld(t, func(c *wire.Config) { c.HTTP.Rates = server.Rates{} })
	for i := range 1_100 { // more than one address may have
		header := map[string]string{"Idempotency-Key": "k",
			"Authorization": fmt.Sprintf("Bearer x%d", i)}
		got, body := w.do(t, request{method: "POST", path: "/v1/faucet", anonymous: true,
			body: strings.NewReader("{bad"), header: header})
		if got.StatusCode == http.StatusTooManyRequests {
			t.Fatalf("full after %d: %s", i, body)
		}
	}
	if got, body := w.faucet(t, "honest"); got.StatusCode != 200 {
		t.Errorf("an honest account: status %d, %s", got.StatusCode, body)
	}
}
