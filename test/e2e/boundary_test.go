package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	db "github.com/cockroachdb/pebble/v2"
	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/kit/event"
	store "github.com/united-containers/ucn/kit/event/pebble"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/journal"
)

// strikes are the kills of TestKilledAtWrites: at the nth write, or a moment after it, when it is
// being synced, or answered.
var strikes = []struct { // read only
	write int
	later time.Duration
}{{1, 0}, {1, 2 * time.Millisecond}, {2, 0}, {2, 2 * time.Millisecond}, {3, 0}, {4, 0}, {6, 0}}

// TestKilledAtWrites: while its operator evicts an attempt and sets a policy, a host is killed with
// -9 at the first, second ... write of its journal since. What lies on its disk then is the old or
// the new, with the event that tells of it, and the new if the command said so. The program runs on
// meanwhile, and goes when it was last told to.
func TestKilledAtWrites(t *testing.T) {
	t.Parallel()
	s := processes(t)
	u := s.user(t)
	u.operators()
	out := u.must("job", "run", string(s.image.ID), "--json", "--detach", "--cpu", "0.1",
		"--memory", "32MiB", "--disk", "16MiB", "--", "sleep", "10m")
	h := &struckHost{u: u, job: events(t, out)[0].Job, began: time.Now()}
	h.attempt = u.shown(h.job, func(list []shownAttempt) bool {
		return len(list) == 1 && list[0].State == "running"
	})[0]
	h.operator = u.operatorOf(h.attempt.Host)
	before := s.containers(t, h.attempt.Host)
	for round := range strikes {
		h.strike(round)
	}
	if after := s.containers(t, h.attempt.Host); len(before) != 1 || fmt.Sprint(before) !=
		fmt.Sprint(after) {
		t.Errorf("containers %q before the kills, %q after", before, after)
	}
	h.goes()
	u.must("job", "cancel", h.job)
	supplyIsConserved(t, s)
}

// struckHost is a host that is killed, the attempt it runs, and what its operator was told.
type struckHost struct {
	u        *user
	job      string
	attempt  shownAttempt
	operator string
	began    time.Time
	version  uint64 // of the policy
	evictAt  uint64 // ms
}

// longest is the policy of a version.
func longest(version uint64) time.Duration { return time.Duration(version) * time.Hour }

// strike gives both commands, kills the host at a write, and looks at what lies there.
func (h *struckHost) strike(round int) {
	t, at := h.u.t, strikes[round]
	t.Helper()
	host := h.u.scene.Services[h.attempt.Host]
	dir := filepath.Join(h.u.scene.Dir, "data", h.attempt.Host, "journal")
	wrote := writes(t, dir)
	notice := 10*time.Minute - time.Since(h.began) - time.Duration(round)*20*time.Second
	orders := [][]string{
		{"evict", h.attempt.Host, h.attempt.Attempt, "--notice", notice.String(), "--reason", "disks"},
		{"policy", "set", h.attempt.Host, "--max-run-time", longest(h.version + 1).String()},
	}
	first := round % 2 // so that each is the one that is written first
	commands := [2]*hostCommand{}
	commands[first] = h.command(orders[first]...)
	commands[1-first] = h.command(orders[1-first]...)
	evict, set := commands[0], commands[1]
	for range at.write {
		select {
		case <-wrote:
		case <-h.u.ctx.Done():
			t.Fatal("the journal is not written")
		}
	}
	timer := time.NewTimer(at.later)
	<-timer.C
	if err := host.Kill(); err != nil {
		t.Fatal(err)
	}
	version, evictAt := h.lies(dir)
	what := fmt.Sprintf("%+v: policy %d, on disk %d; end at %d, on disk %d", at, h.version, version,
		h.evictAt, evictAt)
	told, isSet := set.told(t)
	if isSet && told.Version != version || version < h.version ||
		version > h.version+1 {
		t.Errorf("%s; told %v, %+v", what, isSet, told)
	}
	told, isEvicted := evict.told(t)
	if isEvicted && told.EvictAt != evictAt || evictAt != h.evictAt &&
		(evictAt > h.evictAt && h.evictAt != 0 || evictAt == 0) {
		t.Errorf("%s; told %v, %+v", what, isEvicted, told)
	}
	t.Logf("%s; acknowledged were the policy %v, the end %v", what, isSet, isEvicted)
	if err := host.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.version, h.evictAt = h.shown(set, evict)
	if h.version < version || h.version > version+1 || h.evictAt > evictAt && evictAt != 0 ||
		h.evictAt == 0 && evictAt != 0 {
		t.Errorf("%s; the next life has %d and %d", what, h.version, h.evictAt)
	}
}

// shown is what the next life of the host says, once no command of the one before is on its way.
func (h *struckHost) shown(commands ...*hostCommand) (version, evictAt uint64) {
	h.u.t.Helper()
	for _, c := range commands {
		c.stop(h.u.t)
	}
	policy := parsed[struct {
		Set struct {
			Version uint64
			Longest uint64 `json:"max_run_time_ms"`
		} `json:"set_by_command"`
	}](h.u.t, h.u.must("host", "policy", h.attempt.Host, "--wallet", h.operator, "--json")).Set
	if got := time.Duration(policy.Longest) * time.Millisecond; got != longest(policy.Version) {
		h.u.t.Errorf("version %d is %v", policy.Version, got)
	}
	top := h.u.top(h.job, func(topLine) bool { return true })
	return policy.Version, top.Evict
}

// hostCommand is a command about a host that runs.
type hostCommand struct {
	cmd   *exec.Cmd
	out   strings.Builder
	ended chan error // with what it ended, once
	err   error
	done  bool
}

// command begins one.
func (h *struckHost) command(args ...string) *hostCommand {
	h.u.t.Helper()
	c := &hostCommand{ended: make(chan error, 1)}
	c.cmd = h.u.ucn(append(append([]string{"host"}, args...), "--wallet", h.operator, "--json")...)
	c.cmd.Stdout = &c.out
	if err := c.cmd.Start(); err != nil {
		h.u.t.Fatal(err)
	}
	go func() { c.ended <- c.cmd.Wait() }() // ends with the process
	return c
}

// hostAnswer is what either command prints.
type hostAnswer struct {
	Version uint64
	EvictAt uint64 `json:"evict_at_ms"`
}

// told is what the command had been told when the host was killed: an answer that was on its way is
// waited for.
func (c *hostCommand) told(t *testing.T) (answer hostAnswer, ok bool) {
	t.Helper()
	c.wait(onItsWay)
	if !c.done || c.err != nil {
		return answer, false
	}
	return parsed[hostAnswer](t, c.out.String()), true
}

// onItsWay is how long an answer of a life that ended is waited for.
const onItsWay = 300 * time.Millisecond

func (c *hostCommand) wait(most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	if c.done {
		return
	}
	select {
	case c.err = <-c.ended:
		c.done = true
	case <-timer.C:
	}
}

// stop ends the command, be it that it waits for an answer that will not come.
func (c *hostCommand) stop(t *testing.T) {
	t.Helper()
	if c.done {
		return
	}
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	c.err, c.done = <-c.ended, true
}

// writes tells of each write to a log of a store from now on.
func writes(t *testing.T, dir string) <-chan struct{} {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY); err != nil {
		t.Fatal(err, f.Close())
	}
	const most = 64 // writes of a round that are counted
	out, done := make(chan struct{}, most), make(chan struct{})
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	go func() { // ends when f is closed
		defer close(done)
		buffer := make([]byte, 4096)
		for {
			n, err := f.Read(buffer)
			if err != nil {
				return
			}
			for range strings.Count(string(buffer[:n]), ".log\x00") {
				select {
				case out <- struct{}{}:
				default:
				}
			}
		}
	}()
	return out
}

// lies opens a copy of the dead host's journal: a policy and an eviction lie there with the events
// that tell of them, or not at all.
func (h *struckHost) lies(dir string) (version, evictAt uint64) {
	t := h.u.t
	t.Helper()
	at := t.TempDir()
	if err := os.CopyFS(at, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	var outbox *store.Outbox
	j, err := journal.Open(at, journal.Options{}, func(d *db.DB) (_ journal.Outbox, err error) {
		outbox, err = store.NewOutbox(d, "out/")
		return outbox, err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}()
	state, err := j.Host(t.Context())
	record, badRecord := j.Get(t.Context(), executor.AttemptID(h.attempt.Attempt))
	if err := errors.Join(err, badRecord); err != nil {
		t.Fatal(err)
	}
	if state.Set != nil {
		version = state.Set.Version
		if state.Set.Policy.MaxRunTime != longest(version) {
			t.Errorf("version %d lies as %+v", version, state.Set.Policy)
		}
	}
	if record.Evict != nil {
		evictAt = uint64(record.Evict.At.UnixMilli())
	}
	told, toldAt := said(t, outbox)
	for i, v := range told {
		if v != uint64(i+1) {
			t.Errorf("events tell of versions %v", told)
		}
	}
	if uint64(len(told)) != version || toldAt != evictAt {
		t.Errorf("version %d and the end at %d lie there, events tell of %v and %d", version, evictAt,
			told, toldAt)
	}
	return version, evictAt
}

// said is what an outbox tells, signed or not yet: the policy's versions, and the newest end of an
// attempt.
func said(t *testing.T, outbox *store.Outbox) (versions []uint64, evictAt uint64) {
	t.Helper()
	read := func(kind string, payload []byte) {
		switch kind {
		case executor.TypePolicyChanged:
			m := &executorv1.PolicyChanged{}
			if err := canon.Unmarshal(payload, m); err != nil {
				t.Fatal(err)
			}
			versions = append(versions, m.GetVersion())
		case executor.TypeAttemptChanged:
			m := &jobv1.AttemptStatus{}
			if err := canon.Unmarshal(payload, m); err != nil {
				t.Fatal(err)
			}
			evictAt = m.GetEvictAt()
		}
	}
	pending, err := outbox.Pending(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range []event.Topic{event.TopicOperator, event.TopicJob} {
		_, newest, err := outbox.Range(t.Context(), topic, pending.Heads[topic].Epoch)
		kept, badKept := outbox.Kept(t.Context(), topic, event.Head{Epoch: newest.Epoch})
		if err := errors.Join(err, badKept); err != nil {
			t.Fatal(err)
		}
		for _, raw := range kept {
			e, err := event.Decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			read(e.Type(), e.Body.GetPayload())
		}
	}
	for _, d := range pending.Drafts {
		read(d.Event.Type, d.Event.Payload)
	}
	return versions, evictAt
}

// goes: the host is killed once more after it has said that the attempt is to go, and before; the
// attempt ends then, as evicted, and goes on elsewhere.
func (h *struckHost) goes() {
	t := h.u.t
	t.Helper()
	out := h.u.must("host", "evict", h.attempt.Host, h.attempt.Attempt, "--wallet", h.operator,
		"--notice", "12s", "--reason", "at last", "--json")
	at := parsed[topLine](t, out).Evict
	restart(t, h.u.scene, h.attempt.Host)
	list := h.u.shown(h.job, func(list []shownAttempt) bool {
		return len(list) > 1 && list[0].State == "ended" && list[1].State == "running"
	})
	if gone := list[0]; gone.Ended < at || !strings.Contains(gone.Reason, "at last") {
		t.Errorf("told to go at %d, the first attempt is %+v", at, gone)
	}
	lease := parsed[paidLease](t, h.u.must("chain", "lease", list[0].Lease, "--json"))
	if lease.End != 0 && lease.End < at {
		t.Errorf("its lease ended at %d, before %d", lease.End, at)
	}
}
