package dir_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/dir"
	"github.com/united-containers/ucn/kit/fault"
)

func file(name string, n byte) dir.Entry {
	return dir.Entry{Name: name, CID: cid.OfFile([32]byte{n}), Size: int64(n), Mode: 0o644}
}

func TestRoundTrip(t *testing.T) {
	entries := []dir.Entry{file("a", 1), file("b.txt", 2),
		{Name: "sub", CID: cid.OfDirectory([32]byte{3}), Size: 9, Mode: 0o755}}
	raw, c, err := dir.Encode(entries)
	if err != nil || c.Kind() != cid.Directory {
		t.Fatal(c, err)
	}
	if again, err := cid.Parse(c.String()); err != nil || again != c {
		t.Errorf("CID %s parses to %s, %v", c, again, err)
	}
	got, err := dir.Decode(raw)
	if err != nil || !cmp.Equal(got, entries, cmp.AllowUnexported(cid.CID{})) {
		t.Errorf("got %v, %v", got, err)
	}
	if dir.Total(got) != 12 {
		t.Errorf("total %d", dir.Total(got))
	}
}

func TestEncodeRefuses(t *testing.T) {
	many := make([]dir.Entry, dir.MaxEntries+1)
	for i := range many {
		many[i] = file(strings.Repeat("x", i%200+1), 1)
	}
	for name, entries := range map[string][]dir.Entry{
		"unsorted": {file("b", 1), file("a", 1)}, "twice": {file("a", 1), file("a", 1)},
		"dots": {file("..", 1)}, "dot": {file(".", 1)}, "empty": {file("", 1)},
		"slash": {file("a/b", 1)}, "control": {file("a\x00", 1)}, "newline": {file("a\n", 1)},
		"long": {file(strings.Repeat("a", 256), 1)}, "no UTF-8": {file("\xff", 1)},
		"image": {{Name: "a", CID: cid.OfOCI([32]byte{1})}}, "nothing": {{Name: "a"}},
		"mode": {{Name: "a", CID: cid.OfFile([32]byte{}), Mode: 0o4755}},
		"size": {{Name: "a", CID: cid.OfFile([32]byte{}), Size: 1<<63 - 1}, file("b", 1)},
		"many": many,
	} {
		if _, _, err := dir.Encode(entries); fault.ReasonOf(err) != dir.ReasonBad {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDecodeDoesNotExplode: many empty entries are refused before each of them is made.
func TestDecodeDoesNotExplode(t *testing.T) {
	bomb := bytes.Repeat([]byte{10, 0}, dir.MaxBytes/2)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := dir.Decode(bomb); fault.ReasonOf(err) != dir.ReasonBad {
		t.Errorf("error %v", err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("refusing it took %d bytes", grown)
	}
}

func TestWalk(t *testing.T) {
	inner := []dir.Entry{file("x", 7)}
	_, c, err := dir.Encode(inner)
	if err != nil {
		t.Fatal(err)
	}
	outer := []dir.Entry{file("a", 1), {Name: "sub", CID: c, Size: 7, Mode: 0o755}}
	_, root, err := dir.Encode(outer)
	if err != nil {
		t.Fatal(err)
	}
	load := func(_ context.Context, at cid.CID) ([]dir.Entry, error) {
		return map[cid.CID][]dir.Entry{root: outer, c: inner}[at], nil
	}
	for path, want := range map[string]any{
		"": root, "a": cid.OfFile([32]byte{1}), "sub": c, "sub/x": cid.OfFile([32]byte{7}),
		"b": dir.ReasonNoPath, "a/x": dir.ReasonNoPath, "sub/y": dir.ReasonNoPath,
		"/a": dir.ReasonPath, "../a": dir.ReasonPath, "sub/../a": dir.ReasonPath,
		"a/": dir.ReasonPath, "./a": dir.ReasonPath, "sub//x": dir.ReasonPath,
		strings.Repeat("a/", 64) + "a": dir.ReasonPath, strings.Repeat("a", 5000): dir.ReasonPath,
	} {
		got, err := dir.Walk(t.Context(), root, path, load)
		if reason, refused := want.(fault.Reason); refused {
			if !errors.Is(err, reason) {
				t.Errorf("%.40q: %v, want %s", path, err, reason)
			}
		} else if err != nil || got.CID != want {
			t.Errorf("%q: %v, %v", path, got, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	raw, _, err := dir.Encode([]dir.Entry{file("a", 1), file("b", 2)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		entries, err := dir.Decode(raw)
		if err != nil {
			return
		}
		if again, _, err := dir.Encode(entries); err != nil || !bytes.Equal(again, raw) {
			t.Errorf("%x encodes again as %x, %v", raw, again, err)
		}
	})
}
