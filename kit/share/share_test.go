package share_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/united-containers/ucn/kit/share"
)

// seat is a place, and how often it was told to leave.
type seat struct {
	*share.Place
	told int
}

func sit(p *share.Places, who string) (*seat, error) {
	s := &seat{}
	var err error
	s.Place, err = p.Take(who, func() { s.told++ })
	return s, err
}

func take(t *testing.T, p *share.Places, who string, n int) []*seat {
	t.Helper()
	var out []*seat
	for range n {
		one, err := sit(p, who)
		if err != nil {
			t.Fatalf("place %d of %s: %v", len(out)+1, who, err)
		}
		out = append(out, one)
	}
	return out
}

func told(places []*seat) (n int) {
	for _, p := range places {
		n += p.told
	}
	return n
}

// TestNewcomersFindRoom: two clients have taken all; whoever comes gets in until all have the same,
// or what they keep.
func TestNewcomersFindRoom(t *testing.T) {
	p := share.New(share.Bounds{Most: 20, Each: 10, Keep: 4})
	a, b := take(t, p, "a", 10), take(t, p, "b", 10)
	if _, err := sit(p, "a"); !errors.Is(err, share.ErrEach) {
		t.Errorf("beyond what one may have: %v", err)
	}
	c := take(t, p, "c", 3)
	if told(a[:8])+told(b[:8]) != 0 || told(a)+told(b) != 3 {
		t.Errorf("%d and %d were told to leave, want the 3 newest", told(a), told(b))
	}
	for _, one := range append(a[8:], b[8:]...) {
		if one.told > 0 {
			one.Give()
			one.Give()
		}
	}
	c = append(c, take(t, p, "c", 3)...)
	if _, err := sit(p, "c"); !errors.Is(err, share.ErrFull) {
		t.Errorf("a seventh where others have seven: %v", err)
	}
	if told(c) != 0 || told(a)+told(b) != 6 {
		t.Errorf("%d, %d, %d were told to leave", told(a), told(b), told(c))
	}
	for _, one := range append(append(a, b...), c...) {
		one.Give()
	}
	if p.Taken() != 0 {
		t.Errorf("%d are taken, all were given back", p.Taken())
	}
}

func TestNobodyIsLeftWithLessThanTheFloor(t *testing.T) {
	p := share.New(share.Bounds{Most: 12, Each: 6, Keep: 4})
	var all []*seat
	for n := range 3 {
		all = append(all, take(t, p, fmt.Sprint(n), 4)...)
	}
	if _, err := sit(p, "late"); !errors.Is(err, share.ErrFull) || told(all) != 0 {
		t.Errorf("%v; %d were told to leave", err, told(all))
	}
}

// TestTheToldDoNotPileUp: those who do not leave are bounded, too.
func TestTheToldDoNotPileUp(t *testing.T) {
	p := share.New(share.Bounds{Most: 16, Each: 16, Keep: 1})
	a := take(t, p, "a", 16)
	for n := 0; ; n++ {
		if _, err := sit(p, fmt.Sprint("late ", n)); errors.Is(err, share.ErrFull) {
			break
		}
	}
	if told(a) != 3 || p.Taken() != 16+3 {
		t.Errorf("%d were told to leave, %d are taken", told(a), p.Taken())
	}
	if _, err := sit(p, "a"); !errors.Is(err, share.ErrEach) {
		t.Errorf("who does not leave gets more: %v", err)
	}
}

// TestPlaces plays random comings and goings.
func TestPlaces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := share.Bounds{Most: rapid.IntRange(1, 20).Draw(t, "most")}
		b.Each = rapid.IntRange(1, b.Most).Draw(t, "each")
		b.Keep = rapid.IntRange(0, b.Each).Draw(t, "keep")
		p := share.New(b)
		var held []*seat
		var whose []string
		count := map[string]int{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			who := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "who")
			one, err := sit(p, who)
			switch {
			case err == nil:
				held, whose = append(held, one), append(whose, who)
				count[who]++
			case errors.Is(err, share.ErrEach) != (count[who] == b.Each):
				t.Fatalf("%s has %d: %v", who, count[who], err)
			}
			drop := func(i int) {
				held[i].Give()
				count[whose[i]]--
				held, whose = slices.Delete(held, i, i+1), slices.Delete(whose, i, i+1)
			}
			if i := slices.IndexFunc(held, func(s *seat) bool { return s.told > 0 }); i >= 0 {
				if has := count[whose[i]]; has <= b.Keep || has <= count[who] {
					t.Fatalf("%s has %d and gave way to %s with %d", whose[i], has, who, count[who])
				}
				drop(i)
			}
			if len(held) > 0 && rapid.IntRange(0, 3).Draw(t, "somebody leaves") == 0 {
				drop(rapid.IntRange(0, len(held)-1).Draw(t, "who leaves"))
			}
			if len(held) > b.Most || p.Taken() != len(held) {
				t.Fatalf("%d of %d are held, %d taken", len(held), b.Most, p.Taken())
			}
		}
	})
}

// TestNetworksCountAsOne: a network of many clients with a place each gives way, where it has most,
// and its clients find room in it only as among themselves.
func TestNetworksCountAsOne(t *testing.T) {
	p := share.New(share.Bounds{Most: 16, Each: 4, Keep: 1})
	in := func(net, who string) (*seat, error) {
		s := &seat{}
		var err error
		s.Place, err = p.TakeIn(net, who, func() { s.told++ })
		return s, err
	}
	var many []*seat
	enter := func(net, who string) *seat {
		t.Helper()
		one, err := in(net, who)
		if err != nil {
			t.Fatalf("%s of %s: %v", who, net, err)
		}
		for _, m := range many {
			if m.told > 0 {
				m.Give()
			}
		}
		return one
	}
	for i := range 12 {
		many = append(many, enter("many", fmt.Sprint("m", i)))
	}
	many = append(many, enter("many", "m0"), enter("many", "m0")) // it has three, the others one
	few := []*seat{enter("few", "f0"), enter("few", "f0")}
	few = append(few, enter("other", "o"), enter("few", "f1"))
	if told(many) != 2 || many[12].told+many[13].told != 2 {
		t.Errorf("%d were told to leave, want the two newest of who had most", told(many))
	}
	if _, err := in("many", "m12"); !errors.Is(err, share.ErrFull) {
		t.Errorf("one more of a network whose clients have one each: %v", err)
	}
	for i := range 4 {
		few = append(few, enter("few", fmt.Sprint("f", 2+i)))
	}
	if _, err := in("few", "f9"); !errors.Is(err, share.ErrFull) || told(few) != 0 {
		t.Errorf("beyond what the largest network has: %v, %d were told", err, told(few))
	}
	for i := range 3 { // every network finds room where others have two more
		enter(fmt.Sprint("new", i), fmt.Sprint("n", i))
	}
}
