package cid

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"lukechampine.com/blake3/guts"
)

const (
	// GroupSize is the smallest unit that verifies alone, in bytes: 16 BLAKE3 chunks of 1 KiB. The
	// outboard costs 64 bytes per group (0.39 %).
	GroupSize = guts.MaxSIMD * guts.ChunkSize

	parentSize   = 64
	headerSize   = 8
	bufferGroups = 1024 // a subtree of so many groups (64 KiB of nodes) is written at once
)

type chain = [8]uint32

// Hasher computes the BLAKE3 root of a stream of unknown length together with the Bao outboard
// of 16 KiB groups, in one pass. It keeps 32 bytes per group: 32 MiB for a blob of 16 GiB. The zero
// value is ready. It is not safe for concurrent use.
type Hasher struct {
	buf    [GroupSize]byte
	n      int
	size   int64
	groups []chain
}

// Write takes the next bytes. It never fails.
func (h *Hasher) Write(p []byte) (int, error) {
	total := len(p)
	h.size += int64(total)
	for len(p) > 0 {
		if h.n == GroupSize {
			h.push(&h.buf)
			h.n = 0
		}
		for h.n == 0 && len(p) > GroupSize {
			h.push((*[GroupSize]byte)(p))
			p = p[GroupSize:]
		}
		k := copy(h.buf[h.n:], p)
		h.n += k
		p = p[k:]
	}
	return total, nil
}

// Size is the number of bytes taken so far.
func (h *Hasher) Size() int64 { return h.size }

// Finish returns the root and, when outboard is not nil, writes the outboard to it: 8 bytes of
// length and the parent nodes in pre-order, as the Bao specification lays them out. The hasher is
// spent afterwards.
func (h *Hasher) Finish(outboard io.WriterAt) ([SumSize]byte, error) {
	counter := uint64(len(h.groups)) * guts.MaxSIMD
	last := guts.CompressBuffer(&h.buf, h.n, &guts.IV, counter, 0)
	if len(h.groups) == 0 {
		last.Flags |= guts.FlagRoot
	}
	h.groups = append(h.groups, guts.ChainingValue(last))
	b := treeBuilder{dst: outboard, groups: h.groups}
	b.writeHeader(h.size)
	root := b.build(headerSize, len(h.groups), guts.FlagRoot)
	return sumOf(root), b.err
}

func (h *Hasher) push(group *[GroupSize]byte) {
	counter := uint64(len(h.groups)) * guts.MaxSIMD
	node := guts.CompressBuffer(group, GroupSize, &guts.IV, counter, 0)
	h.groups = append(h.groups, guts.ChainingValue(node))
}

// OutboardSize is the length of the outboard of a blob of size bytes.
func OutboardSize(size int64) int64 {
	return headerSize + parentSize*(groupCount(size)-1)
}

// groupCount is at least 1: the empty blob has one empty group.
func groupCount(size int64) int64 {
	return max(1, (size+GroupSize-1)/GroupSize)
}

// treeBuilder folds group values into parents, left before right, each parent ahead of its
// children in the file.
type treeBuilder struct {
	dst    io.WriterAt
	groups []chain
	buf    []byte
	err    error
}

func (b *treeBuilder) writeHeader(size int64) {
	if b.dst != nil {
		head := binary.LittleEndian.AppendUint64(nil, uint64(size))
		_, b.err = b.dst.WriteAt(head, 0)
	}
}

// build consumes count groups, whose nodes belong at offset at, and returns their value.
func (b *treeBuilder) build(at int64, count int, flags uint32) chain {
	if count <= bufferGroups {
		b.buf = b.buf[:0]
		value := b.fold(count, flags)
		b.write(b.buf, at)
		return value
	}
	left := leftOf(uint64(count))
	l := b.build(at+parentSize, int(left), 0)
	r := b.build(at+parentSize*int64(left), count-int(left), 0)
	b.write(appendParent(nil, l, r), at)
	return guts.ChainingValue(guts.ParentNode(l, r, &guts.IV, flags))
}

func (b *treeBuilder) fold(count int, flags uint32) chain {
	if count == 1 {
		value := b.groups[0]
		b.groups = b.groups[1:]
		return value
	}
	at := len(b.buf)
	b.buf = append(b.buf, make([]byte, parentSize)...)
	left := int(leftOf(uint64(count)))
	l := b.fold(left, 0)
	r := b.fold(count-left, 0)
	appendParent(b.buf[:at], l, r)
	return guts.ChainingValue(guts.ParentNode(l, r, &guts.IV, flags))
}

func (b *treeBuilder) write(p []byte, at int64) {
	if b.err == nil && b.dst != nil && len(p) > 0 {
		_, b.err = b.dst.WriteAt(p, at)
	}
}

// leftOf is the width of the left subtree of n > 1 leaves: the largest power of two below n.
func leftOf(n uint64) uint64 { return 1 << (bits.Len64(n-1) - 1) }

func appendParent(dst []byte, l, r chain) []byte {
	for _, value := range [...]chain{l, r} {
		for _, word := range value {
			dst = binary.LittleEndian.AppendUint32(dst, word)
		}
	}
	return dst
}

func sumOf(value chain) (sum [SumSize]byte) {
	for i, word := range value {
		binary.LittleEndian.PutUint32(sum[4*i:], word)
	}
	return sum
}

func chainOf(b []byte) (value chain) {
	for i := range value {
		value[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return value
}

// Tree is a blob at rest with its outboard: the means to read any range of it verified.
type Tree struct {
	// Data holds exactly Size bytes.
	Data io.ReaderAt
	// Outboard is what Hasher.Finish wrote; not read when the blob is at most one group.
	Outboard io.ReaderAt
	// Size is the length of the blob in bytes, from a source as good as Root.
	Size int64
	// Root is the BLAKE3-256 of the blob.
	Root [SumSize]byte
}

// errTree is what a damaged group or node is.
var errTree = errors.New("does not verify")

// Copy writes bytes [offset, offset+length) to w. Nothing reaches w before its group verified, so
// what was written before an error is good. A group or node that does not verify, or a file that is
// too short, is an error with its offset: the caller names the blob and says what that means.
func (t Tree) Copy(ctx context.Context, w io.Writer, offset, length int64) error {
	return t.walk(ctx, treeOutput{w: w}, offset, length)
}

// CopySlice writes the Bao slice encoding (16 KiB groups) of the range to w, itself verified first;
// DecodeSlice on the other side checks it against the CID of a file.
func (t Tree) CopySlice(ctx context.Context, w io.Writer, offset, length int64) error {
	head := binary.LittleEndian.AppendUint64(nil, uint64(t.Size))
	if _, err := w.Write(head); err != nil {
		return err
	}
	return t.walk(ctx, treeOutput{w: w, slice: true}, offset, length)
}

func (t Tree) walk(ctx context.Context, out treeOutput, offset, length int64) error {
	out.from, out.to = offset, offset+length
	if length == 0 {
		return nil
	}
	groups := groupCount(offset + length)
	w := treeWalk{
		ctx:  ctx,
		out:  out,
		data: window{src: t.Data, end: min(t.Size, groups*GroupSize), size: dataWindow},
		tree: window{src: t.Outboard, end: OutboardSize(t.Size), size: treeWindow},
	}
	return w.visit(span{value: chainOf(t.Root[:]), length: t.Size, at: headerSize,
		flags: guts.FlagRoot})
}

// treeOutput is what a walk produces: the plain range, or its slice encoding.
type treeOutput struct {
	w        io.Writer
	slice    bool
	from, to int64
}

func (o treeOutput) node(p []byte) error {
	if !o.slice {
		return nil
	}
	_, err := o.w.Write(p)
	return err
}

func (o treeOutput) group(p []byte, pos int64) error {
	if !o.slice {
		end := pos + int64(len(p))
		p = p[max(o.from, pos)-pos : min(o.to, end)-pos]
	}
	_, err := o.w.Write(p)
	return err
}

// span is one subtree: its expected value, its bytes [pos, pos+length), its first node's offset.
type span struct {
	value       chain
	pos, length int64
	at          int64
	flags       uint32
}

type treeWalk struct {
	ctx  context.Context
	out  treeOutput
	data window
	tree window
	buf  [GroupSize]byte
}

// visit recurses at most 50 deep: a subtree halves each time and a size is below 2^63.
func (w *treeWalk) visit(s span) error {
	if s.pos >= w.out.to || w.out.from >= s.pos+s.length {
		return nil
	}
	if s.length <= GroupSize {
		return w.visitGroup(s)
	}
	node, err := w.tree.read(s.at, parentSize)
	if err != nil {
		return fmt.Errorf("tree node at %d: %w", s.at, err)
	}
	l, r := chainOf(node), chainOf(node[parentSize/2:])
	if guts.ChainingValue(guts.ParentNode(l, r, &guts.IV, s.flags)) != s.value {
		return fmt.Errorf("tree node at %d %w", s.at, errTree)
	}
	if err := w.out.node(node); err != nil {
		return err
	}
	left := int64(leftOf(uint64(s.length)))
	err = w.visit(span{value: l, pos: s.pos, length: left, at: s.at + parentSize})
	if err != nil {
		return err
	}
	return w.visit(span{value: r, pos: s.pos + left, length: s.length - left,
		at: s.at + parentSize*groupCount(left)})
}

func (w *treeWalk) visitGroup(s span) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	p, err := w.data.read(s.pos, int(s.length))
	if err != nil {
		return fmt.Errorf("bytes at %d: %w", s.pos, err)
	}
	n := copy(w.buf[:], p)
	counter := uint64(s.pos) / guts.ChunkSize
	node := guts.CompressBuffer(&w.buf, n, &guts.IV, counter, 0)
	node.Flags |= s.flags
	if guts.ChainingValue(node) != s.value {
		return fmt.Errorf("16 KiB at %d %w", s.pos, errTree)
	}
	return w.out.group(w.buf[:n], s.pos)
}

const (
	dataWindow = 256 << 10
	treeWindow = 16 << 10
)

// window turns many small ascending reads into few large ones.
type window struct {
	src   io.ReaderAt
	end   int64
	size  int
	buf   []byte
	start int64
}

// read returns n <= size bytes at off, valid until the next read.
func (w *window) read(off int64, n int) ([]byte, error) {
	if off < w.start || off+int64(n) > w.start+int64(len(w.buf)) {
		if err := w.fill(off, n); err != nil {
			return nil, err
		}
	}
	at := off - w.start
	return w.buf[at : at+int64(n)], nil
}

func (w *window) fill(off int64, n int) error {
	want := int(min(int64(w.size), w.end-off))
	if cap(w.buf) < want {
		w.buf = make([]byte, w.size)
	}
	w.buf, w.start = w.buf[:max(want, 0)], off
	got, err := w.src.ReadAt(w.buf, off)
	w.buf = w.buf[:got]
	if got >= n {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("file ends at %d and %w", off+int64(got), errTree)
	}
	return err
}
