package gateway

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
)

// Lengths of the text forms of 32 bytes. No two are equal, so that the length tells the form.
const (
	hexLength    = 64
	base64Length = 43 // without padding, 44 with
	maxShortID   = 64 // bytes of an id whose length the gateway does not know
)

// ParseID reads a 32-byte id: bech32m with the human-readable part hrp (none if hrp is empty), 64
// hexadecimal digits, or base64url with or without padding. The error is a fault ID_INVALID.
func ParseID(hrp, text string) ([32]byte, error) {
	var raw []byte
	var err error
	switch {
	case len(text) == hexLength:
		raw, err = hex.DecodeString(text)
	case len(text) == base64Length || len(text) == base64Length+1:
		raw, err = decodeBase64(text)
	case hrp != "":
		var parsed [32]byte
		if parsed, err = id.ParseBech32(hrp, text); err == nil {
			return parsed, nil
		}
		err = fmt.Errorf("write it as %s1..., 64 hexadecimal digits or base64url: %w", hrp, err)
	default:
		err = fmt.Errorf("id of %d characters: write it as 64 hexadecimal digits or base64url",
			len(text))
	}
	if err == nil && len(raw) != len([32]byte{}) {
		err = fmt.Errorf("id of %d bytes, want 32", len(raw))
	}
	if err != nil {
		return [32]byte{}, invalidID(err)
	}
	return [32]byte(raw), nil
}

// ParseShortID reads an id of 1 to 64 bytes: an even number of hexadecimal digits, or base64url
// with or without padding. Text that is both is hexadecimal.
func ParseShortID(text string) ([]byte, error) {
	if len(text) > 2*maxShortID {
		return nil, invalidID(fmt.Errorf("id of %d characters", len(text)))
	}
	raw, err := hex.DecodeString(text)
	if err != nil {
		raw, err = decodeBase64(text)
	}
	if err == nil && (len(raw) == 0 || len(raw) > maxShortID) {
		err = fmt.Errorf("id of %d bytes, want 1 to %d", len(raw), maxShortID)
	}
	if err != nil {
		return nil, invalidID(err)
	}
	return raw, nil
}

func decodeBase64(text string) ([]byte, error) {
	return base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(text, "="))
}

func invalidID(err error) error {
	return fault.New(fault.InvalidArgument, ReasonID, "%v", err)
}

// encode writes id bytes as the generated stubs read them.
func encode(raw []byte) string { return base64.URLEncoding.EncodeToString(raw) }
