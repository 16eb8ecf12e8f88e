package podman

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/services/executor"
)

const mib = 1 << 20

// shelf is a disk of memory, and an engine that unpacks on it.
type shelf struct {
	*room

	mu sync.Mutex // guards what follows
	disk
}

func newShelf(free uint64) *shelf {
	s := &shelf{room: newRoom(""), disk: disk{free: free, files: 1000, freeFiles: 1000}}
	s.room.look = func() (disk, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.disk, nil
	}
	return s
}

func (s *shelf) take(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = uint64(int64(s.free) - bytes)
}

// image is one that comes: so many MiB packed, that unpack to so many, each within a time.
type image struct {
	id               executor.ImageID
	packed, unpacked uint64 // MiB
	coming, making   time.Duration
}

// load does what Instance.load does, on the shelf.
func (s *shelf) load(img image) error {
	if err := s.knock(img.id); err != nil {
		return err
	}
	ctx, give := context.WithCancelCause(context.Background())
	defer give(nil)
	a := s.enter(img.id, give)
	defer a.leave()
	kept := uint64(0)
	defer func() { s.take(-int64(kept)) }()
	a.comes(img.packed * mib)
	for range img.packed {
		if err := a.arrive(ctx, mib); err != nil {
			return err
		}
		s.take(mib)
		kept += mib
		nap(ctx, img.coming/time.Duration(img.packed))
	}
	if err := a.unpack(ctx, img.unpacked*mib, 1); err != nil {
		return err
	}
	engine := 2*kept + img.unpacked*mib
	s.take(int64(engine))
	nap(ctx, img.making)
	if ctx.Err() != nil {
		s.take(-int64(engine))
		return context.Cause(ctx)
	}
	s.take(-2 * int64(kept))
	return nil
}

func nap(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// all loads images beside each other, each a second after the one before.
func (s *shelf) all(images ...image) []error {
	errs := make([]error, len(images))
	var wait sync.WaitGroup
	for n, img := range images {
		wait.Go(func() {
			<-time.After(time.Duration(n) * time.Second)
			errs[n] = s.load(img)
		})
	}
	wait.Wait()
	return errs
}

// verdict says what an error of a load means for its attempt.
func verdict(err error) string {
	var none *executor.NoRoomError
	switch {
	case err == nil:
		return "loaded"
	case errors.As(err, &none) && none.Lasting:
		return "too big"
	case errors.As(err, &none):
		return "no room now"
	case errors.Is(err, errBrokenOff):
		return "again"
	}
	return err.Error()
}

// TestRoom: who gets the disk that is there, and what those are told who do not.
func TestRoom(t *testing.T) {
	small := image{"small", 20, 60, 10 * time.Second, 10 * time.Second}
	bomb := image{"bomb", 10, 60_000, 5 * time.Second, time.Hour}
	heavy := image{"heavy", 3000, 1, 15 * time.Second, time.Hour}
	half := image{"half", 100, 300, 5 * time.Second, time.Minute}
	other := half
	other.id, other.packed = "other", 90
	const reserve = diskReserve
	for name, tt := range map[string]struct {
		free   uint64
		images []image
		want   []string
	}{
		"room for all": {reserve + 1000*mib, []image{small, half}, []string{"loaded", "loaded"}},
		"a bomb": {reserve + 700*mib, []image{small, bomb, small},
			[]string{"loaded", "too big", "loaded"}},
		"one that fills the disk before it is whole": {reserve + 300*mib,
			[]image{small, heavy, small}, []string{"loaded", "too big", "loaded"}},
		"one after the other": {reserve + 1000*mib, []image{half, other}, []string{"loaded", "loaded"}},
		"not beside each other": {reserve + 650*mib, []image{half, other},
			[]string{"no room now", "loaded"}},
		"a disk that is full": {reserve, []image{small, half, bomb},
			[]string{"no room now", "no room now", "no room now"}},
		"a disk that is all but full": {reserve + 50*mib, []image{small}, []string{"no room now"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShelf(tt.free)
				for n, err := range s.all(tt.images...) {
					if got := verdict(err); got != tt.want[n] {
						t.Errorf("image %d of %v: %s, want %s", n, tt.images[n].id, got, tt.want[n])
					}
				}
				if len(s.here) != 0 {
					t.Errorf("%d are still counted", len(s.here))
				}
			})
		})
	}
}

// TestBombAgainAndAgain: whoever names bombs without end, the same one or new ones, keeps nobody
// from loading, and the same one is not even opened again until there is more room.
func TestBombAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(diskReserve + 500*mib)
		over := make(chan struct{})
		var attacks sync.WaitGroup
		for n := range 4 {
			attacks.Go(func() {
				for round := 0; ; round++ {
					select {
					case <-over:
						return
					default:
					}
					id := executor.ImageID(fmt.Sprint("bomb ", n, " ", round))
					err := s.load(image{id, 40, 50_000, 3 * time.Second, time.Hour})
					if got := verdict(err); got != "too big" && got != "no room now" {
						t.Errorf("a bomb: %s", got)
					}
				}
			})
		}
		failed := 0
		for n := range 20 {
			id := executor.ImageID(fmt.Sprint("honest ", n))
			err := s.load(image{id, 10, 12, 4 * time.Second, 2 * time.Second})
			if err != nil {
				failed++
				t.Logf("honest %d: %v", n, err)
			}
		}
		close(over)
		attacks.Wait()
		if failed > 0 {
			t.Errorf("%d honest loads failed", failed)
		}
		bomb := image{"bomb", 40, 50_000, 3 * time.Second, time.Hour}
		if got := verdict(s.load(bomb)); got != "too big" {
			t.Errorf("a bomb: %s", got)
		}
		began := time.Now()
		if got := verdict(s.load(bomb)); got != "too big" || time.Since(began) > 0 {
			t.Errorf("the same bomb again: %s after %v", got, time.Since(began))
		}
		if len(s.big) > maxBig {
			t.Errorf("%d bombs are remembered", len(s.big))
		}
		s.take(-60_000 * mib)
		bomb.making = time.Second
		if got := verdict(s.load(bomb)); got != "loaded" {
			t.Errorf("with room: %s", got)
		}
	})
}

// TestDiskRunsShort: what others write to the disk while images are unpacked ends the largest of
// them, once, and sends the rest away to come again.
func TestDiskRunsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(diskReserve + 2000*mib)
		large := image{"large", 100, 600, time.Second, time.Minute}
		small := image{"small", 20, 60, time.Second, time.Minute}
		slow := image{"slow", 50, 60, time.Minute, time.Minute}
		aborts := 0
		over := make(chan struct{})
		var guard sync.WaitGroup
		guard.Go(func() {
			for {
				select {
				case <-over:
					return
				case <-time.After(diskLook):
				}
				if s.short() {
					if s.short() {
						t.Error("the engine is ended while it is being ended")
					}
					aborts++
					<-time.After(time.Second)
					s.aborted()
				}
			}
		})
		guard.Go(func() {
			<-time.After(10 * time.Second)
			s.take(1300 * mib)
		})
		got := s.all(large, small, slow)
		close(over)
		guard.Wait()
		for n, want := range []string{"too big", "again", "again"} {
			if v := verdict(got[n]); v != want {
				t.Errorf("image %d: %s, want %s", n, v, want)
			}
		}
		if aborts != 1 {
			t.Errorf("the engine was ended %d times", aborts)
		}
		if got := verdict(s.load(small)); got != "loaded" {
			t.Errorf("the small one again: %s", got)
		}
	})
}

// TestRoomForFiles: files are shared like bytes.
func TestRoomForFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(diskReserve + 2000*mib)
		s.files, s.freeFiles = 10_000, 700
		ctx, give := context.WithCancelCause(t.Context())
		a, b := s.enter("a", give), s.enter("b", give)
		if err := a.unpack(ctx, mib, 150); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- b.unpack(ctx, mib, 100) }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("both have the last files: %v", err)
		default:
		}
		a.leave()
		if err := <-done; err != nil {
			t.Error(err)
		}
		b.leave()
		c := s.enter("c", give)
		if got := verdict(c.unpack(ctx, mib, 300)); got != "no room now" {
			t.Errorf("more files than are free: %s", got)
		}
		if got := verdict(c.unpack(ctx, mib, bigFiles+1)); got != "too big" {
			t.Errorf("a bomb of files: %s", got)
		}
	})
}
