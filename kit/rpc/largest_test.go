package rpc

import (
	"net"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// hoard is answers of which connections have all, each of an address of its own, with the same.
func hoard(t *testing.T, connections, each int) (*answers, []*tracked) {
	t.Helper()
	const size = 64 << 10
	cfg := DefaultServer()
	cfg.AnswerTime = time.Hour
	a := newAnswers(cfg)
	var all []*tracked
	for i := range connections {
		end, other := net.Pipe()
		t.Cleanup(func() { _ = other.Close() })
		conn := &tracked{Conn: end, answers: a, addr: &net.TCPAddr{Port: i},
			who: strconv.Itoa(i), holds: map[*held]struct{}{}}
		a.open[conn.addr] = conn
		all = append(all, conn)
		for range each {
			a.under.Add(conn.who, size)
			h := &held{all: a, who: conn.who, n: size, conn: conn, own: true, began: time.Now()}
			conn.hold(h)
		}
	}
	a.under.Add("the rest", a.under.Free())
	return a, all
}

// TestLookedForSeldom: however many find no room, all that is held is gone through only so often.
func TestLookedForSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, all := hoard(t, 2*maxLargest, 2)
		late := &held{all: a, who: "late", n: smallAnswer, own: true}
		time.Sleep(giveWayTime) // of the bubble: not long enough yet
		if a.take(late) {
			t.Fatal("an answer for which there is no room")
		}
		time.Sleep(lookAgain - time.Nanosecond)
		for range 1000 {
			if a.take(late) {
				t.Fatal("it was looked for again at once")
			}
		}
		time.Sleep(time.Nanosecond)
		if !a.take(late) {
			t.Fatal("nobody gives way who held answers for long")
		}
		if n := len(a.open); n != len(all)-1 {
			t.Errorf("%d connections ended for one answer", len(all)-n)
		}
		if n := len(a.largest); n != maxLargest {
			t.Errorf("%d connections may end until it is looked again", n)
		}
	})
}

// TestOldestAnswer: a connection is left alone once its oldest answer is taken, also when it was
// found to be the largest before.
func TestOldestAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, all := hoard(t, 1, 1)
		conn := all[0]
		time.Sleep(giveWayTime)
		oldest := conn.own.Front().Value.(*held)
		second := &held{all: a, who: conn.who, n: 4 * smallAnswer, conn: conn, own: true,
			began: time.Now()}
		a.under.Add(conn.who, second.n)
		a.under.Add("the rest", -second.n)
		conn.hold(second)
		time.Sleep(time.Nanosecond)
		if a.take(&held{all: a, who: "huge", n: 4 * smallAnswer, own: true}) {
			t.Fatal("there is no room, and what is little more is no reason to end a connection")
		}
		oldest.give()
		a.under.Add("the rest", smallAnswer) // what was given back is taken
		late := &held{all: a, who: "late", n: smallAnswer, own: true}
		if a.take(late) {
			t.Fatal("a client that reads had to give way")
		}
		time.Sleep(giveWayTime)
		if !a.take(late) || !conn.closed {
			t.Fatal("one that does not read any more had not")
		}
	})
}

// TestReservedCounts: of a connection counts what an answer has, not what was reserved for it.
func TestReservedCounts(t *testing.T) {
	a, all := hoard(t, 1, 1)
	ctx, end := a.withReserve(t.Context(), false)
	defer end()
	h := all[0].own.Front().Value.(*held)
	ctx.Value(reserveKey{}).(*reserve).next = h
	h.of = ctx.Value(reserveKey{}).(*reserve)
	if a.reserved(ctx, 2*h.n) != h || all[0].bytes != h.n {
		t.Errorf("%d bytes for an answer of %d", all[0].bytes, h.n)
	}
	if h.give(); all[0].bytes != 0 {
		t.Errorf("%d bytes are left of nothing", all[0].bytes)
	}
}
