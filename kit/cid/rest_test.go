package cid_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/united-containers/ucn/kit/cid"
)

// hashed returns a file's CID and its tree.
func hashed(t testing.TB, data []byte) (cid.CID, cid.Tree) {
	t.Helper()
	var h cid.Hasher
	if _, err := h.Write(data); err != nil {
		t.Fatal(err)
	}
	var outboard writerAt
	root, err := h.Finish(&outboard)
	if err != nil {
		t.Fatal(err)
	}
	return cid.OfFile(root), cid.Tree{Data: bytes.NewReader(data),
		Outboard: bytes.NewReader(outboard.b), Size: int64(len(data)), Root: root}
}

// behind returns the slice of everything behind have.
func behind(t testing.TB, tree cid.Tree, have int64) []byte {
	t.Helper()
	var slice bytes.Buffer
	if err := tree.CopySlice(t.Context(), &slice, have, tree.Size-have); err != nil {
		t.Fatal(err)
	}
	return slice.Bytes()
}

// places are where a download of size bytes may have been cut off.
func places(size int) (all []int64) {
	last := int64(max(size-1, 0)) / cid.GroupSize
	some := []int64{0, 1, 3, last / 2, last}
	if size > 1<<24 {
		some = some[4:]
	}
	for _, groups := range some {
		if at := groups * cid.GroupSize; groups >= 0 && at < int64(max(size, 1)) {
			all = append(all, at)
		}
	}
	return all
}

func TestRestGoesOn(t *testing.T) {
	for _, size := range sizes {
		if size > 17<<20 {
			continue // no other branch than the size before has
		}
		data := randomBytes(size)
		c, tree := hashed(t, data)
		for _, have := range places(size) {
			slice := behind(t, tree, have)
			var got bytes.Buffer
			decode := func(c cid.CID, slice, prefix []byte) error {
				got.Reset()
				return cid.DecodeRest(&got, bytes.NewReader(slice), c, int64(size),
					io.NewSectionReader(bytes.NewReader(prefix), 0, have))
			}
			if err := decode(c, slice, data[:have]); err != nil ||
				!bytes.Equal(got.Bytes(), data[have:]) {
				t.Fatalf("size %d behind %d: %d bytes, %v", size, have, got.Len(), err)
			}
			if err := decode(cid.OfFile([32]byte{1}), slice, data[:have]); got.Len() > 0 ||
				!errors.Is(err, cid.ReasonMismatch) {
				t.Errorf("size %d behind %d, another file: %d bytes, %v", size, have, got.Len(), err)
			}
			if have == 0 {
				continue
			}
			for _, at := range []int64{0, have / 2, have - 1} {
				wrong := bytes.Clone(data[:have])
				wrong[at] ^= 1
				if err := decode(c, slice, wrong); got.Len() > 0 ||
					!errors.Is(err, cid.ReasonPrefix) {
					t.Errorf("size %d, bit at %d of %d: %d bytes, %v", size, at, have, got.Len(), err)
				}
			}
			if err := decode(c, slice, data[:have-1]); !errors.Is(err, cid.ReasonPrefix) {
				t.Errorf("size %d, less than %d: %v", size, have, err)
			}
		}
	}
}

func TestRestRefusesALyingPeer(t *testing.T) {
	const size, have = 7*cid.GroupSize + 5, 3 * cid.GroupSize
	data := randomBytes(size)
	c, tree := hashed(t, data)
	slice := behind(t, tree, have)
	decode := func(c cid.CID, slice []byte, size, have int64) error {
		var got bytes.Buffer
		err := cid.DecodeRest(&got, bytes.NewReader(slice), c, size,
			io.NewSectionReader(bytes.NewReader(data), 0, have))
		if !bytes.HasPrefix(data[3*cid.GroupSize:], got.Bytes()) {
			t.Errorf("wrong bytes were written")
		}
		return err
	}
	for at := 0; at < len(slice); at += 131 {
		lie := bytes.Clone(slice)
		lie[at] ^= 1 << (at % 8)
		if err := decode(c, lie, size, have); !errors.Is(err, cid.ReasonMismatch) {
			t.Errorf("bit at %d: %v", at, err)
		}
	}
	for _, n := range []int{0, 7, 8, 500, len(slice) - 1} {
		if err := decode(c, slice[:n], size, have); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	if err := decode(c, slice, size+1, have); !errors.Is(err, cid.ReasonMismatch) {
		t.Errorf("another size: %v", err)
	}
	for _, bad := range []struct {
		c          cid.CID
		size, have int64
	}{
		{cid.OfOCI(c.Sum()), size, have}, {c, size, 1},
		{c, have, have}, {c, 0, cid.GroupSize},
	} {
		if err := decode(bad.c, slice, bad.size, bad.have); !errors.Is(err, cid.ReasonSlice) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// FuzzDecodeRest: whatever a peer sends, only right bytes are written.
func FuzzDecodeRest(f *testing.F) {
	const have = 2 * cid.GroupSize
	data := randomBytes(5*cid.GroupSize + 99)
	c, tree := hashed(f, data)
	slice := behind(f, tree, have)
	f.Add(slice)
	f.Add(slice[:100])
	f.Fuzz(func(t *testing.T, slice []byte) {
		var got bytes.Buffer
		err := cid.DecodeRest(&got, bytes.NewReader(slice), c, int64(len(data)),
			io.NewSectionReader(bytes.NewReader(data), 0, have))
		if !bytes.HasPrefix(data[have:], got.Bytes()) ||
			err == nil && got.Len() != len(data)-have {
			t.Fatalf("%d bytes, %v", got.Len(), err)
		}
	})
}
