package server

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/united-containers/ucn/services/gateway"
)

// said is a whole answer with a status and a body.
func said(code int, body string) *recorded {
	got := &recorded{ResponseWriter: httptest.NewRecorder(), code: code, whole: true}
	_, _ = got.body.WriteString(body)
	return got
}

// TestWhoHasMostGivesWay: a full memory of answers takes new ones by forgetting the oldest of the
// client with most, never one of a client with few.
func TestWhoHasMostGivesWay(t *testing.T) {
	a, now := newAnswers(), time.Unix(0, 0)
	ask := func(who, key string) (*answer, error) {
		return a.begin(client{who: who, address: "one for all", proven: true}, key, [32]byte{}, now)
	}
	keep := func(who, key, body string) {
		t.Helper()
		one, err := ask(who, key)
		if err != nil {
			t.Fatalf("%s %s: %v", who, key, err)
		}
		if !one.done {
			a.end(one, said(200, body))
		}
	}
	keep("honest", "first", "")
	for n := range maxAnswers { // 16 greedy ones, and one more answer than there is room for
		keep(fmt.Sprint("greedy", n%16), fmt.Sprint(n), "")
	}
	keep("greedy1", "one more", "")
	if one, err := ask("greedy1", "one more"); err != nil || !one.done {
		t.Errorf("beyond a client's bound: %v", err)
	}
	keep("honest", "second", "")
	for _, key := range []string{"first", "second"} {
		if one, err := ask("honest", key); err != nil || !one.done {
			t.Errorf("%s of the honest one is forgotten: %v", key, err)
		}
	}
	if len(a.by) != maxAnswers || a.order.Len() != maxAnswers {
		t.Errorf("%d and %d answers", len(a.by), a.order.Len())
	}
	keep("honest", "large", string(make([]byte, maxAnswer)))
	for n := range maxRemember / maxAnswer {
		keep(fmt.Sprint("wordy", n%4), fmt.Sprint(n), string(make([]byte, maxAnswer)))
	}
	if one, err := ask("honest", "large"); err != nil || !one.done || a.bytes > maxRemember {
		t.Errorf("the large answer is forgotten, %d bytes are kept: %v", a.bytes, err)
	}
	now = now.Add(rememberTime)
	if _, err := ask("late", "k"); err != nil || len(a.by) != 1 || len(a.keepers) != 1 ||
		len(a.origins) != 1 ||
		len(a.origins["one for all"].holders) != 1 || a.bytes != 0 {
		t.Errorf("after their time %d answers of %d clients, %d bytes are left: %v", len(a.by),
			len(a.keepers), a.bytes, err)
	}
}

// TestOwnOldestGivesWay: a client with more answers than are kept of one goes on with new keys, and
// loses its oldest answers, wherever it asked from. What is under way is never forgotten.
func TestOwnOldestGivesWay(t *testing.T) {
	a, now := newAnswers(), time.Unix(0, 0)
	ask := func(n int) (*answer, error) {
		c := client{who: "busy", address: fmt.Sprint("home", n%2), proven: true}
		return a.begin(c, fmt.Sprint(n), [32]byte{}, now)
	}
	waiting := 0
	if _, err := ask(waiting); err != nil {
		t.Fatal(err)
	}
	for n := 1; n < maxOfClient+10; n++ {
		one, err := ask(n)
		if err != nil {
			t.Fatalf("answer %d: %v", n, err)
		}
		a.end(one, said(200, ""))
	}
	if len(a.by) != maxOfClient {
		t.Errorf("%d answers are kept", len(a.by))
	}
	if one, err := ask(11); err != nil || !one.done {
		t.Errorf("one of the newest: %v", err)
	}
	if one, err := ask(10); err != nil || one.done {
		t.Errorf("the oldest: %v", err)
	}
	if _, err := ask(waiting); !errors.Is(err, gateway.ReasonKeyBusy) {
		t.Errorf("the one under way: %v", err)
	}
}

// TestFreshAccountsPushOutTheirOwn: many accounts that each keep one answer, all made at one
// address, take nobody else's places, neither by number nor by bytes.
func TestFreshAccountsPushOutTheirOwn(t *testing.T) {
	for name, size := range map[string]int{"many": 0, "large": maxAnswer} {
		t.Run(name, func(t *testing.T) {
			a, now := newAnswers(), time.Unix(0, 0)
			keep := func(who, address, key string) {
				t.Helper()
				c := client{who: who, address: address, proven: true}
				one, err := a.begin(c, key, [32]byte{}, now)
				if err != nil {
					t.Fatalf("%s: %v", who, err)
				}
				if !one.done {
					a.end(one, said(200, string(make([]byte, size))))
				}
			}
			for n := range 20 {
				keep("honest", fmt.Sprint("home", n%2), fmt.Sprint(n))
			}
			for n := range maxAnswers + 100 {
				keep(fmt.Sprint("fresh", n), "attacker", "k")
			}
			for n := range 20 { // from wherever it asks
				c := client{who: "honest", address: "elsewhere", proven: true}
				if one, err := a.begin(c, fmt.Sprint(n), [32]byte{}, now); err != nil || !one.done {
					t.Fatalf("answer %d of the honest one is forgotten: %v", n, err)
				}
			}
			if len(a.by) > maxAnswers || a.bytes > maxRemember || len(a.origins) != 3 {
				t.Errorf("%d answers, %d bytes, %d origins", len(a.by), a.bytes, len(a.origins))
			}
		})
	}
}

// TestUnprovenShareTheirAddress: tokens of strangers do not make clients of their own.
func TestUnprovenShareTheirAddress(t *testing.T) {
	a, now := newAnswers(), time.Unix(0, 0)
	var err error
	for n := 0; err == nil && n <= maxOfClient; n++ {
		_, err = a.begin(client{who: "address:x", token: [32]byte{byte(n), byte(n >> 8)}}, "k",
			[32]byte{}, now)
	}
	if !errors.Is(err, gateway.ReasonKeysFull) {
		t.Errorf("one address has as many keys as it likes: %v", err)
	}
	one, err := a.begin(client{who: "address:y"}, "k", [32]byte{}, now)
	if err != nil {
		t.Fatal(err)
	}
	a.end(one, said(404, ""))
	if again, err := a.begin(client{who: "address:y"}, "k", [32]byte{}, now); err != nil ||
		again.done {
		t.Errorf("a stranger's failure is kept: %v", err)
	}
}
