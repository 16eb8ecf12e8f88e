package podman

import (
	"os"
	"testing"
	"time"

	"github.com/united-containers/ucn/services/executor/executortest"
)

// TestServiceSleeps: the engine's service ends when nobody needs it, though offers go on listing
// images; it comes back when it is needed, and clears away what the last one left unfinished.
func TestServiceSleeps(t *testing.T) {
	img := executortest.GuestImage(t)
	cfg := newConfig(t)
	cfg.IdleStop = time.Second
	d, err := New(cfg, "exec-1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	before := time.Now().Add(-time.Second)
	if _, err := d.LoadImage(t.Context(), img.ID, "", img.Open); err != nil {
		t.Fatal(err)
	}
	_, done := d.i.service.process()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for asleep := false; !asleep; {
		list, err := d.ListImages(t.Context())
		if err != nil || len(list) != 1 || list[0].ID != img.ID || list[0].Bytes == 0 ||
			list[0].Used.Before(before) {
			t.Fatalf("images %+v, %v", list, err)
		}
		select {
		case <-done:
			asleep = true
		case <-tick.C:
		case <-limit.C:
			t.Fatal("the service goes on, 20 s without a call")
		}
	}
	rest := d.i.path("scratch", "storage123")
	if err := os.WriteFile(rest, []byte("half an image"), 0o600); err != nil {
		t.Fatal(err)
	}
	if lines := guest(t, d, executortest.Spec(img.ID, "again", "out", "hi")); len(lines) != 1 {
		t.Errorf("the next container says %q", lines)
	}
	if exists(rest) {
		t.Error("unfinished work stays")
	}
}
