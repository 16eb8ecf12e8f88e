package tx

import (
	"encoding/binary"
	"encoding/hex"

	"github.com/united-containers/ucn/chain/sig"
)

// Amounts, rates and times. Products of them need 128 bits.
type (
	// Grains is an amount of money; 10^9 grains are 1 UCN.
	Grains uint64
	// GrainsPerHour is a rate.
	GrainsPerHour uint64
	// Millis is a time in ms: since 1970, of the accrual clock, or a length, as its field says.
	Millis uint64
)

// Ids are SHA-256 hashes. All zero stands for none.
type (
	// ID names a transaction: the hash of its signed preimage.
	ID [sig.HashSize]byte
	// EscrowID names an escrow.
	EscrowID [sig.HashSize]byte
	// LeaseID names a lease: the hash of its signed preimage.
	LeaseID [sig.HashSize]byte
	// Hash is any other hash.
	Hash [sig.HashSize]byte
)

// String returns the id in hexadecimal.
func (i ID) String() string { return hex.EncodeToString(i[:]) }

// String returns the id in hexadecimal.
func (i EscrowID) String() string { return hex.EncodeToString(i[:]) }

// String returns the id in hexadecimal.
func (i LeaseID) String() string { return hex.EncodeToString(i[:]) }

// String returns the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// EscrowIDOf returns the id of the escrow that operation number index of a transaction opens.
func EscrowIDOf(transaction ID, index uint32) EscrowID {
	return EscrowID(sig.Hash(sig.DomainEscrow, nil,
		binary.BigEndian.AppendUint32(transaction[:], index)))
}
