package server

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/united-containers/ucn/kit/share"
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
	if _, err = take("[::ffff:192.0.2.1]:4"); !errors.Is(err, gateway.ReasonBusy) {
		t.Errorf("the same address, mapped: %v", err)
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

// TestOneSiteIsOneClient: whoever has a /64 has 2^64 addresses.
func TestOneSiteIsOneClient(t *testing.T) {
	s := newShares(4)
	for i, from := range []string{"[2001:db8:1:2::1]:1", "[2001:db8:1:2:3::1]:1",
		"[2001:db8:1:2:ffff::]:1", "[2001:db8:1:3::1]:1"} {
		_, err := s.take(&http.Request{RemoteAddr: from}, "streams")
		if beyond := i == 2; errors.Is(err, gateway.ReasonBusy) != beyond {
			t.Errorf("%s: %v", from, err)
		}
	}
}

// TestStreamsOfBlocksGiveBackBothPlaces: also where only one of them was free.
func TestStreamsOfBlocksGiveBackBothPlaces(t *testing.T) {
	s := &Server{streams: newStreams(40), draining: t.Context(),
		blocks: share.New(share.Bounds{Most: 2, Each: 1})}
	w, r := httptest.NewRecorder(), &http.Request{RemoteAddr: "192.0.2.1:1"}
	for range 3 {
		_, end, err := s.beginStream(w, r, gateway.WatchBlocks)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = s.beginStream(w, r, gateway.WatchBlocks)
		if !errors.Is(err, gateway.ReasonBusy) {
			t.Errorf("a second stream of blocks: %v", err)
		}
		end()
	}
	if s.streams.Taken() != 0 || s.blocks.Taken() != 0 {
		t.Errorf("%d streams and %d of blocks are still taken", s.streams.Taken(), s.blocks.Taken())
	}
}
