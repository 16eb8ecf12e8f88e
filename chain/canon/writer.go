package canon

import "encoding/binary"

// appendTag appends the tag of a field with the wire type given.
func appendTag(dst []byte, field int, wire uint8) []byte {
	return binary.AppendUvarint(dst, uint64(field)<<3|uint64(wire))
}

// AppendUint appends a singular unsigned number, bool (0 or 1) or enum; nothing if v is zero.
func AppendUint(dst []byte, field int, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return binary.AppendUvarint(appendTag(dst, field, wireVarint), v)
}

// AppendBool appends a singular bool; nothing if it is false.
func AppendBool(dst []byte, field int, v bool) []byte {
	if !v {
		return dst
	}
	return AppendUint(dst, field, 1)
}

// AppendBytes appends singular bytes or text; nothing if b is empty.
func AppendBytes[T ~[]byte | ~string](dst []byte, field int, b T) []byte {
	if len(b) == 0 {
		return dst
	}
	return AppendElement(dst, field, b)
}

// AppendElement appends one element of repeated bytes or text, or an encoded message, also an
// empty one.
func AppendElement[T ~[]byte | ~string](dst []byte, field int, b T) []byte {
	dst = binary.AppendUvarint(appendTag(dst, field, wireBytes), uint64(len(b)))
	return append(dst, b...)
}

// Mark is what Begin hands to End.
type Mark struct{ tag, body int }

// Begin starts a message whose fields are appended until End or EndElement.
func Begin(dst []byte, field int) ([]byte, Mark) {
	tag := len(dst)
	dst = append(appendTag(dst, field, wireBytes), 0)
	return dst, Mark{tag: tag, body: len(dst)}
}

// End finishes a singular message; nothing is left of it if it is empty.
func End(dst []byte, mark Mark) []byte {
	if len(dst) == mark.body {
		return dst[:mark.tag]
	}
	return EndElement(dst, mark)
}

// EndElement finishes an element of a repeated field or a member of a oneof, also an empty one.
func EndElement(dst []byte, mark Mark) []byte {
	n := len(dst) - mark.body
	if n < 0x80 {
		dst[mark.body-1] = byte(n)
		return dst
	}
	var length [binary.MaxVarintLen64]byte
	size := binary.PutUvarint(length[:], uint64(n))
	dst = append(dst, length[:size-1]...)
	copy(dst[mark.body-1+size:], dst[mark.body:mark.body+n])
	copy(dst[mark.body-1:], length[:size])
	return dst
}
