package podman

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/services/executor"
)

// until loads an image as an attempt does, which comes again when there is no room now, and returns
// its last error.
func (s *shelf) until(img image, tries int) (err error) {
	for range tries {
		if err = s.load(img); err == nil || verdict(err) == "too big" {
			return err
		}
		<-time.After(time.Second)
	}
	return err
}

// crowd keeps loading images like the one given, so many at once, and removes them again, until it
// is over. It counts what could not be loaded in ten tries.
func (s *shelf) crowd(n int, like image, over <-chan struct{}) (lost *atomic.Int64, wait func()) {
	lost = &atomic.Int64{}
	var group sync.WaitGroup
	for k := range n {
		group.Go(func() {
			<-time.After(time.Duration(k) * (like.coming + like.making) / time.Duration(n))
			for round := 0; ; round++ {
				select {
				case <-over:
					return
				default:
				}
				img := like
				img.id = executor.ImageID(fmt.Sprint(like.id, k, " ", round))
				if s.until(img, 10) != nil {
					lost.Add(1)
					continue
				}
				s.take(-int64(img.unpacked) * mib)
			}
		})
	}
	return lost, group.Wait
}

// TestLargeIsNotStarved: a large image that fits is loaded although smaller ones come one after the
// other, whether they keep it waiting or have it give way; and none of those is lost by that.
func TestLargeIsNotStarved(t *testing.T) {
	for name, tt := range map[string]struct {
		n     int
		small image
	}{
		"they unpack":            {3, image{"small", 10, 280, time.Second, 8 * time.Second}},
		"they unpack for longer": {3, image{"small", 10, 280, 100 * time.Millisecond, 20 * time.Second}},
		"they come":              {5, image{"small", 250, 20, 8 * time.Second, 100 * time.Millisecond}},
		"they come slowly":       {5, image{"small", 250, 20, 40 * time.Second, 100 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShelf(diskReserve + 2000*mib)
				over := make(chan struct{})
				lost, wait := s.crowd(tt.n, tt.small, over)
				<-time.After(time.Minute)
				began := time.Now()
				err := s.until(image{"large", 50, 1400, 2 * time.Second, 10 * time.Second}, 10)
				took := time.Since(began)
				if err != nil || took > 80*time.Second {
					t.Errorf("loaded after %v: %v", took, err)
				}
				s.take(-1400 * mib)
				<-time.After(5 * time.Minute)
				close(over)
				wait()
				if lost.Load() != 0 || len(s.here) != 0 {
					t.Errorf("%d others were lost, %d are counted", lost.Load(), len(s.here))
				}
			})
		})
	}
}

// TestLargeOnesTakeTurns: several that do not fit beside each other, among small ones.
func TestLargeOnesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(diskReserve + 2000*mib)
		over := make(chan struct{})
		lost, wait := s.crowd(2, image{"small", 10, 280, time.Second, 8 * time.Second}, over)
		var large sync.WaitGroup
		for n := range 3 {
			large.Go(func() {
				img := image{executor.ImageID(fmt.Sprint("large ", n)), 50, 1300 + 50*uint64(n),
					2 * time.Second, 10 * time.Second}
				began := time.Now()
				if err := s.until(img, 10); err != nil || time.Since(began) > 3*time.Minute {
					t.Errorf("%s after %v: %v", img.id, time.Since(began), err)
					return
				}
				s.take(-int64(img.unpacked) * mib)
			})
		}
		large.Wait()
		close(over)
		wait()
		if lost.Load() != 0 {
			t.Errorf("%d small ones were lost", lost.Load())
		}
	})
}

// TestSlowImageKeepsNobodyOut: one that sends slowly waits for nothing, so it reserves nothing.
func TestSlowImageKeepsNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(diskReserve + 1000*mib)
		var slow sync.WaitGroup
		slow.Go(func() { _ = s.load(image{"slow", 100, 600, 20 * time.Minute, time.Second}) })
		<-time.After(time.Minute)
		for n := range 5 {
			began := time.Now()
			img := image{executor.ImageID(fmt.Sprint("small ", n)), 20, 300, time.Second, time.Second}
			if err := s.load(img); err != nil || time.Since(began) > 3*time.Second {
				t.Errorf("loaded after %v: %v", time.Since(began), err)
			}
			s.take(-300 * mib)
			<-time.After(10 * time.Second)
		}
		slow.Wait()
	})
}
