package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, written "64MiB", "1.5GiB", "10GB", "512" or "512B". Units: B, KiB,
// MiB, GiB, TiB (powers of 1024), KB, MB, GB, TB (powers of 1000). Never negative when read.
type Size int64

// Binary units of Size.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
	TiB Size = 1 << 40
)

// unit is one suffix of a size. The order of units matters: longer suffixes come first.
type unit struct {
	suffix string
	bytes  Size
}

func units() [9]unit {
	return [...]unit{
		{"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB},
		{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
	}
}

// ParseSize reads the text of a size. It must come to a whole number of bytes below 2^63.
func ParseSize(s string) (Size, error) {
	number, factor := s, Size(1)
	for _, u := range units() {
		if rest, ok := strings.CutSuffix(s, u.suffix); ok {
			number, factor = strings.TrimSuffix(rest, " "), u.bytes
			break
		}
	}
	whole, fraction, hasFraction := strings.Cut(number, ".")
	n, err := strconv.ParseUint(whole, 10, 63)
	if err != nil || n > uint64(math.MaxInt64/factor) {
		return 0, badSize(s)
	}
	size := Size(n) * factor
	if !hasFraction {
		return size, nil
	}
	const maxFraction = 6 // digits, so that digits * TiB stays below 2^63
	if len(fraction) == 0 || len(fraction) > maxFraction {
		return 0, badSize(s)
	}
	f, err := strconv.ParseUint(fraction, 10, 63)
	scale := Size(math.Pow10(len(fraction)))
	if err != nil || Size(f)*factor%scale != 0 || size > math.MaxInt64-Size(f)*factor/scale {
		return 0, badSize(s)
	}
	return size + Size(f)*factor/scale, nil
}

func badSize(s string) error {
	return fmt.Errorf("%q is not a size such as 512, 64KiB, 1.5GiB or 10GB", s)
}

// String returns the shortest exact text in binary units.
func (s Size) String() string {
	for _, u := range units() {
		if s != 0 && u.bytes&(u.bytes-1) == 0 && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	parsed, err := ParseSize(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}
