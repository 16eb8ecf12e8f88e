package id

import (
	"errors"
	"fmt"
	"strings"

	"github.com/btcsuite/btcd/btcutil/bech32"
)

// The human-readable parts of this network's ids, listed once.
const (
	Account = "ucn"
	Escrow  = "ucne"
	Lease   = "ucnl"
	Job     = "ucnj"
)

// MaxBech32 bounds the text that ParseBech32 looks at, in bytes. A 32-byte id takes 59 characters
// and the human-readable part.
const MaxBech32 = 128

// What can be wrong with the text form of an id. ParseBech32 wraps one of these.
var (
	ErrPrefix   = errors.New("wrong kind of id")
	ErrChecksum = errors.New("checksum does not match: a character is mistyped or missing")
	ErrLength   = errors.New("wrong length")
	ErrText     = errors.New("not a bech32m text")
)

// Bech32 returns the bech32m text of a 32-byte id: hrp, "1", 52 characters of data and 6 of
// checksum. The hrp is one of the program's constants; one that BIP 173 forbids panics.
func Bech32(hrp string, raw [32]byte) string {
	groups, err := bech32.ConvertBits(raw[:], 8, 5, true)
	if err != nil {
		panic("id: regroup 32 bytes: " + err.Error())
	}
	if !validPrefix(hrp) {
		panic(fmt.Sprintf("id: %q is no human-readable part", hrp))
	}
	text, err := bech32.EncodeM(hrp, groups)
	if err != nil {
		panic("id: encode bech32m: " + err.Error())
	}
	return text
}

// ParseBech32 reads what Bech32 wrote, in all lower or all upper case. The error says what is
// wrong and wraps ErrPrefix, ErrChecksum, ErrLength or ErrText. Only the one canonical data part
// is accepted: non-zero padding bits and the older bech32 checksum are refused.
func ParseBech32(hrp, text string) ([32]byte, error) {
	if len(text) > MaxBech32 {
		return [32]byte{}, fmt.Errorf("id of %d characters: %w: at most %d",
			len(text), ErrLength, MaxBech32)
	}
	got, groups, version, err := bech32.DecodeNoLimitWithVersion(text)
	if err != nil {
		return [32]byte{}, fmt.Errorf("id %q: %w", text, explain(hrp, text, err))
	}
	if got != hrp {
		return [32]byte{}, fmt.Errorf("id %q: %w: it begins with %q, want %q",
			text, ErrPrefix, got+"1", hrp+"1")
	}
	if version != bech32.VersionM {
		return [32]byte{}, fmt.Errorf("id %q: %w: it uses the older bech32, not bech32m",
			text, ErrChecksum)
	}
	data, err := bech32.ConvertBits(groups, 5, 8, false)
	if err != nil {
		return [32]byte{}, fmt.Errorf("id %q: %w: %w", text, ErrLength, err)
	}
	if len(data) != 32 {
		return [32]byte{}, fmt.Errorf("id %q: %w: it holds %d bytes, want 32",
			text, ErrLength, len(data))
	}
	return [32]byte(data), nil
}

// explain turns the library's errors into ours. A wrong prefix also breaks the checksum, so it is
// looked at first: "you pasted an escrow" helps more than "checksum".
func explain(hrp, text string, err error) error {
	lower := strings.ToLower(text)
	if at := strings.LastIndexByte(lower, '1'); at > 0 && lower[:at] != hrp {
		return fmt.Errorf("%w: it begins with %q, want %q", ErrPrefix, lower[:at+1], hrp+"1")
	}
	var checksum bech32.ErrInvalidChecksum
	var length bech32.ErrInvalidLength
	switch {
	case errors.As(err, &checksum):
		return ErrChecksum
	case errors.As(err, &length):
		return ErrLength
	}
	return fmt.Errorf("%w: %w", ErrText, err)
}

// validPrefix reports whether hrp has 1 to 63 printable ASCII characters, none upper case.
func validPrefix(hrp string) bool {
	return len(hrp) >= 1 && len(hrp) <= 63 && strings.IndexFunc(hrp, func(c rune) bool {
		return c < 33 || c > 126 || c >= 'A' && c <= 'Z'
	}) < 0
}
