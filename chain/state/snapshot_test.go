package state_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
)

// busyMarket has every kind of leaf.
func busyMarket(t *testing.T) (*market, []byte) {
	t.Helper()
	m := newMarket(t, func(o *tx.OpenEscrow) { o.BurnRate = 1000 })
	id := m.placed(func(l *tx.Lease) { l.Holdback = 10 })
	m.block(minute)
	m.must(agent(), m.note(id, m.now(), 500))
	var b bytes.Buffer
	n, err := m.s.Freeze().WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("WriteTo = %d, %v; wrote %d", n, err, b.Len())
	}
	return m, b.Bytes()
}

func TestSnapshot(t *testing.T) {
	m, raw := busyMarket(t)
	g := genesis(owner(), assigner(), host(), agent(), proposer(), acker(), other())
	s, err := state.Restore(bytes.NewReader(raw), g)
	if err != nil {
		t.Fatal(err)
	}
	if s.Root() != m.s.Root() || s.Head() != m.s.Head() || s.Accruing() != m.s.Accruing() {
		t.Errorf("restored %v %+v, want %v %+v", s.Root(), s.Head(), m.s.Root(), m.s.Head())
	}
	// Both go on alike.
	again := &market{&world{t: t, s: s, anchor: m.anchor, ctx: m.ctx}, m.escrow}
	for _, w := range []*market{m, again} {
		w.must(owner(), &tx.Withdraw{Escrow: w.escrow, Amount: 100})
		w.must(assigner(), w.place(w.lease(func(l *tx.Lease) { l.Epoch = 2 })))
	}
	if again.s.Root() != m.s.Root() {
		t.Errorf("after the restart root %v, want %v", again.s.Root(), m.s.Root())
	}
	var b bytes.Buffer
	if _, err := m.s.Freeze().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(b.Bytes(), raw) {
		t.Error("a later snapshot is the same")
	}
}

// TestSnapshotIsOneOf: two snapshots of one state are the same bytes.
func TestSnapshotIsOneOf(t *testing.T) {
	m, raw := busyMarket(t)
	for range 3 {
		var b bytes.Buffer
		if _, err := m.s.Freeze().WriteTo(&b); err != nil || !bytes.Equal(b.Bytes(), raw) {
			t.Fatalf("second snapshot differs (%v)", err)
		}
	}
}

func TestSnapshotRefused(t *testing.T) {
	_, raw := busyMarket(t)
	g := genesis(owner(), assigner(), host(), agent(), proposer(), acker(), other())
	for i := 0; i < len(raw); i += 7 {
		forged := bytes.Clone(raw)
		forged[i] ^= 0x40
		if _, err := state.Restore(bytes.NewReader(forged), g); !errors.Is(err, state.ErrSnapshot) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if _, err := state.Restore(bytes.NewReader(raw[:i]), g); !errors.Is(err, state.ErrSnapshot) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	g.Nonce[0]++
	if _, err := state.Restore(bytes.NewReader(raw), g); !errors.Is(err, state.ErrSnapshot) {
		t.Errorf("another chain's: %v", err)
	}
}

type brokenWriter struct{ left int }

var errDisk = errors.New("disk full")

func (w *brokenWriter) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, errDisk
	}
	return len(b), nil
}

func TestSnapshotWriteFails(t *testing.T) {
	m, raw := busyMarket(t)
	for _, room := range []int{0, len(raw) - 32, len(raw) - 1} {
		if _, err := m.s.Freeze().WriteTo(&brokenWriter{room}); !errors.Is(err, errDisk) {
			t.Errorf("room for %d bytes: %v", room, err)
		}
	}
}
