package executor_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/fake"
)

// crowd is a disk that has no room for images a number of times.
type crowd struct {
	mu    sync.Mutex // guards what follows
	none  *executor.NoRoomError
	times int
	asked []time.Time
}

func (c *crowd) hook(call fake.Call) fake.Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	if call.Method != "LoadImage" {
		return fake.Fault{}
	}
	c.asked = append(c.asked, time.Now())
	if len(c.asked) > c.times {
		return fake.Fault{}
	}
	return fake.Fault{Err: c.none}
}

// crowdWorld is a world whose host holds no image, with a crowd once it is set.
func crowdWorld(w *world) *executor.Agent {
	w.host = fake.NewHost(fake.Options{Hook: w.driverHook})
	return w.start()
}

// runImage runs a job on an image and returns how it ended.
func (w *world) runImage(agent *executor.Agent, n byte, image executor.ImageID) *executor.Outcome {
	w.t.Helper()
	ask := w.ask(n, "exit", "0")
	ask.Spec.Image = image
	lease := w.lease(agent, ask)
	o := (&client{w: w}).run(w.task(ask, lease.ID))
	w.closed(ask.Attempt)
	return o
}

// TestImageWithoutRoom: a full disk may get room, so it is asked a few times; then, and at once
// when it is the image that is too big, the attempt is refused by name and costs nothing.
func TestImageWithoutRoom(t *testing.T) {
	const mib = 1 << 20
	full := &executor.NoRoomError{Need: 9 * mib, Room: mib}
	big := &executor.NoRoomError{Need: 9 * mib, Room: mib, Lasting: true}
	for name, tt := range map[string]struct {
		none  *executor.NoRoomError
		times int
		asked int
		want  executor.EndReason
	}{
		"room comes":     {full, 9, 10, executor.EndCompleted},
		"full":           {full, 99, 10, executor.EndRefused},
		"too big":        {big, 99, 1, executor.EndRefused},
		"too many files": {&executor.NoRoomError{Lasting: true}, 99, 1, executor.EndRefused},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				agent := crowdWorld(w)
				c := &crowd{none: tt.none, times: tt.times}
				w.setDriver(c.hook)
				o := w.runImage(agent, 1, w.addImage(1, 1000))
				if len(c.asked) != tt.asked || o.Reason != tt.want {
					t.Fatalf("asked %d times, ended %+v", len(c.asked), o)
				}
				took := c.asked[len(c.asked)-1].Sub(c.asked[0])
				if tt.asked > 1 && took < 10*time.Second {
					t.Errorf("asked %d times within %v", tt.asked, took)
				}
				if o.Reason == executor.EndRefused && (o.Amount != 0 || o.Message != tt.none.Error()) {
					t.Errorf("refused as %+v", o)
				}
			})
		})
	}
}

// TestIdleImagesYield: what is kept for later jobs keeps no image out, but goes for none that would
// not fit all the same.
func TestIdleImagesYield(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		agent := crowdWorld(w)
		run := func(n byte, image executor.ImageID, none *executor.NoRoomError) *executor.Outcome {
			w.setDriver((&crowd{none: none, times: 1}).hook)
			return w.runImage(agent, n, image)
		}
		held := func() (list []executor.ImageID) {
			images, err := w.host.Driver("e").ListImages(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range images {
				list = append(list, i.ID)
			}
			return list
		}
		for n := byte(1); n <= 3; n++ {
			w.setDriver(nil)
			if o := w.runImage(agent, n, w.addImage(n, 1000)); o.Reason != executor.EndCompleted {
				t.Fatalf("outcome %+v", o)
			}
			pass(time.Minute)
		}
		bomb := executor.NoRoomError{Need: 9000, Room: 5000, Lasting: true}
		if o := run(4, w.addImage(4, 1000), &bomb); o.Reason != executor.EndRefused ||
			!strings.Contains(o.Message, "no room") {
			t.Errorf("a bomb ended %+v", o)
		}
		if list := held(); len(list) != 3 {
			t.Errorf("a bomb drove out images: %v are left", list)
		}
		fits := executor.NoRoomError{Need: 6500, Room: 5000, Lasting: true}
		if o := run(5, w.addImage(5, 1000), &fits); o.Reason != executor.EndCompleted {
			t.Errorf("with two idle images gone it would fit: %+v", o)
		}
		list := held()
		for n, want := range map[byte]bool{1: false, 2: false, 3: true, 5: true} {
			image, got := w.addImage(n, 1000), false
			for _, id := range list {
				got = got || id == image
			}
			if got != want {
				t.Errorf("image %d is held: %v", n, got)
			}
		}
	})
}
