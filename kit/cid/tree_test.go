package cid_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"testing"

	"lukechampine.com/blake3"
	"lukechampine.com/blake3/bao"

	"github.com/united-containers/ucn/kit/cid"
)

const libraryGroup = 4

// sizes straddle the borders of chunks, groups and powers of two, and the 1,024 groups that are
// folded at once.
var sizes = []int{0, 1, 1023, 1024, 1025, 16383, 16384, 16385, 32768, 32769, 49152, 65536, 100_000,
	1 << 20, 1<<20 + 1, 16 << 20, 16<<20 + 1, 40<<20 + 12345}

func randomBytes(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// writerAt is a buffer that grows as it is written.
type writerAt struct{ b []byte }

func (w *writerAt) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(w.b) {
		w.b = append(w.b, make([]byte, need-len(w.b))...)
	}
	return copy(w.b[off:], p), nil
}

func hashInPieces(t *testing.T, data []byte, piece int) ([32]byte, []byte) {
	t.Helper()
	var h cid.Hasher
	for rest := data; len(rest) > 0; {
		n := min(piece, len(rest))
		if _, err := h.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	var out writerAt
	root, err := h.Finish(&out)
	if err != nil {
		t.Fatal(err)
	}
	return root, out.b
}

func TestTreeHasherAgreesWithTheLibrary(t *testing.T) {
	for _, size := range sizes {
		data := randomBytes(size)
		wantOutboard, wantRoot := bao.EncodeBuf(data, libraryGroup, true)
		for _, piece := range []int{7777, 16384, 262144, 1 << 30} {
			root, outboard := hashInPieces(t, data, piece)
			if root != wantRoot || root != blake3.Sum256(data) {
				t.Errorf("size %d piece %d: root differs", size, piece)
			}
			if !bytes.Equal(outboard, wantOutboard) {
				t.Errorf("size %d piece %d: outboard differs", size, piece)
			}
			if int64(len(outboard)) != cid.OutboardSize(int64(size)) {
				t.Errorf("size %d: outboard is %d bytes", size, len(outboard))
			}
		}
	}
}

func part(offset, length int64, size int) cid.Part {
	return cid.Part{Offset: offset, Length: length, Size: int64(size)}
}

func ranges(size int) [][2]int64 {
	s := int64(size)
	all := [][2]int64{{0, s}, {0, min(s, 1)}, {s / 2, s - s/2}, {s / 3, min(s-s/3, 5000)}, {s, 0}}
	if s > 16384 {
		all = append(all, [2]int64{16384, 1}, [2]int64{16383, 2}, [2]int64{s - 1, 1})
	}
	return all
}

func TestTreeCopiesRangesAndSlices(t *testing.T) {
	for _, size := range sizes {
		data := randomBytes(size)
		root, outboard := hashInPieces(t, data, 1<<20)
		tree := cid.Tree{Data: bytes.NewReader(data), Outboard: bytes.NewReader(outboard),
			Size: int64(size), Root: root}
		for _, r := range ranges(size) {
			want := data[r[0] : r[0]+r[1]]
			var plain, slice, decoded bytes.Buffer
			if err := tree.Copy(t.Context(), &plain, r[0], r[1]); err != nil {
				t.Fatalf("size %d range %v: %v", size, r, err)
			}
			if err := tree.CopySlice(t.Context(), &slice, r[0], r[1]); err != nil {
				t.Fatalf("size %d slice %v: %v", size, r, err)
			}
			err := cid.DecodeSlice(&decoded, &slice, cid.OfFile(root), part(r[0], r[1], size))
			if err != nil {
				t.Fatalf("size %d decode %v: %v", size, r, err)
			}
			if !bytes.Equal(plain.Bytes(), want) || !bytes.Equal(decoded.Bytes(), want) {
				t.Errorf("size %d range %v: other bytes", size, r)
			}
		}
	}
}

func TestTreeFindsEveryFlippedBit(t *testing.T) {
	const size = 5*16384 + 17
	data := randomBytes(size)
	root, outboard := hashInPieces(t, data, size)
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 1 << (at % 8)
		return b
	}
	check := func(name string, data, outboard []byte) {
		var out bytes.Buffer
		tree := cid.Tree{Data: bytes.NewReader(data), Outboard: bytes.NewReader(outboard),
			Size: size, Root: root}
		if err := tree.Copy(t.Context(), &out, 0, size); err == nil {
			t.Errorf("%s: not noticed", name)
		}
		if !bytes.Equal(out.Bytes(), randomBytes(size)[:out.Len()]) {
			t.Errorf("%s: wrong bytes were written", name)
		}
	}
	for at := 0; at < size; at += 997 {
		check(fmt.Sprintf("data bit at %d", at), flip(data, at), outboard)
	}
	for at := 8; at < len(outboard); at++ {
		check(fmt.Sprintf("node bit at %d", at), data, flip(outboard, at))
	}
	check("short data", data[:size-1], outboard)
	check("short outboard", data, outboard[:len(outboard)-1])
}

func TestDecodeSliceRefusesALyingPeer(t *testing.T) {
	data := randomBytes(100_000)
	root, outboard := hashInPieces(t, data, 1<<20)
	tree := cid.Tree{Data: bytes.NewReader(data), Outboard: bytes.NewReader(outboard),
		Size: int64(len(data)), Root: root}
	var slice bytes.Buffer
	if err := tree.CopySlice(t.Context(), &slice, 20_000, 30_000); err != nil {
		t.Fatal(err)
	}
	lie := bytes.Clone(slice.Bytes())
	lie[len(lie)-1] ^= 1
	err := cid.DecodeSlice(io.Discard, bytes.NewReader(lie), cid.OfFile(root),
		part(20_000, 30_000, len(data)))
	if !errors.Is(err, cid.ReasonMismatch) {
		t.Errorf("flipped bit: %v", err)
	}
	err = cid.DecodeSlice(io.Discard, bytes.NewReader(slice.Bytes()[:500]),
		cid.OfFile(root), part(20_000, 30_000, len(data)))
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut short: %v", err)
	}
	err = cid.DecodeSlice(io.Discard, bytes.NewReader(slice.Bytes()), cid.OfOCI(root),
		part(0, 1, len(data)))
	if !errors.Is(err, cid.ReasonSlice) {
		t.Errorf("OCI blob: %v", err)
	}
}

// TestSlicesProveTheSize: a file's end is where its CID says, whatever a peer says.
func TestSlicesProveTheSize(t *testing.T) {
	const size = 3 * cid.GroupSize
	data := randomBytes(size)
	c, tree := hashed(t, data)
	whole := behind(t, tree, 0)
	for _, says := range []int64{0, 10, cid.GroupSize, 2*cid.GroupSize + 100, size - 1, size + 1,
		4 * cid.GroupSize, 5 * cid.GroupSize, 1 << 62} {
		lie := binary.LittleEndian.AppendUint64(nil, uint64(says))
		lie = append(lie, whole[len(lie):]...)
		var got bytes.Buffer
		all := cid.Part{Length: says, Size: says}
		err := cid.DecodeSlice(&got, bytes.NewReader(lie), c, all)
		if err == nil || !bytes.HasPrefix(data, got.Bytes()) {
			t.Errorf("%d bytes for %d: %d bytes, %v", says, size, got.Len(), err)
		}
		for name, one := range map[string]cid.Part{"true slice": all,
			"false slice": part(0, size, size), "inner": part(0, 1, size)} {
			slice := whole
			if one.Size == size {
				slice = lie
			}
			got.Reset()
			err := cid.DecodeSlice(&got, bytes.NewReader(slice), c, one)
			if !errors.Is(err, cid.ReasonMismatch) || got.Len() > 0 {
				t.Errorf("%s for %d: %d bytes, %v", name, says, got.Len(), err)
			}
		}
	}
	for _, bad := range []cid.Part{part(-1, 1, size), part(0, -1, size), part(size, 1, size),
		part(size+1, 0, size), part(1, math.MaxInt64, size), part(0, 0, -1)} {
		err := cid.DecodeSlice(io.Discard, bytes.NewReader(whole), c, bad)
		if !errors.Is(err, cid.ReasonSlice) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func FuzzDecodeSlice(f *testing.F) {
	data := randomBytes(40_000)
	var h cid.Hasher
	if _, err := h.Write(data); err != nil {
		f.Fatal(err)
	}
	var outboard writerAt
	root, err := h.Finish(&outboard)
	if err != nil {
		f.Fatal(err)
	}
	tree := cid.Tree{Data: bytes.NewReader(data), Outboard: bytes.NewReader(outboard.b),
		Size: int64(len(data)), Root: root}
	var slice bytes.Buffer
	if err := tree.CopySlice(f.Context(), &slice, 10_000, 20_000); err != nil {
		f.Fatal(err)
	}
	f.Add(slice.Bytes())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		err := cid.DecodeSlice(&out, bytes.NewReader(b), cid.OfFile(root),
			part(10_000, 20_000, len(data)))
		if err == nil && !bytes.Equal(out.Bytes(), data[10_000:30_000]) {
			t.Fatal("accepted other bytes")
		}
	})
}
