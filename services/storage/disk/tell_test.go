package disk_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/disk"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

// recorder is an outbox that keeps what is told in the index, in order.
type recorder struct {
	db     *pebble.DB
	prefix []byte
	last   uint64
	refuse error
}

func (r *recorder) open(db *pebble.DB, prefix string, _ func() error) (disk.Outbox, error) {
	r.db, r.prefix = db, []byte(prefix)
	all, err := r.read()
	r.last = uint64(len(all))
	return r, err
}

// Append implements disk.Outbox.
func (r *recorder) Append(b *pebble.Batch, e storage.Event) error {
	if r.refuse != nil {
		return r.refuse
	}
	raw, err := json.Marshal(e)
	if err != nil {
		return err
	}
	r.last++
	return b.Set(binary.BigEndian.AppendUint64(bytes.Clone(r.prefix), r.last), raw, nil)
}

func (r *recorder) read() (all []storage.Event, err error) {
	end := bytes.Clone(r.prefix)
	end[len(end)-1]++
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: r.prefix, UpperBound: end})
	if err != nil {
		return nil, err
	}
	for ok := it.First(); ok; ok = it.Next() {
		var e storage.Event
		if err := json.Unmarshal(it.Value(), &e); err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, it.Close()
}

// told returns what was told since the last call, in words.
func (r *recorder) told(t *testing.T, seen *int) []storage.Event {
	t.Helper()
	all, err := r.read()
	if err != nil {
		t.Fatal(err)
	}
	fresh := all[*seen:]
	*seen = len(all)
	return fresh
}

// checkTold holds that what was told adds up to what is held: each reference that is there was told
// of, and each that was told to end is gone.
func checkTold(t *testing.T, r *recorder, d *disk.Disk) {
	t.Helper()
	type name struct {
		a storage.Account
		b cid.Blinded
	}
	var all, want []name
	held := map[name]bool{}
	events, err := r.read()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		for _, file := range append(e.Files, e.File) {
			n := name{e.Account, file}
			switch {
			case len(e.Files) > 0 && file == e.File: // one of several has no name of its own
			case e.What == storage.RefKept:
				if held[n] {
					t.Error("a reference was told of twice")
				}
				held[n] = true
			case e.What == storage.RefRemoved, e.What == storage.RefExpired:
				if !held[n] {
					t.Error("the end of a reference that was not told of")
				}
				delete(held, n)
			}
		}
	}
	for _, a := range []storage.Account{storagetest.Alice(), storagetest.Bob()} {
		refs, err := d.List(t.Context(), a, cid.CID{}, storage.MaxPage)
		if err != nil {
			t.Fatal(err)
		}
		for _, ref := range refs {
			n := name{a, d.BlindKey(a).Blind(ref.CID)}
			if want = append(want, n); held[n] {
				all = append(all, n)
				delete(held, n)
			}
		}
	}
	if d := cmp.Diff(want, all, cmp.AllowUnexported(name{})); d != "" || len(held) > 0 {
		t.Errorf("%d ended untold; (-held +told)\n%s", len(held), d)
	}
}

// TestWhatIsTold: every change of a reference is told once, what changes nothing is not.
func TestWhatIsTold(t *testing.T) {
	dir, box := t.TempDir(), &recorder{}
	now := time.UnixMilli(1_700_000_000_000)
	cfg := config(dir, storage.DefaultLimits())
	cfg.Outbox, cfg.Now = box.open, func() time.Time { return now }
	d := open(t, cfg)
	alice, bob, data := storagetest.Alice(), storagetest.Bob(), storagetest.Bytes(50_000, 1)
	c := storagetest.CIDOf(cid.File, data)
	put := func(a storage.Account, expires time.Time) func() error {
		return func() error {
			_, err := d.Put(t.Context(), storage.Put{Account: a, Kind: cid.File, Expires: expires},
				bytes.NewReader(data))
			return err
		}
	}
	update := func(change storage.Change) func() error {
		return func() error {
			_, err := d.Update(t.Context(), alice, c, change)
			return err
		}
	}
	yes, no, later, never := true, false, now.Add(time.Hour), time.Time{}
	pinned, unpinned := storage.Change{Pinned: &yes}, storage.Change{Pinned: &no}
	collect := func() error { _, err := d.Collect(t.Context(), false); return err }
	refused := func(do func() error, want error) func() error {
		return func() error {
			if err := do(); !errors.Is(err, want) {
				return errors.Join(errors.New("not refused"), err)
			}
			return nil
		}
	}
	remove := func(a storage.Account) func() error {
		return func() error { return d.Remove(t.Context(), a, c) }
	}
	read := func() error {
		_, err := storagetest.ReadAll(t.Context(), d, alice, c, storage.Range{})
		return err
	}
	of := func(a storage.Account, what storage.What, pinned bool, expires time.Time) storage.Event {
		return storage.Event{Time: now, What: what, Account: a, File: d.BlindKey(a).Blind(c),
			Pinned: pinned, Expires: expires}
	}
	seen := 0
	for _, step := range []struct {
		name string
		do   func() error
		want []storage.Event
	}{
		{"put", put(alice, later), []storage.Event{of(alice, storage.RefKept, false, later)}},
		{"the same again", put(alice, later), nil},
		{"kept longer", put(alice, never), []storage.Event{of(alice, storage.RefChanged, false, never)}},
		{"another account", put(bob, never), []storage.Event{of(bob, storage.RefKept, false, never)}},
		{"pin", update(pinned), []storage.Event{of(alice, storage.RefChanged, true, never)}},
		{"pin again", update(pinned), nil},
		{"a refused removal", refused(remove(alice), storage.ReasonPinned), nil},
		{"unpin", update(unpinned), []storage.Event{of(alice, storage.RefChanged, false, never)}},
		{"remove", remove(bob), []storage.Event{of(bob, storage.RefRemoved, false, never)}},
		{"remove again", refused(remove(bob), storage.ReasonNotFound), nil},
		{"put back", put(bob, never), []storage.Event{of(bob, storage.RefKept, false, never)}},
		{"damage", func() error {
			flip(t, onDisk(t, dir, c, ""), 0)
			return refused(read,
				storage.ReasonDataLoss)()
		}, []storage.Event{of(alice, storage.RefDamaged, false, never),
			of(bob, storage.RefDamaged, false, never)}},
		{"damage found again", refused(read, storage.ReasonDataLoss), nil},
		{"whole again", put(alice, never), []storage.Event{of(alice, storage.RefKept, false, never)}},
		{"an expiry", update(storage.Change{Expires: &later}),
			[]storage.Event{of(alice, storage.RefChanged, false, later)}},
		{"collected too early", collect, nil},
	} {
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		got := box.told(t, &seen)
		if d := cmp.Diff(step.want, got, cmp.Comparer(time.Time.Equal),
			cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s (-want +told)\n%s", step.name, d)
		}
	}
	now = now.Add(2 * time.Hour)
	if err := collect(); err != nil {
		t.Fatal(err)
	}
	want := []storage.Event{of(alice, storage.RefExpired, false, later)}
	if d := cmp.Diff(want, box.told(t, &seen), cmp.Comparer(time.Time.Equal),
		cmpopts.EquateEmpty()); d != "" {
		t.Errorf("expired (-want +told)\n%s", d)
	}
}

// TestUntoldDoesNotHappen: what cannot be told is refused by name and leaves nothing; damage is
// noted all the same, or it could not be mended.
func TestUntoldDoesNotHappen(t *testing.T) {
	dir, box := t.TempDir(), &recorder{}
	cfg := config(dir, storage.DefaultLimits())
	cfg.Outbox = box.open
	d := open(t, cfg)
	alice, data := storagetest.Alice(), storagetest.Bytes(50_000, 1)
	p := storage.Put{Account: alice, Kind: cid.File}
	c := storagetest.MustPut(t, d, p, data).Ref.CID
	box.refuse = storage.Untold(errors.New("full"))
	yes := true
	_, putting := d.Put(t.Context(), p, bytes.NewReader(storagetest.Bytes(20_000, 2)))
	_, pinning := d.Update(t.Context(), alice, c, storage.Change{Pinned: &yes})
	for name, err := range map[string]error{
		"put": putting, "pin": pinning, "remove": d.Remove(t.Context(), alice, c),
	} {
		if !errors.Is(err, storage.ReasonUntold) {
			t.Errorf("%s: %v", name, err)
		}
	}
	checkConsistent(t, d, dir)
	if ref, err := d.Stat(t.Context(), alice, c); err != nil || ref.Pinned {
		t.Errorf("after the refusals: %+v, %v", ref, err)
	}
	flip(t, onDisk(t, dir, c, ""), 0)
	if _, err := storagetest.ReadAll(t.Context(), d, alice, c, storage.Range{}); !errors.Is(err,
		storage.ReasonDataLoss) {
		t.Errorf("damaged bytes: %v", err)
	}
	box.refuse = nil
	storagetest.MustPut(t, d, p, data)
	checkHeld(t, d, alice, c, true)
}

// TestFormatTwoIsUpgraded: an index from before there were events tells of what happens from now
// on, and names stay the same over restarts.
func TestFormatTwoIsUpgraded(t *testing.T) {
	dir, alice := t.TempDir(), storagetest.Alice()
	d := open(t, config(dir, storage.DefaultLimits()))
	data := storagetest.Bytes(100, 1)
	c := storagetest.MustPut(t, d, storage.Put{Account: alice, Kind: cid.File}, data).Ref.CID
	closed(t, d)
	index(t, dir, func(db *pebble.DB) error {
		return errors.Join(db.Set([]byte{'v'}, []byte{2}, pebble.Sync),
			db.Delete([]byte{'s'}, pebble.Sync))
	})
	var names []cid.Blinded
	box := &recorder{}
	for range 2 {
		cfg := config(dir, storage.DefaultLimits())
		cfg.Outbox = box.open
		d = open(t, cfg)
		checkHeld(t, d, alice, c, true)
		names = append(names, d.BlindKey(alice).Blind(c))
		closed(t, d)
	}
	if names[0] != names[1] || names[0] == (cid.BlindKey{}).Of(alice[:]).Blind(c) {
		t.Errorf("names %v", names)
	}
}

// TestAccountsShareWhatIsTold: an account that changes too much is refused by name, with when to
// try again, and nothing happened; others go on, and so does what is nobody's doing.
func TestAccountsShareWhatIsTold(t *testing.T) {
	dir, box, now := t.TempDir(), &recorder{}, time.UnixMilli(1_700_000_000_000)
	cfg := config(dir, storage.DefaultLimits())
	cfg.Outbox, cfg.Now = box.open, func() time.Time { return now }
	cfg.EventRate, cfg.EventBurst = 0.01, 3
	d := open(t, cfg)
	alice, data := storagetest.Alice(), storagetest.Bytes(100, 1)
	p := storage.Put{Account: alice, Kind: cid.File, Expires: now.Add(time.Second)}
	c := storagetest.MustPut(t, d, p, data).Ref.CID
	pin := func(yes bool) error {
		_, err := d.Update(t.Context(), alice, c, storage.Change{Pinned: &yes})
		return err
	}
	if err := errors.Join(pin(true), pin(false), pin(false)); err != nil {
		t.Fatal(err)
	}
	other := storagetest.Bytes(20_000, 2)
	_, putting := d.Put(t.Context(), storage.Put{Account: alice, Kind: cid.File},
		bytes.NewReader(other))
	for name, err := range map[string]error{
		"put": putting, "pin": pin(true), "remove": d.Remove(t.Context(), alice, c),
	} {
		if !errors.Is(err, storage.ReasonEventRate) ||
			fault.KindOf(err) != fault.ResourceExhausted || fault.From(err).Retry() != 100*time.Second {
			t.Errorf("%s: %v", name, err)
		}
		f := fault.From(err)
		for _, says := range []string{"try again in 1m40s", "3 files at once", "0.01 a second",
			"event_rate"} {
			if !strings.Contains(f.Message(), says) {
				t.Errorf("%s does not say %q: %s", name, says, f.Message())
			}
		}
		if f.Value("burst") != "3" || f.Value("per_second") != "0.01" {
			t.Errorf("%s: %v", name, f.Meta())
		}
	}
	checkConsistent(t, d, dir)
	if err := pin(false); err != nil {
		t.Errorf("what changes nothing: %v", err)
	}
	storagetest.MustPut(t, d, storage.Put{Account: storagetest.Bob(), Kind: cid.File}, data)
	now = now.Add(2 * time.Second)
	if got, err := d.Collect(t.Context(), false); err != nil || got.References != 1 {
		t.Errorf("expiry: %+v, %v", got, err)
	}
	if told, err := box.read(); err != nil || len(told) != 5 ||
		told[4].What != storage.RefExpired {
		t.Errorf("told %+v, %v", told, err)
	}
	now = now.Add(100 * time.Second)
	storagetest.MustPut(t, d, storage.Put{Account: alice, Kind: cid.File}, other)
}
