// Package id makes and reads identifiers: random 128-bit ids with a time in front (UUIDv7, RFC
// 9562) for things this process names itself, and the bech32m text forms (BIP 350) of 32-byte ids
// that are hashes.
//
// Ids made by New are unique, roughly ordered by time within one process, and not secret: never
// use one as a credential.
package id

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"time"
)

// Size is the length of an ID in bytes, TextSize that of its text.
const (
	Size     = 16
	TextSize = 36
)

// ID is a UUID of version 7: 48 bits of Unix milliseconds, then 74 random bits.
type ID [Size]byte

// New returns a fresh id from the wall clock and crypto/rand.
func New() ID {
	made, err := NewAt(time.Now(), rand.Reader)
	if err != nil {
		// crypto/rand.Reader never fails (it ends the process instead), so this is an invariant.
		panic("id: " + err.Error())
	}
	return made
}

// NewAt returns an id for the given time with randomness from r. It fails only if r does or if t
// lies outside the 48 bits of milliseconds (1970 to 10889).
func NewAt(t time.Time, r io.Reader) (ID, error) {
	ms := t.UnixMilli()
	if ms < 0 || ms >= 1<<48 {
		return ID{}, fmt.Errorf("time %s does not fit an id", t.UTC().Format(time.RFC3339))
	}
	var made ID
	if _, err := io.ReadFull(r, made[6:]); err != nil {
		return ID{}, fmt.Errorf("read randomness for an id: %w", err)
	}
	var head [8]byte
	binary.BigEndian.PutUint64(head[:], uint64(ms)<<16)
	copy(made[:6], head[:6])
	made[6] = made[6]&0x0f | 0x70 // version 7
	made[8] = made[8]&0x3f | 0x80 // variant of RFC 9562
	return made, nil
}

// Parse reads the text form that String writes: 36 characters, lower or upper case. It accepts
// any UUID, so that ids made by others can be carried.
func Parse(s string) (ID, error) {
	if len(s) != TextSize {
		return ID{}, fmt.Errorf("id has %d characters, want %d", len(s), TextSize)
	}
	if s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, fmt.Errorf("id %q is not of the form 8-4-4-4-12", s)
	}
	var parsed ID
	digits := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	if _, err := hex.Decode(parsed[:], []byte(digits)); err != nil {
		return ID{}, fmt.Errorf("id %q: %w", s, err)
	}
	return parsed, nil
}

// String returns the usual text of a UUID: 8-4-4-4-12 lower-case hexadecimal digits.
func (i ID) String() string {
	digits := hex.EncodeToString(i[:])
	return digits[:8] + "-" + digits[8:12] + "-" + digits[12:16] + "-" +
		digits[16:20] + "-" + digits[20:]
}

// Time returns when the id was made, to the millisecond. It means nothing for ids that New or
// NewAt did not make.
func (i ID) Time() time.Time {
	var head [8]byte
	copy(head[2:], i[:6])
	return time.UnixMilli(int64(binary.BigEndian.Uint64(head[:])))
}

// IsZero reports whether i is the zero value, which New never returns.
func (i ID) IsZero() bool { return i == ID{} }

// MarshalText implements encoding.TextMarshaler.
func (i ID) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (i *ID) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*i = parsed
	return nil
}
