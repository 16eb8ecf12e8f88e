package server

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/share"
	"github.com/united-containers/ucn/services/storage"
)

// Directories that are put at once, each up to 4 MiB in memory and as much again decoded.
const (
	MaxDirectories  = 128
	directoriesEach = 8
	// freeDirectory is how many bytes of one need no place: every upload may hold so many.
	freeDirectory = 64 << 10
	// One that has a place and of which less than hasty bytes a second came, after the first grace,
	// gives way to an account that has none.
	hasty = 256 << 10
	grace = time.Second
)

// directories are those that are received, and have places.
type directories struct {
	places *share.Places // a client is an account
	within time.Duration // for all of one
	now    func() time.Time

	mu    sync.Mutex // guards the rest, since and whole of all, and taking of places
	under map[*directory]struct{}
}

func newDirectories(within time.Duration, now func() time.Time) *directories {
	return &directories{within: within, now: now, under: map[*directory]struct{}{},
		places: share.New(share.Bounds{Most: MaxDirectories, Each: directoriesEach, Keep: 1})}
}

// directory is the bytes of one as a reader. The bytes that need no place aside, it has one until
// its upload ends.
type directory struct {
	all   *directories
	turn  *turn
	body  io.Reader
	got   atomic.Int64 // bytes
	place *share.Place
	timer *time.Timer
	since time.Time // it has the place
	whole bool      // it is not waited for
}

func (a *directories) receive(t *turn, body io.Reader) *directory {
	return &directory{all: a, turn: t, body: body}
}

// Read implements io.Reader.
func (d *directory) Read(p []byte) (int, error) {
	n, err := d.body.Read(p)
	if errors.Is(err, io.EOF) {
		d.there()
	}
	if d.got.Add(int64(n)) > freeDirectory && d.place == nil && err == nil {
		err = d.take()
	}
	return n, err
}

// take takes a place, perhaps of one that comes slowly.
func (d *directory) take() (err error) {
	d.all.mu.Lock()
	defer d.all.mu.Unlock()
	if d.place, err = d.turn.take(d.all.places); errors.Is(err, share.ErrFull) && d.all.makeRoom(d) {
		d.place, err = d.turn.take(d.all.places)
	}
	if err != nil {
		return fault.New(fault.ResourceExhausted, storage.ReasonBusy,
			"too many directories are being put: at most %d at once, %d of one account",
			MaxDirectories, directoriesEach).WithRetry(time.Second)
	}
	d.since = d.all.now()
	d.all.under[d] = struct{}{}
	stalled := storage.Unfinished(d.all.within)
	d.timer = time.AfterFunc(d.all.within, func() { d.turn.leave(stalled) })
	return nil
}

// makeRoom ends the directory that is most behind what it should have, if there is one, and the
// account of d has no place. mu is held.
func (a *directories) makeRoom(d *directory) bool {
	var slowest *directory
	var most int64
	now := a.now()
	for one := range a.under {
		if one.turn.account == d.turn.account {
			return false
		}
		if behind := one.behind(now); behind > most {
			slowest, most = one, behind
		}
	}
	if slowest == nil {
		return false
	}
	delete(a.under, slowest)
	slowest.place.Give()
	slowest.turn.leave(storage.TooSlow())
	return true
}

// behind is how many bytes are missing of what should have come by now. mu is held.
func (d *directory) behind(now time.Time) int64 {
	age := now.Sub(d.since)
	if d.whole || age <= grace {
		return 0
	}
	return int64(age.Seconds()*hasty) - d.got.Load()
}

// there notes that all bytes are.
func (d *directory) there() {
	d.all.mu.Lock()
	defer d.all.mu.Unlock()
	d.whole = true
	if d.timer != nil {
		d.timer.Stop()
	}
}

// end forgets the directory; the turn gives its place back.
func (d *directory) end() {
	d.there()
	d.all.mu.Lock()
	defer d.all.mu.Unlock()
	delete(d.all.under, d)
}

// putDirectory is session.Put of a directory.
func (t *turn) putDirectory(ctx context.Context, session *storage.Session, p storage.Put,
	body io.Reader,
) (storage.Stored, error) {
	d := t.s.directories.receive(t, body)
	defer d.end()
	return session.Put(ctx, p, d)
}
