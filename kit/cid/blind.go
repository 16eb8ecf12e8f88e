package cid

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
)

// BlindSize is the length of a blinded CID, in bytes.
const BlindSize = 16

// BlindKey makes names of CIDs that tell nothing to whoever does not hold the key: not which blob
// it is, nor whether two keys' names are of one blob.
type BlindKey [32]byte

// Blinded is such a name.
type Blinded [BlindSize]byte

// String is the name in hex.
func (b Blinded) String() string { return hex.EncodeToString(b[:]) }

// Of returns the key that belongs to an id, such as an account's, of at most 64 bytes. Keys of
// different ids tell nothing about each other.
func (k BlindKey) Of(id []byte) BlindKey {
	return BlindKey(k.mac("ucn/cid/blind/key/v1", id))
}

// Blind returns the name of c.
func (k BlindKey) Blind(c CID) Blinded {
	return Blinded(k.mac("ucn/cid/blind/v1", c.Bytes())[:BlindSize])
}

func (k BlindKey) mac(domain string, data []byte) []byte {
	h := hmac.New(sha256.New, k[:])
	h.Write([]byte(domain)) // the domains are no prefixes of each other with what follows
	h.Write([]byte{0})
	h.Write(data)
	return h.Sum(nil)
}
