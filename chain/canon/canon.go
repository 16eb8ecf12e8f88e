package canon

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Marshal returns the canonical bytes of m. It fails with an *Error if m has no canonical form:
// unknown fields, invalid UTF-8, nesting beyond MaxDepth, more than MaxSize bytes, or a kind of
// field that Check refuses.
func Marshal(m proto.Message) ([]byte, error) { return Append(nil, m) }

// Append is Marshal to the end of dst.
func Append(dst []byte, m proto.Message) ([]byte, error) {
	start := len(dst)
	dst, err := appendMessage(dst, m.ProtoReflect(), 1)
	if err != nil {
		return nil, err
	}
	if len(dst)-start > MaxSize {
		return nil, &Error{Offset: -1, Err: ErrSize}
	}
	return dst, nil
}

// Unmarshal reads canonical bytes into m, which is reset first. Other bytes fail with an *Error.
func Unmarshal(b []byte, m proto.Message) error {
	if err := Check(b, m.ProtoReflect().Descriptor()); err != nil {
		return err
	}
	if err := (proto.UnmarshalOptions{}).Unmarshal(b, m); err != nil {
		return fmt.Errorf("unmarshal checked bytes: %w", err)
	}
	return nil
}

// Hash returns the SHA-256 of the canonical bytes of m.
func Hash(m proto.Message) ([sha256.Size]byte, error) {
	b, err := Marshal(m)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return sha256.Sum256(b), nil
}

// Check reports whether b is the canonical form of a message of the descriptor's type. The error
// is an *Error.
func Check(b []byte, of protoreflect.MessageDescriptor) error {
	if len(b) > MaxSize {
		return &Error{Offset: MaxSize, Err: ErrSize}
	}
	r := NewReader(b)
	checkMessage(&r, of, 1)
	return NameField(r.Err(), of)
}

// CheckDescriptor reports whether every message that can stand within one of the descriptor's
// type has a canonical form. Marshal and Check look only at the types that occur.
func CheckDescriptor(of protoreflect.MessageDescriptor) error {
	seen := map[protoreflect.FullName]bool{}
	queue := []protoreflect.MessageDescriptor{of}
	for len(queue) > 0 {
		next := queue[0]
		queue = queue[1:]
		if seen[next.FullName()] {
			continue
		}
		seen[next.FullName()] = true
		if err := admit(next); err != nil {
			var e *Error
			errors.As(err, &e)
			e.Path = join(string(next.FullName()), e.Path)
			return e
		}
		for i := range next.Fields().Len() {
			if inner := next.Fields().Get(i).Message(); inner != nil {
				queue = append(queue, inner)
			}
		}
	}
	return nil
}

// admit refuses messages with fields that have no canonical form.
func admit(of protoreflect.MessageDescriptor) error {
	for i := range of.Fields().Len() {
		field := of.Fields().Get(i)
		if !admitted(field) {
			return &Error{Offset: -1, Path: string(field.Name()), Err: ErrDescriptor}
		}
	}
	if of.ExtensionRanges().Len() > 0 {
		return &Error{Offset: -1, Err: ErrDescriptor}
	}
	return nil
}

func admitted(field protoreflect.FieldDescriptor) bool {
	switch field.Kind() {
	case protoreflect.GroupKind, protoreflect.FloatKind, protoreflect.DoubleKind:
		return false
	case protoreflect.MessageKind:
		return !field.IsMap() && field.Cardinality() != protoreflect.Required
	}
	// Presence outside a oneof is that of proto2, where a set default value means something.
	return !field.HasPresence() || field.ContainingOneof() != nil
}
