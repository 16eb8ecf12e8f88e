package canon

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// Wire types of protobuf.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// maxField is the largest field number of protobuf.
const maxField = 1<<29 - 1

// Reader reads canonical bytes field by field. The first thing wrong stops it: Next returns false,
// values are zero, and Err tells. It never copies and never allocates but for an error.
//
//	for r.Next() {
//		switch r.Field() {
//		case 1:
//			amount = r.Uint64()
//		default:
//			r.Unknown()
//		}
//	}
type Reader struct {
	buf   []byte
	pos   int
	end   int
	start int // of the current field's tag
	field uint32
	wire  uint8
	again bool // the current field has the number of the one before
	index int  // how often it had
	err   *Error
}

// Frame is what Open hands to Close.
type Frame struct {
	name    string
	end     int
	index   int // of an element, -1 of another message
	field   uint32
	entered bool
}

// NewReader returns a Reader of b, which must not change while values of it are in use.
func NewReader(b []byte) Reader { return Reader{buf: b, end: len(b)} }

// Err returns nil or an *Error.
func (r *Reader) Err() error {
	if r.err == nil {
		return nil
	}
	return r.err
}

// Offset is the position in bytes from the start of the input.
func (r *Reader) Offset() int { return r.pos }

// Left is the number of bytes that are left of the current message.
func (r *Reader) Left() int { return r.end - r.pos }

// Slice returns what was read since the offset, without copying; nil after an error.
func (r *Reader) Slice(from int) []byte {
	if r.err != nil {
		return nil
	}
	return r.buf[from:r.pos:r.pos]
}

// Field is the number of the current field.
func (r *Reader) Field() int { return int(r.field) }

// Next moves to the next field of the current message, false at its end or after an error.
func (r *Reader) Next() bool {
	if r.err != nil || r.pos >= r.end {
		return false
	}
	before := r.field
	r.start, r.field = r.pos, 0 // an error in the tag is no field's
	tag := r.varint()
	if r.err != nil {
		return false
	}
	number := tag >> 3
	if number == 0 || number > maxField {
		r.Fail(ErrUnknownField)
		return false
	}
	r.field, r.wire = uint32(number), uint8(tag&7)
	if r.field < before {
		r.Fail(ErrOrder)
		return false
	}
	if r.again = r.field == before; r.again {
		r.index++
	} else {
		r.index = 0
	}
	return true
}

// Fail records err at the current field unless an error was recorded before.
func (r *Reader) Fail(err error) {
	if r.err == nil {
		r.err = &Error{Offset: r.start, Field: int(r.field), Err: err}
	}
}

// FailField is Fail for a field of the current message that is not the current one.
func (r *Reader) FailField(field int, err error) {
	if r.err == nil {
		r.err = &Error{Offset: r.start, Field: field, Err: err}
	}
}

// Unknown refuses the current field.
func (r *Reader) Unknown() { r.Fail(ErrUnknownField) }

// Uint64 reads a singular uint64; zero is refused.
func (r *Reader) Uint64() uint64 {
	if !r.singular(wireVarint) {
		return 0
	}
	v := r.varint()
	if v == 0 {
		r.Fail(ErrDefault)
	}
	return v
}

// Uint32 reads a singular uint32; zero is refused.
func (r *Reader) Uint32() uint32 {
	v := r.Uint64()
	if v > 1<<32-1 {
		r.Fail(ErrOverflow)
		return 0
	}
	return uint32(v)
}

// Bool reads a singular bool, which must be true.
func (r *Reader) Bool() bool {
	v := r.Uint64()
	if v > 1 {
		r.Fail(ErrOverflow)
	}
	return v == 1
}

// Enum reads a singular enum of at most largest; zero is refused. An enum value this program does
// not know is ErrOverflow.
func (r *Reader) Enum(largest int32) int32 {
	v := r.Uint64()
	if v > uint64(largest) {
		r.Fail(ErrOverflow)
		return 0
	}
	return int32(v)
}

// Bytes reads singular bytes of 1 to limit, without copying.
func (r *Reader) Bytes(limit int) []byte {
	if !r.singular(wireBytes) {
		return nil
	}
	b := r.take(limit)
	if len(b) == 0 {
		r.Fail(ErrDefault)
	}
	return b
}

// Text reads a singular string of 1 to limit bytes, without copying.
func (r *Reader) Text(limit int) []byte {
	b := r.Bytes(limit)
	if !utf8.Valid(b) {
		r.Fail(ErrUTF8)
	}
	return b
}

// Fixed reads singular bytes that must fill dst exactly.
func (r *Reader) Fixed(dst []byte) {
	if b := r.Bytes(r.end); len(b) == len(dst) {
		copy(dst, b)
		return
	}
	r.Fail(ErrLength)
}

// FixedElement reads one element of repeated bytes that must fill dst exactly.
func (r *Reader) FixedElement(dst []byte) {
	if b := r.Element(r.end); len(b) == len(dst) {
		copy(dst, b)
		return
	}
	r.Fail(ErrLength)
}

// Element reads one element of repeated bytes of 0 to limit, without copying.
func (r *Reader) Element(limit int) []byte {
	if !r.expect(wireBytes) {
		return nil
	}
	return r.take(limit)
}

// Open enters a singular message, which must not be empty. The fields up to Close are the
// message's; name goes into the path of errors.
func (r *Reader) Open(name string) Frame {
	frame := r.OpenOneof(name)
	if r.err == nil && r.pos == r.end {
		r.Fail(ErrDefault)
	}
	return frame
}

// OpenOneof enters a message that is a member of a oneof and may be empty.
func (r *Reader) OpenOneof(name string) Frame {
	if r.err == nil && r.again {
		r.Fail(ErrRepeatedField)
	}
	frame := r.OpenElement(name)
	frame.index = -1
	return frame
}

// OpenElement enters one element of repeated messages, which may be empty.
func (r *Reader) OpenElement(name string) Frame {
	frame := Frame{name: name, end: r.end, field: r.field, index: r.index}
	if !r.expect(wireBytes) {
		return frame
	}
	inner := r.take(r.end)
	if r.err != nil {
		return frame
	}
	r.pos -= len(inner)
	r.end = r.pos + len(inner)
	r.field, r.again, r.index = 0, false, 0
	frame.entered = true
	return frame
}

// Close leaves a message that was entered and read to its end. Every Open needs its Close, also
// after an error.
func (r *Reader) Close(frame Frame) {
	if r.err != nil {
		if !frame.entered {
			return
		}
		name := frame.name
		if frame.index >= 0 {
			name = fmt.Sprintf("%s[%d]", name, frame.index)
		}
		r.err.Path = join(name, r.err.Path)
		return
	}
	r.end, r.field, r.index = frame.end, frame.field, max(frame.index, 0)
}

func join(outer, inner string) string {
	if inner == "" || outer == "" {
		return outer + inner
	}
	return outer + "." + inner
}

func (r *Reader) expect(wire uint8) bool {
	if r.err == nil && r.wire != wire {
		r.Fail(ErrWireType)
	}
	return r.err == nil
}

func (r *Reader) singular(wire uint8) bool {
	if r.err == nil && r.again {
		r.Fail(ErrRepeatedField)
	}
	return r.expect(wire)
}

// take reads a length and so many bytes.
func (r *Reader) take(limit int) []byte {
	n := r.varint()
	if r.err != nil {
		return nil
	}
	if n > uint64(r.end-r.pos) {
		r.Fail(ErrTruncated)
		return nil
	}
	if n > uint64(limit) {
		r.Fail(ErrSize)
		return nil
	}
	b := r.buf[r.pos : r.pos+int(n) : r.pos+int(n)]
	r.pos += int(n)
	return b
}

// varint reads a minimal varint of at most 64 bits.
func (r *Reader) varint() uint64 {
	if r.pos < r.end && r.buf[r.pos] < 0x80 {
		r.pos++
		return uint64(r.buf[r.pos-1])
	}
	v, n := binary.Uvarint(r.buf[r.pos:r.end])
	switch {
	case n == 0 && r.end-r.pos < binary.MaxVarintLen64:
		r.Fail(ErrTruncated)
	case n <= 0:
		r.Fail(ErrOverflow)
	case r.buf[r.pos+n-1] == 0:
		r.Fail(ErrNotMinimal)
	default:
		r.pos += n
		return v
	}
	return 0
}
