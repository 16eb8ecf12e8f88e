package podman

import (
	"context"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/executor"
)

// What images leave of the disk to everybody else.
const (
	diskReserve = 512 << 20 // bytes
	fileReserve = 20        // one file of so many that the file system may hold
	// shortPart of the reserve is what others may take of it before unpacking is broken off.
	shortPart = 2
	diskLook  = 100 * time.Millisecond
)

const (
	arriveStep = 1 << 20 // bytes of an image that are let in at once
	// packedCopies of an image are made by the engine while it unpacks, beside what has arrived: it
	// takes the layout apart, and then copies each blob (measured with podman 4.3).
	packedCopies = 2
	ebbAfter     = 5 * time.Second // for the disk to show what an image that left took
	ebbAborted   = time.Minute     // the same, of all that an engine was killed over
	bigFor       = 10 * time.Minute
	maxBig       = 256 // images that are remembered as too big, and as many that gave way
	// firstAfter is how long an image that fits waits, tries that gave way included, before it goes
	// first: others that come or came later get no room that it wants, and give way to it.
	firstAfter = 10 * time.Second
	bigFiles   = 100_000 // an image of more is too big for a disk that is short of files
)

// room shares what is free of the disk among the images that are on their way into the engine.
//
// An image takes its room before the engine takes it: while it arrives, step by step, and, when all
// of it is here and what it unpacks to is known, for its unpacking at once. So an image that is too
// big ends alone, before the engine unpacks anything of it, and no load ends another but to give
// its own room up. An image that has its room is unpacked to the end. Those that find none wait
// while others are unpacked. What the disk is short of all the same, since others write to it, ends
// the largest of them, once; the rest may come again.
type room struct {
	reserve uint64 // bytes
	look    func() (disk, error)

	mu       sync.Mutex // guards what follows, and arrivals
	here     map[*arrival]struct{}
	big      map[executor.ImageID]bigImage // that did not fit; at most maxBig
	gave     map[executor.ImageID]gaveWay  // to others; at most maxBig
	ebb      time.Time                     // until then the disk may show more room by itself
	aborting bool
}

// disk is a file system: bytes and files, all and free. One without a bound on files has 0 in all.
type disk struct{ free, files, freeFiles uint64 }

// space is disk that is wanted or free.
type space struct{ bytes, files uint64 }

func (s space) plus(o space) space { return space{s.bytes + o.bytes, s.files + o.files} }

func (s space) minus(o space) space {
	return space{s.bytes - min(s.bytes, o.bytes), s.files - min(s.files, o.files)}
}

func (s space) within(o space) bool { return s.bytes <= o.bytes && s.files <= o.files }

// bigImage is an image that needs more than there was.
type bigImage struct {
	needs space
	until time.Time
}

// gaveWay is an image that ended for others to find room, and keeps its place.
type gaveWay struct{ since, until time.Time }

// arrival is one image on its way.
type arrival struct {
	r       *room
	since   time.Time // when it first waited; zero: never
	waits   space     // what it waits for now; zero: nothing
	id      executor.ImageID
	give    context.CancelCauseFunc // ends it
	arrived uint64                  // bytes let in
	coming  uint64                  // bytes that are known to follow
	needs   space                   // for its unpacking, once it has that room
	going   bool                    // it was told to end
}

// unpacks tells whether the engine may unpack it.
func (a *arrival) unpacks() bool { return a.needs != space{} }

// all is what it takes altogether.
func (a *arrival) all() space { return a.needs.plus(space{bytes: a.arrived}) }

// weight is how many bytes it will take altogether, as far as is known.
func (a *arrival) weight() uint64 {
	if a.unpacks() {
		return a.all().bytes
	}
	return (1 + packedCopies) * (a.arrived + a.coming)
}

// newRoom shares the disk that dir is on.
func newRoom(dir string) *room {
	return &room{
		reserve: diskReserve, here: map[*arrival]struct{}{}, big: map[executor.ImageID]bigImage{},
		gave: map[executor.ImageID]gaveWay{},
		look: func() (disk, error) {
			var st unix.Statfs_t
			err := unix.Statfs(dir, &st)
			return disk{st.Bavail * uint64(st.Bsize), st.Files, st.Ffree}, err
		},
	}
}

// spare is what is free above the reserves. A disk that cannot be looked at is not short.
func (r *room) spare() space {
	d, err := r.look()
	if err != nil {
		return space{1 << 62, 1 << 62}
	}
	s := space{d.free, d.freeFiles}.minus(space{r.reserve, d.files / fileReserve})
	if d.files == 0 {
		s.files = 1 << 62
	}
	return s
}

// knock tells whether an image may come at all: not one that was found too big a while ago, if it
// still is, nor any to a full disk that nobody is about to leave.
func (r *room) knock(id executor.ImageID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	needs, now := space{bytes: arriveStep}, time.Now()
	known, remembered := r.big[id]
	if remembered = remembered && now.Before(known.until); remembered {
		needs = known.needs
	}
	most := r.spare()
	for other := range r.here {
		most = most.plus(other.all())
	}
	if needs.within(most) || now.Before(r.ebb) && !remembered {
		return nil
	}
	return r.refuse(id, needs, most)
}

// enter begins the arrival of an image. give ends it with a cause. Call leave at last.
func (r *room) enter(id executor.ImageID, give context.CancelCauseFunc) *arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := &arrival{r: r, id: id, give: give}
	if g, ok := r.gave[id]; ok && time.Now().Before(g.until) {
		a.since = g.since
	}
	r.here[a] = struct{}{}
	return a
}

// leave gives the room back. What the image took is free, or the image's, a moment later.
func (a *arrival) leave() {
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	delete(a.r.here, a)
	if a.arrived > 0 {
		a.r.ebbs(ebbAfter)
	}
}

// ebbs expects more room for a while. The caller holds mu.
func (r *room) ebbs(d time.Duration) {
	if until := time.Now().Add(d); until.After(r.ebb) {
		r.ebb = until
	}
}

// comes says that so many bytes follow: an image that has no room for them ends before they do.
func (a *arrival) comes(bytes uint64) {
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	a.coming = min(bytes, 1<<50)
}

// arrive waits for room for more bytes of the image. Errors: as of ask, and why ctx ended.
func (a *arrival) arrive(ctx context.Context, bytes uint64) error {
	return a.await(ctx, func() (want, least space) {
		a.coming = max(a.coming, bytes)
		return space{bytes: bytes}, space{bytes: a.weight() - a.arrived}
	}, func(space) {
		a.arrived += bytes
		a.coming -= bytes
	})
}

// unpack waits for room for all that the engine makes of the image. Errors: as of arrive.
func (a *arrival) unpack(ctx context.Context, disk, files uint64) error {
	return a.await(ctx, func() (want, least space) {
		needs := space{disk + packedCopies*a.arrived, files}
		return needs, needs
	}, func(got space) {
		a.needs = got
		delete(a.r.gave, a.id)
	})
}

// await asks until there is room for what is wanted, and takes it. Least is what the image is known
// to want, all in all, beside what it has.
func (a *arrival) await(
	ctx context.Context, wants func() (want, least space), take func(space),
) error {
	tick, began := time.NewTicker(diskLook), time.Now()
	defer tick.Stop()
	defer a.waitNoMore()
	for {
		a.r.mu.Lock()
		want, least := wants()
		granted, err := a.r.ask(a, want, least, time.Since(began) < ebbAborted)
		if granted {
			take(want)
		} else {
			a.waitFor(want)
		}
		a.r.mu.Unlock()
		if granted || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// waitFor notes what it waits for, and since when. The caller holds mu.
func (a *arrival) waitFor(s space) {
	a.waits = s
	if a.since.IsZero() {
		a.since = time.Now()
	}
}

func (a *arrival) waitNoMore() {
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	a.waits = space{}
}

// first is the image that has waited longest, if that is too long; nil: none has. The caller holds
// mu.
func (r *room) first() (first *arrival) {
	for a := range r.here {
		if a.waits != (space{}) && !a.going && (first == nil || a.since.Before(first.since)) {
			first = a
		}
	}
	if first == nil || time.Since(first.since) < firstAfter {
		return nil
	}
	return first
}

// ask tells whether there is room now, neither when it is worth waiting for, and an
// executor.NoRoomError when there is none. Who is patient waits for what others have left. The
// caller holds mu.
func (r *room) ask(a *arrival, want, least space, patient bool) (granted bool, err error) {
	var promised, others space
	ebbing := patient && time.Now().Before(r.ebb)
	largest, wait := a, ebbing || r.aborting
	weight := least.bytes + a.arrived
	first, kept := r.first(), space{}
	switch first {
	case nil:
	case a: // the others give way
		largest, weight = nil, 0
	default: // what is unpacked counts twice until it is done: it is promised, and on the disk
		kept, wait = first.waits.plus(want), true
	}
	for o := range r.here {
		if o == a {
			continue
		}
		if o.unpacks() {
			promised = promised.plus(o.needs)
		}
		others = others.plus(o.all())
		wait = wait || o.unpacks() || o.going
		if !o.unpacks() && o.weight() > weight {
			largest, weight = o, o.weight()
		}
	}
	if largest == nil {
		largest = a
	}
	spare := r.spare()
	switch {
	case a.going:
		return false, nil // ctx ends
	case want.within(spare.minus(promised).minus(kept)) && least.within(spare.plus(others)):
		return true, nil
	case !least.within(spare.plus(others)) && !ebbing && !r.aborting:
		return false, r.refuse(a.id, least.plus(space{bytes: a.arrived}),
			spare.plus(others).plus(space{bytes: a.arrived}))
	case wait:
		return false, nil
	case largest == a:
		r.keepPlace(a)
		return false, &executor.NoRoomError{Need: least.bytes, Room: spare.bytes}
	}
	// It fits, but for the largest of those that still arrive.
	r.keepPlace(largest)
	largest.end(&executor.NoRoomError{Need: largest.arrived + least.bytes, Room: spare.bytes})
	return false, nil
}

// end tells an image to go. The caller holds mu.
func (a *arrival) end(cause error) {
	a.going = true
	a.give(cause)
}

// keepPlace remembers since when an image waits that ends for others. The caller holds mu.
func (r *room) keepPlace(a *arrival) {
	now := time.Now()
	maps.DeleteFunc(r.gave, func(_ executor.ImageID, g gaveWay) bool { return !now.Before(g.until) })
	since := a.since
	if since.IsZero() {
		since = now
	}
	if len(r.gave) < maxBig {
		r.gave[a.id] = gaveWay{since: since, until: now.Add(bigFor)}
	}
}

// refuse makes the error of an image that would find no room if it were alone. One that takes more
// than the reserve is too big for the room that there is, and remembered; of a smaller one it is
// the disk that is full, for other reasons. The caller holds mu.
func (r *room) refuse(id executor.ImageID, needs, have space) error {
	lasting := needs.bytes > r.reserve || needs.files > bigFiles
	if lasting {
		r.remember(id, needs)
	}
	return &executor.NoRoomError{Need: needs.bytes, Room: have.bytes, Lasting: lasting}
}

// remember keeps what an image needs, so that it need not come again to be told so. The caller
// holds mu.
func (r *room) remember(id executor.ImageID, needs space) {
	now := time.Now()
	var oldest executor.ImageID
	for other, b := range r.big {
		if !now.Before(b.until) {
			delete(r.big, other)
		} else if oldest == "" || b.until.Before(r.big[oldest].until) {
			oldest = other
		}
	}
	if len(r.big) >= maxBig {
		delete(r.big, oldest)
	}
	r.big[id] = bigImage{needs, now.Add(bigFor)}
}

// errBrokenOff ends those that were on their way when the disk ran short over another image.
var errBrokenOff = fault.New(fault.Unavailable, "IMAGE_BROKEN_OFF",
	"the host's disk ran short over another image; it comes again")

// short tells that unpacking takes what is left of the disk: then everything on its way is told to
// end, and the caller ends the engine and says so by aborted.
func (r *room) short() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, err := r.look()
	if err != nil || d.free > r.reserve/shortPart &&
		(d.files == 0 || d.freeFiles > d.files/fileReserve/shortPart) {
		return false
	}
	var largest *arrival
	for a := range r.here {
		if a.unpacks() && !a.going && (largest == nil || a.all().bytes > largest.all().bytes) {
			largest = a
		}
	}
	if largest == nil || r.aborting {
		return false
	}
	needs := largest.all()
	lasting := needs.bytes > r.reserve
	if lasting {
		r.remember(largest.id, needs)
	}
	largest.end(&executor.NoRoomError{Need: needs.bytes, Room: d.free, Lasting: lasting})
	for a := range r.here {
		if !a.going {
			a.end(errBrokenOff)
		}
	}
	r.aborting = true
	return true
}

// aborted says that the engine was ended, and what it had not finished is on its way out.
func (r *room) aborted() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.aborting = false
	r.ebbs(ebbAborted)
}

// gate lets an image through to the engine as far as it has room. What follows once it has the room
// of its unpacking is a part of that.
type gate struct {
	ctx  context.Context
	a    *arrival
	to   io.Writer
	left int
}

// Write implements io.Writer.
func (g *gate) Write(p []byte) (int, error) {
	for len(p) > g.left && !g.a.unpacks() {
		if err := g.a.arrive(g.ctx, arriveStep); err != nil {
			return 0, fmt.Errorf("making room: %w", err)
		}
		g.left += arriveStep
	}
	n, err := g.to.Write(p)
	g.left -= n
	return n, err
}
