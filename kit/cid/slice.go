package cid

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"lukechampine.com/blake3"
	"lukechampine.com/blake3/bao"
)

// groupLog is GroupSize as the Bao library counts it: 2^4 chunks.
const groupLog = 4

// Part is the bytes [Offset, Offset+Length) of a file of Size bytes.
type Part struct{ Offset, Length, Size int64 }

// DecodeSlice reads what Tree.CopySlice wrote and writes the verified bytes of the part to w. It
// trusts nothing but the CID, which must be of a file. Bytes that do not verify, and a slice of a
// file of another size, are ReasonMismatch. A part that ends where the file ends proves the file's
// size with its last group; another one does not, and needs not: its bytes are at their place.
func DecodeSlice(w io.Writer, r io.Reader, c CID, p Part) error {
	if c.Kind() != File {
		return badSlice("a slice verifies only against the CID of a file, %s is none", c)
	}
	if p.Offset < 0 || p.Length < 0 || p.Offset > p.Size || p.Length > p.Size-p.Offset {
		return badSlice("slice of offset %d, length %d of %d bytes", p.Offset, p.Length, p.Size)
	}
	if p.Size == 0 && c != OfFile(blake3.Sum256(nil)) {
		return mismatch(c, "it is not the empty file")
	}
	var says [headerSize]byte
	if _, err := io.ReadFull(r, says[:]); err != nil {
		return fmt.Errorf("decode slice of %s: %w", c, err)
	}
	if n := binary.LittleEndian.Uint64(says[:]); n != uint64(p.Size) {
		return mismatch(c, "the slice is of %d bytes, not %d", n, p.Size)
	}
	if p.Length == 0 {
		return nil // there is nothing behind the header
	}
	head := bytes.NewReader(says[:])
	ok, err := bao.DecodeSlice(w, io.MultiReader(head, r), groupLog, uint64(p.Offset),
		uint64(p.Length), c.Sum())
	if err != nil {
		return fmt.Errorf("decode slice of %s: %w", c, err)
	}
	if !ok {
		return mismatch(c, "the slice does not verify")
	}
	return nil
}
