package wire_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/gateway/server"
	"github.com/united-containers/ucn/services/gateway/wire"
)

// faucet asks the faucet under an Idempotency-Key.
func (w *world) faucet(t *testing.T, key string) (*http.Response, []byte) {
	t.Helper()
	return w.do(t, request{method: "POST", path: "/v1/faucet", body: strings.NewReader("{}"),
		header: map[string]string{"Idempotency-Key": key}})
}

// TestPassingFailuresAreNotKept: what may be different next time is asked again.
func TestPassingFailuresAreNotKept(t *testing.T) {
	w := newWorld(t, nil)
	for name, tc := range map[string]struct {
		err  *fault.Error
		kept bool
	}{
		"cancelled":     {fault.New(fault.Cancelled, "GONE", "gone"), false},
		"aborted":       {fault.New(fault.Aborted, "CONFLICT", "again"), false},
		"retry":         {fault.New(fault.NotFound, "SOON", "later").WithRetry(time.Second), false},
		"retry-refused": {fault.New(fault.FailedPrecondition, "SOON", "l").WithRetry(1), false},
		"not-found":     {fault.New(fault.NotFound, "NONE", "there is none"), true},
		"refused":       {fault.New(fault.PermissionDenied, "NO", "never"), true},
	} {
		w.calls.fail(tc.err)
		first, _ := w.faucet(t, name)
		w.calls.fail(nil)
		again, body := w.faucet(t, name)
		if kept := again.Header.Get("Idempotency-Replayed") == "true"; kept != tc.kept ||
			first.StatusCode < 400 || (again.StatusCode == 200) == kept {
			t.Errorf("%s: %d, then %d %s, kept %t", name, first.StatusCode, again.StatusCode, body,
				kept)
		}
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
