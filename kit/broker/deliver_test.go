package broker

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestWhoTakesNothingIsCutOff: else a client that NATS has cut off long ago would keep its place.
func TestWhoTakesNothingIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, far := net.Pipe()
		inner, nats := net.Pipe()
		defer func() { _, _ = far.Close(), nats.Close() }()
		began, done := time.Now(), make(chan time.Duration)
		go func() {
			deliver(client, inner)
			done <- time.Since(began)
		}()
		for range 3 { // one that takes what comes may be as slow as it is asked
			time.Sleep(time.Hour)
			if _, err := nats.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := far.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := nats.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if got := <-done; got != 3*time.Hour+deliverTime {
			t.Errorf("ended after %v", got)
		}
	})
}
