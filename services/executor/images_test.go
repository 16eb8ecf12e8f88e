package executor_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/fake"
)

// addImage puts an image of size bytes into storage.
func (w *world) addImage(n byte, size int) executor.ImageID {
	w.t.Helper()
	manifest := fmt.Appendf(nil, `{"config":{"digest":"sha256:%064x"}}`, n)
	manifest = append(manifest, strings.Repeat(" ", size-len(manifest))...)
	c, _, err := cid.Sum(cid.OCIBlob, bytes.NewReader(manifest))
	if err != nil {
		w.t.Fatal(err)
	}
	var layout bytes.Buffer
	out := tar.NewWriter(&layout)
	name := "blobs/sha256/" + strings.TrimPrefix(c.Digest(), "sha256:")
	err = out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(size)})
	if err == nil {
		_, err = out.Write(manifest)
	}
	if err != nil || out.Close() != nil {
		w.t.Fatal(err)
	}
	w.files.AddImage(executor.ImageID(c.String()), layout.Bytes())
	return executor.ImageID(c.String())
}

// TestImagesAreEvicted: images that jobs bring do not fill the disk; the last one stays, and so
// does one that a program runs on.
func TestImagesAreEvicted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.host = fake.NewHost(fake.Options{Hook: w.driverHook})
		w.cfg.ImageBytes = 3000
		agent := w.start()
		run := func(n byte, image executor.ImageID, args ...string) func() {
			ask := w.ask(n, args...)
			ask.Spec.Image = image
			lease := w.lease(agent, ask)
			done := make(chan struct{})
			go func() {
				defer close(done)
				if o := (&client{w: w}).run(w.task(ask, lease.ID)); o.Reason != executor.EndCompleted {
					t.Errorf("outcome %+v", o)
				}
				w.closed(ask.Attempt)
			}()
			return func() { <-done }
		}
		first := w.addImage(1, 1000)
		long := run(1, first, "sleep", "10m")
		var last executor.ImageID
		for n := byte(2); n < 10; n++ {
			last = w.addImage(n, 1000)
			run(n, last, "exit", "0")()
		}
		list, err := w.host.Driver("e").ListImages(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held := map[executor.ImageID]bool{}
		for _, image := range list {
			held[image.ID] = true
		}
		if len(list) > 4 || !held[first] || !held[last] {
			t.Errorf("%d images held, the running one %v, the last %v", len(list), held[first], held[last])
		}
		long()
	})
}

// TestImagesGoByAge: beyond the high mark those go that were not wanted for longest, until the low
// mark, and a restart forgets nobody's age.
func TestImagesGoByAge(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.host = fake.NewHost(fake.Options{Hook: w.driverHook})
		w.cfg.ImageBytes, w.cfg.ImageBytesLow = 4000, 3000
		agent := w.start()
		n := byte(0)
		run := func(image executor.ImageID) {
			n++
			ask := w.ask(n, "exit", "0")
			ask.Spec.Image = image
			lease := w.lease(agent, ask)
			if o := (&client{w: w}).run(w.task(ask, lease.ID)); o.Reason != executor.EndCompleted {
				t.Errorf("outcome %+v", o)
			}
			w.closed(ask.Attempt)
			pass(time.Minute)
		}
		var list []executor.ImageID
		for i := byte(1); i <= 5; i++ {
			list = append(list, w.addImage(i, 1000))
			run(list[i-1])
		}
		run(list[0]) // the oldest is wanted again
		w.stop()
		agent = w.start()
		last := w.addImage(6, 1000)
		run(last)
		held := []executor.ImageID{}
		images, err := w.host.Driver("e").ListImages(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, image := range images {
			held = append(held, image.ID)
		}
		slices.Sort(held)
		want := []executor.ImageID{list[0], list[3], list[4], last}
		slices.Sort(want)
		if !slices.Equal(held, want) {
			t.Errorf("held %v, want %v", held, want)
		}
	})
	cfg := executor.DefaultConfig()
	cfg.ImageBytes, cfg.ImageBytesLow = 10, 11
	if err := cfg.Validate(); err == nil {
		t.Error("a low mark above the high one is taken")
	}
}
