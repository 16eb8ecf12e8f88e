package podman

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/executortest"
)

// TestLayersOfAnotherConfig: the engine names an image by its config. One that has the config of
// another and layers of its own neither blocks the other nor runs in its place.
func TestLayersOfAnotherConfig(t *testing.T) {
	good, other := executortest.GuestImage(t, "good"), executortest.GuestImage(t, "evil")
	evil := good.Swapped(t, other)
	d := loaded(t, other)
	_, err := d.LoadImage(t.Context(), evil.ID, "", evil.Open)
	if !errors.Is(err, executor.ErrImageMismatch) {
		t.Errorf("layers that the config does not name: %v", err)
	}
	if _, err := d.LoadImage(t.Context(), good.ID, "", good.Open); err != nil {
		t.Fatal(err)
	}
	_, err = d.LoadImage(t.Context(), evil.ID, "", evil.Open)
	if !errors.Is(err, executor.ErrImageMismatch) {
		t.Errorf("layers that the config does not name, beside its own: %v", err)
	}
	lines := guest(t, d, executortest.Spec(good.ID, "a", "read", "/salt0"))
	if !slices.Contains(lines, "good") {
		t.Errorf("the image's file reads %q", lines)
	}
}

// TestSameConfigTwice: two images that differ in how their layers are packed are one to the engine.
// Each is held or not by itself, also where a crash left the record of one that was removed.
func TestSameConfigTwice(t *testing.T) {
	packed := executortest.GuestImage(t)
	plain := packed.Unpacked(t)
	d := loaded(t, packed)
	if _, err := d.LoadImage(t.Context(), plain.ID, "", plain.Open); err != nil {
		t.Fatal(err)
	}
	digest, err := plain.ID.Digest()
	if err != nil {
		t.Fatal(err)
	}
	record, err := os.ReadFile(d.i.record(digest))
	if err == nil {
		err = d.RemoveImage(t.Context(), plain.ID)
	}
	if err == nil {
		err = os.WriteFile(d.i.record(digest), record, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for img, want := range map[*executortest.Image]bool{plain: false, packed: true} {
		if has, err := d.HasImage(t.Context(), img.ID); err != nil || has != want {
			t.Errorf("held: %v, %v, want %v", has, err, want)
		}
	}
	if _, err := d.LoadImage(t.Context(), plain.ID, "", plain.Open); err != nil {
		t.Error(err)
	}
}
