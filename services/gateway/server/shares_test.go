package server

import (
	"errors"
	"net/http"
	"testing"

	"github.com/united-containers/ucn/services/gateway"
)

func TestOneClientLeavesRoom(t *testing.T) {
	s := newShares(4)
	take := func(from string) (func(), error) {
		return s.take(&http.Request{RemoteAddr: from}, "streams")
	}
	give, err := take("192.0.2.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = take("192.0.2.1:2"); err != nil {
		t.Fatal(err)
	}
	if _, err = take("192.0.2.1:3"); !errors.Is(err, gateway.ReasonBusy) {
		t.Errorf("beyond the half: %v", err)
	}
	for _, other := range []string{"192.0.2.2:1", "[2001:db8::1]:1"} {
		if _, err = take(other); err != nil {
			t.Errorf("%s: %v", other, err)
		}
	}
	if _, err = take("192.0.2.3:1"); !errors.Is(err, gateway.ReasonBusy) {
		t.Errorf("beyond all: %v", err)
	}
	give()
	if _, err = take("192.0.2.1:4"); err != nil {
		t.Errorf("after one was given back: %v", err)
	}
}
