package podman

import (
	"errors"
	"math"
	"testing"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/executortest"
)

// An image that would fill the disk is refused while it is unpacked, and harms nobody else.
func TestImageWithoutRoom(t *testing.T) {
	img := executortest.GuestImage(t)
	d := loaded(t, img)
	c, err := d.Create(t.Context(), executortest.Spec(img.ID, "a", "sleep", "1s", "exit", "3"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := executortest.GuestImage(t, "salt")
	d.i.reserve = math.MaxUint64
	if _, err := d.LoadImage(t.Context(), other.ID, "", other.Open); !errors.Is(err,
		executor.ErrUnsupported) {
		t.Errorf("loading without room: %v", err)
	}
	d.i.reserve = diskReserve
	if _, err := d.LoadImage(t.Context(), other.ID, "", other.Open); err != nil {
		t.Errorf("loading with room: %v", err)
	}
	if e, err := c.Wait(t.Context()); err != nil || e.Code != 3 {
		t.Errorf("the container that ran meanwhile: %+v, %v", e, err)
	}
}
