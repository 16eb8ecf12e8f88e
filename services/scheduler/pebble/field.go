package pebble

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// errField: a field has another form than it should.
var errField = errors.New("field of the wrong form")

// field is one field of a record: how it is written and how it is read. A field whose value is zero
// is left out; one that is not known is passed over, so that fields may be added.
type field struct {
	number protowire.Number
	kind   protowire.Type
	// number fields: get returns 0 for a value that is left out.
	get func() uint64
	set func(uint64)
	// byte fields: each calls put for every value; take reads one value.
	each func(put func([]byte))
	take func([]byte) error
}

func writeFields(out []byte, fields []field) []byte {
	for _, f := range fields {
		if f.kind == protowire.VarintType {
			if v := f.get(); v != 0 {
				out = protowire.AppendVarint(protowire.AppendTag(out, f.number, f.kind), v)
			}
			continue
		}
		f.each(func(value []byte) {
			out = protowire.AppendBytes(protowire.AppendTag(out, f.number, f.kind), value)
		})
	}
	return out
}

func readFields(raw []byte, fields []field) error {
	for len(raw) > 0 {
		number, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return fmt.Errorf("tag: %w", protowire.ParseError(n))
		}
		raw = raw[n:]
		n, err := readOne(raw, number, kind, fields)
		if err != nil {
			return fmt.Errorf("field %d: %w", number, err)
		}
		raw = raw[n:]
	}
	return nil
}

func readOne(
	raw []byte, number protowire.Number, kind protowire.Type, fields []field,
) (int, error) {
	for _, f := range fields {
		if f.number != number {
			continue
		}
		if f.kind != kind {
			return 0, errField
		}
		if kind == protowire.VarintType {
			v, n := protowire.ConsumeVarint(raw)
			if n < 0 {
				return 0, protowire.ParseError(n)
			}
			f.set(v)
			return n, nil
		}
		value, n := protowire.ConsumeBytes(raw)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		return n, f.take(value)
	}
	n := protowire.ConsumeFieldValue(number, kind, raw)
	if n < 0 {
		return 0, protowire.ParseError(n)
	}
	return n, nil
}

// unsigned is a field of a number.
func unsigned[T ~uint8 | ~uint32 | ~uint64](number protowire.Number, p *T) field {
	return field{
		number: number, kind: protowire.VarintType,
		get: func() uint64 { return uint64(*p) }, set: func(v uint64) { *p = T(v) },
	}
}

// signed is a field of a number that may be below zero.
func signed[T ~int32 | ~int64](number protowire.Number, p *T) field {
	return field{
		number: number, kind: protowire.VarintType,
		get: func() uint64 { return protowire.EncodeZigZag(int64(*p)) },
		set: func(v uint64) { *p = T(protowire.DecodeZigZag(v)) },
	}
}

func truth(number protowire.Number, p *bool) field {
	return field{
		number: number, kind: protowire.VarintType,
		get: func() uint64 { return protowire.EncodeBool(*p) },
		set: func(v uint64) { *p = protowire.DecodeBool(v) },
	}
}

// moment is a field of a time to the nanosecond; the zero time is left out.
func moment(number protowire.Number, p *time.Time) field {
	return field{
		number: number, kind: protowire.BytesType,
		each: func(put func([]byte)) {
			if !p.IsZero() {
				raw := protowire.AppendVarint(nil, protowire.EncodeZigZag(p.Unix()))
				put(protowire.AppendVarint(raw, uint64(p.Nanosecond())))
			}
		},
		take: func(raw []byte) error {
			seconds, n := protowire.ConsumeVarint(raw)
			if n < 0 {
				return protowire.ParseError(n)
			}
			nanos, m := protowire.ConsumeVarint(raw[n:])
			if m < 0 || n+m != len(raw) || nanos >= uint64(time.Second) {
				return fmt.Errorf("%w: a time", errField)
			}
			*p = time.Unix(protowire.DecodeZigZag(seconds), int64(nanos))
			return nil
		},
	}
}

func text(number protowire.Number, p *string) field {
	return field{
		number: number, kind: protowire.BytesType,
		each: func(put func([]byte)) {
			if *p != "" {
				put([]byte(*p))
			}
		},
		take: func(raw []byte) error { *p = string(raw); return nil },
	}
}

func blob(number protowire.Number, p *[]byte) field {
	return field{
		number: number, kind: protowire.BytesType,
		each: func(put func([]byte)) {
			if *p != nil {
				put(*p)
			}
		},
		take: func(raw []byte) error { *p = append([]byte{}, raw...); return nil },
	}
}

// fixed is a field of as many bytes as p has room for.
func fixed(number protowire.Number, p []byte) field {
	return field{
		number: number, kind: protowire.BytesType,
		each: func(put func([]byte)) {
			for _, b := range p {
				if b != 0 {
					put(p)
					return
				}
			}
		},
		take: func(raw []byte) error {
			if len(raw) != len(p) {
				return fmt.Errorf("%w: %d bytes, not %d", errField, len(raw), len(p))
			}
			copy(p, raw)
			return nil
		},
	}
}

// whole is a field of a record of its own.
func whole(number protowire.Number, fields []field) field {
	return field{
		number: number, kind: protowire.BytesType,
		each: func(put func([]byte)) {
			if raw := writeFields(nil, fields); len(raw) > 0 {
				put(raw)
			}
		},
		take: func(raw []byte) error { return readFields(raw, fields) },
	}
}

// maybe is a field of a record of its own that may be missing.
func maybe[T any](number protowire.Number, p **T, fields func(*T) []field) field {
	return field{
		number: number, kind: protowire.BytesType,
		each: func(put func([]byte)) {
			if *p != nil {
				put(writeFields(nil, fields(*p)))
			}
		},
		take: func(raw []byte) error {
			*p = new(T)
			return readFields(raw, fields(*p))
		},
	}
}

// list is a field that is repeated, each a record of its own.
func list[T any](number protowire.Number, p *[]T, fields func(*T) []field) field {
	return field{
		number: number, kind: protowire.BytesType,
		each: func(put func([]byte)) {
			for i := range *p {
				put(writeFields(nil, fields(&(*p)[i])))
			}
		},
		take: func(raw []byte) error {
			var one T
			if err := readFields(raw, fields(&one)); err != nil {
				return err
			}
			*p = append(*p, one)
			return nil
		},
	}
}

func texts(number protowire.Number, p *[]string) field {
	return field{
		number: number, kind: protowire.BytesType,
		each: func(put func([]byte)) {
			for _, s := range *p {
				put([]byte(s))
			}
		},
		take: func(raw []byte) error { *p = append(*p, string(raw)); return nil },
	}
}
