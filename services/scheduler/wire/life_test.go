package wire_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	db "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/united-containers/ucn/chain/tx"
	events "github.com/united-containers/ucn/kit/event/pebble"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/pebble"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
	"github.com/united-containers/ucn/services/scheduler/server"
)

// world is what outlives a scheduler that is killed: chain, hosts, and what is on its disk.
type world struct {
	t      *testing.T
	ledger *schedulertest.Ledger
	hosts  *hosts
	life   *life
	lives  byte

	// at is the effect at which the life is killed, 0 = never; again is at which effect of the next
	// life that one is. keep is how much of what was not synced outlives the kill, in hundredths.
	at, again int64
	keep      int
	random    *rand.Rand
	effects   atomic.Int64
	kills     atomic.Int64

	// full makes the store refuse what it is given.
	full func() error

	// facts are what was acknowledged: each must hold in every later life.
	factsMu sync.Mutex
	facts   []fact
}

type fact struct {
	what  string
	holds func(scheduler.Store) error
}

// life is one process of the scheduler, from its start until it is killed.
type life struct {
	w      *world
	disk   *vfs.MemFS
	db     *db.DB
	store  *pebble.Store
	engine *scheduler.Engine
	stop   func()

	mu   sync.Mutex
	open bool // its store is
	dead bool
	left *vfs.MemFS // what is on the disk after the kill
}

var errKilled = errors.New("the scheduler was killed")

func newWorld(t *testing.T) *world {
	w := &world{t: t, ledger: schedulertest.NewLedger(time.Now), random: rand.New(rand.NewPCG(1, 1))}
	w.hosts = newHosts(w)
	return w
}

// effect counts something that outlives the process; false: the process does not live to do it.
func (l *life) effect() bool {
	if l.killed() {
		return false
	}
	if n := l.w.effects.Add(1); n != l.w.at {
		return true
	}
	l.kill()
	return false
}

// kill takes the process away: nothing that it does from here on is seen by anybody. First it is
// dead, then the disk is looked at, so that whatever took effect before stands on what is there.
func (l *life) kill() {
	l.mu.Lock()
	l.dead = true
	open := l.open
	l.mu.Unlock()
	l.w.kills.Add(1)
	keep := l.w.keep
	if !open && keep < 100 {
		keep = 0 // while it opens, Pebble trusts that entries of its folder are kept in their order
	}
	left := l.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keep, RNG: l.w.random})
	l.mu.Lock()
	l.left = left
	l.mu.Unlock()
}

func (l *life) killed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

// MaybeError counts what changes the disk. It never fails: a process that is killed sees no error.
func (l *life) MaybeError(op errorfs.Op) error {
	switch op.Kind {
	case errorfs.OpCreate, errorfs.OpRename, errorfs.OpRemove, errorfs.OpLink,
		errorfs.OpReuseForWrite, errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpFileSyncData,
		errorfs.OpFileSyncTo:
		l.effect()
	}
	return nil
}

// String implements errorfs.Injector.
func (l *life) String() string { return "life" }

// start begins a life over what is on the disk.
func (w *world) start(disk *vfs.MemFS) {
	w.lives++
	l := &life{w: w, disk: disk}
	w.life = l
	var err error
	l.db, err = db.Open("jobs", &db.Options{
		FS: errorfs.Wrap(disk, l), Logger: quiet{w.t}, FormatMajorVersion: db.FormatTableFormatV6,
	})
	if err != nil {
		w.t.Fatalf("open the store: %v", err)
	}
	l.mu.Lock()
	l.open = true
	l.mu.Unlock()
	outbox, err := events.NewOutbox(l.db, "out/")
	if err != nil {
		w.t.Fatalf("open the outbox: %v", err)
	}
	l.store = pebble.New(l.db, func(b *db.Batch, e *scheduler.Event) error {
		out, err := server.EventOf(e, "main")
		if err != nil {
			return err
		}
		return outbox.Append(b, out)
	})
	l.store.KeepRoom(func() error {
		if w.full != nil {
			return w.full()
		}
		return nil
	})
	l.engine = scheduler.New(scheduler.DefaultPolicy(), scheduler.Deps{
		Store: l.store, Ledger: chain{l, w.ledger}, Hosts: way{l, w.hosts},
		Assigner: schedulertest.Assigner(), VerifyLease: schedulertest.VerifyLease, Now: time.Now,
		Random: rand.NewChaCha8([32]byte{w.lives}), Log: slog.New(slog.DiscardHandler),
		Trace: func(ctx context.Context, _, _ string) (context.Context, func(error)) {
			return ctx, func(error) {}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.engine.Run(ctx, func() {}) }()
	synctest.Wait()
	l.stop = func() {
		cancel()
		if err := <-done; err != nil && !l.killed() {
			w.t.Errorf("Run: %v", err)
		}
		if err := l.db.Close(); err != nil {
			w.t.Errorf("close the store: %v", err)
		}
	}
	w.factsMu.Lock()
	facts := slices.Clone(w.facts)
	w.factsMu.Unlock()
	for _, f := range facts {
		if err := f.holds(l.store); err != nil && !l.killed() {
			w.t.Errorf("after %d kills: %s: %v", w.kills.Load(), f.what, err)
		}
	}
}

// alive returns the living process, after a start if the last one was killed.
func (w *world) alive() *life {
	for w.life.killed() {
		w.restart()
	}
	return w.life
}

// restart ends the life, killed or not, and begins another over what it left.
func (w *world) restart() {
	l := w.life
	if !l.killed() {
		l.stop()
		w.start(l.disk)
		return
	}
	l.stop()
	if w.again != 0 { // killed once more while it starts, or soon after
		w.at, w.again = w.effects.Load()+w.again, 0
	}
	w.start(l.left)
}

// must does something until it is acknowledged by a process that lives.
func (w *world) must(what string, call func(l *life) error) {
	w.t.Helper()
	for range 1000 {
		l := w.alive()
		err := call(l)
		switch {
		case l.killed():
			continue
		case err == nil:
			return
		case w.full == nil:
			w.t.Fatalf("%s: %v", what, err)
		}
		w.pass() // the disk is full: later
	}
	w.t.Fatalf("%s: never acknowledged", what)
}

// until lets time pass until something holds, for at most an hour.
func (w *world) until(what string, holds func(l *life) bool) {
	w.t.Helper()
	for range 3600 {
		l := w.alive()
		if holds(l) && !l.killed() {
			return
		}
		w.pass()
	}
	w.t.Fatalf("%s: not within an hour (after %d kills)", what, w.kills.Load())
}

// pass lets a second pass, in which hosts do what they do.
func (w *world) pass() {
	w.hosts.work(w.alive())
	time.Sleep(time.Second)
	synctest.Wait()
}

// chain is the ledger as a process sees it that may be killed at each of its effects.
type chain struct {
	l *life
	*schedulertest.Ledger
}

func (c chain) do(effect func() error) error {
	if !c.l.effect() {
		return errKilled
	}
	err := effect()
	if !c.l.effect() {
		return errKilled
	}
	return err
}

// PlaceLease implements scheduler.Ledger.
func (c chain) PlaceLease(ctx context.Context, s scheduler.SignedLease, fee uint64) error {
	return c.do(func() error {
		err := c.Ledger.PlaceLease(ctx, s, fee)
		if err == nil {
			c.l.w.hosts.leased(c.l, s.ID)
		}
		return err
	})
}

// EndLease implements scheduler.Ledger.
func (c chain) EndLease(ctx context.Context, id tx.LeaseID) error {
	return c.do(func() error { return c.Ledger.EndLease(ctx, id) })
}

// Settle implements scheduler.Ledger.
func (c chain) Settle(ctx context.Context, ids []tx.LeaseID) error {
	return c.do(func() error { return c.Ledger.Settle(ctx, ids) })
}

// way is the way to the hosts of a process that may be killed.
type way struct {
	l *life
	*hosts
}

// Ask implements scheduler.Hosts.
func (h way) Ask(
	ctx context.Context, host scheduler.Host, a scheduler.Ask,
) (scheduler.SignedLease, error) {
	if !h.l.effect() {
		return scheduler.SignedLease{}, errKilled
	}
	s, err := h.hosts.Ask(ctx, host, a)
	if !h.l.effect() {
		return scheduler.SignedLease{}, errKilled
	}
	return s, err
}

// Deliver implements scheduler.Hosts.
func (h way) Deliver(
	ctx context.Context, host scheduler.Host, task scheduler.Task,
) (told *scheduler.Report, err error) {
	err = chain{l: h.l}.do(func() error {
		told, err = h.hosts.Deliver(ctx, host, task)
		return err
	})
	return told, err
}

// Stop implements scheduler.Hosts.
func (h way) Stop(ctx context.Context, host scheduler.Host, s scheduler.Stop) error {
	return chain{l: h.l}.do(func() error { return h.hosts.Stop(ctx, host, s) })
}

// quiet keeps the store's chatter out of the test's output.
type quiet struct{ t *testing.T }

func (quiet) Infof(string, ...any)             {}
func (q quiet) Errorf(format string, a ...any) { q.t.Logf(format, a...) }
func (q quiet) Fatalf(format string, a ...any) { q.t.Fatalf(format, a...) }
