package cid

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"lukechampine.com/blake3/guts"
)

// DecodeRest reads the slice (Tree.CopySlice) of everything behind the prefix of a file of size
// bytes and writes these bytes to w, each group verified before it is written. The prefix is
// verified too, and before anything is written: another one is ReasonPrefix. So a download that was
// cut off goes on at once, or begins anew at once. The prefix is empty, or a multiple of GroupSize
// shorter than size. What comes and does not verify is ReasonMismatch.
func DecodeRest(w io.Writer, slice io.Reader, c CID, size int64, prefix *io.SectionReader) error {
	have := prefix.Size()
	switch {
	case c.Kind() != File:
		return badSlice("a slice verifies only against the CID of a file, %s is none", c)
	case have%GroupSize != 0 || have >= max(size, 1):
		return badSlice("the rest behind %d of %d bytes", have, size)
	}
	d := rest{w: w, slice: slice, c: c, prefix: prefix, have: have}
	head, err := d.read(headerSize)
	if err != nil {
		return err
	}
	if says := binary.LittleEndian.Uint64(head); says != uint64(size) {
		return mismatch(c, "the slice is of %d bytes, not %d", says, size)
	}
	if size == 0 {
		// Of nothing there is no slice; the one group that it has is empty.
		return d.group(span{value: chainOf(c.sum[:]), flags: guts.FlagRoot})
	}
	return d.visit(span{value: chainOf(c.sum[:]), length: size, flags: guts.FlagRoot})
}

// rest walks the tree of a file as its slice does.
type rest struct {
	w      io.Writer
	slice  io.Reader
	c      CID
	prefix io.ReaderAt
	have   int64
	buf    [GroupSize]byte
}

// read returns the next n <= GroupSize bytes of the slice, valid until the next read.
func (d *rest) read(n int64) ([]byte, error) {
	_, err := io.ReadFull(d.slice, d.buf[:n])
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read slice of %s: %w", d.c, err)
	}
	return d.buf[:n], nil
}

// visit recurses at most 50 deep, as treeWalk does.
func (d *rest) visit(s span) error {
	switch {
	case s.pos+s.length <= d.have:
		return d.check(s)
	case s.length <= GroupSize:
		return d.group(s)
	}
	node, err := d.read(parentSize)
	if err != nil {
		return err
	}
	l, r := chainOf(node), chainOf(node[parentSize/2:])
	if guts.ChainingValue(guts.ParentNode(l, r, &guts.IV, s.flags)) != s.value {
		return mismatch(d.c, "the slice does not verify")
	}
	left := int64(leftOf(uint64(s.length)))
	if err := d.visit(span{value: l, pos: s.pos, length: left}); err != nil {
		return err
	}
	return d.visit(span{value: r, pos: s.pos + left, length: s.length - left})
}

func (d *rest) group(s span) error {
	p, err := d.read(s.length)
	if err != nil {
		return err
	}
	node := guts.CompressBuffer(&d.buf, len(p), &guts.IV, uint64(s.pos)/guts.ChunkSize, 0)
	node.Flags |= s.flags
	if guts.ChainingValue(node) != s.value {
		return mismatch(d.c, "16 KiB at %d do not verify", s.pos)
	}
	_, err = d.w.Write(p)
	return err
}

// check compares a subtree of whole groups, all before have, with its value.
func (d *rest) check(s span) error {
	b := treeBuilder{groups: make([]chain, 0, s.length/GroupSize)}
	data := window{src: d.prefix, end: d.have, size: dataWindow}
	for pos := s.pos; pos < s.pos+s.length; pos += GroupSize {
		p, err := data.read(pos, GroupSize)
		if errors.Is(err, errTree) {
			return WrongPrefix(d.c)
		}
		if err != nil {
			return fmt.Errorf("read what is there of %s: %w", d.c, err)
		}
		copy(d.buf[:], p)
		node := guts.CompressBuffer(&d.buf, GroupSize, &guts.IV, uint64(pos)/guts.ChunkSize, 0)
		b.groups = append(b.groups, guts.ChainingValue(node))
	}
	if b.build(0, len(b.groups), 0) != s.value {
		return WrongPrefix(d.c)
	}
	return nil
}
