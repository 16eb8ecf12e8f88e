package cid

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"

	gocid "github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// Kind says what a blob is, and with it which hash names it.
type Kind uint8

const (
	// Unknown is the zero Kind; no blob has it.
	Unknown Kind = iota
	// File is a user's file: raw codec, BLAKE3-256.
	File
	// OCIBlob is an image manifest, image config or layer: raw codec, SHA2-256.
	OCIBlob
	// Directory is the canonical bytes of a tree's node (kit/dir): protobuf codec, BLAKE3-256.
	Directory
)

// String names the kind as the CLI and logs show it.
func (k Kind) String() string {
	switch k {
	case File:
		return "file"
	case OCIBlob:
		return "oci-blob"
	case Directory:
		return "directory"
	default:
		return "unknown"
	}
}

const (
	// SumSize is the length of every hash that names a blob, in bytes.
	SumSize = 32
	// MaxCIDText is the longest text a CID parser looks at, in bytes; ours are 59.
	MaxCIDText = 128

	digestPrefix  = "sha256:"
	codecProtobuf = 0x50 // of the multicodec table
	base32Lower   = 'b'
	binaryCIDSize = 4 + SumSize // version, codec, hash code, length, each one byte
)

// CID is the content identifier of one blob. It is comparable; its zero value names nothing.
type CID struct {
	kind Kind
	sum  [SumSize]byte
}

// OfFile is the CID of a file whose BLAKE3-256 is root.
func OfFile(root [SumSize]byte) CID { return CID{kind: File, sum: root} }

// OfDirectory is the CID of a directory whose canonical bytes have the BLAKE3-256 root.
func OfDirectory(root [SumSize]byte) CID { return CID{kind: Directory, sum: root} }

// OfOCI is the CID of an OCI blob whose SHA2-256 is sum.
func OfOCI(sum [SumSize]byte) CID { return CID{kind: OCIBlob, sum: sum} }

// Parse reads the text form (base32 lower case, "bafk..."). It refuses every other version,
// codec and hash by name with ReasonBad.
func Parse(s string) (CID, error) {
	if s == "" {
		return CID{}, bad("empty")
	}
	if len(s) > MaxCIDText {
		return CID{}, bad("%d bytes, at most %d", len(s), MaxCIDText)
	}
	if strings.HasPrefix(s, "Qm") {
		return CID{}, bad("CIDv0 %q; only CIDv1 raw is held here", s)
	}
	c, err := gocid.Decode(s)
	if err != nil {
		return CID{}, bad("%q: %v", s, err)
	}
	if s[0] != base32Lower {
		return CID{}, bad("%q is not in base32 lower case", s)
	}
	parsed, err := fromLibrary(c)
	if err == nil && parsed.String() != s {
		return CID{}, bad("%q is not in its canonical form", s)
	}
	return parsed, err
}

// FromBytes reads the binary form, exactly 36 bytes.
func FromBytes(b []byte) (CID, error) {
	if len(b) > MaxCIDText {
		return CID{}, bad("%d bytes, at most %d", len(b), MaxCIDText)
	}
	c, err := gocid.Cast(b)
	if err != nil {
		return CID{}, bad("%v", err)
	}
	parsed, err := fromLibrary(c)
	if err == nil && !bytes.Equal(parsed.Bytes(), b) {
		return CID{}, bad("not in its canonical form")
	}
	return parsed, err
}

// ParseDigest reads an OCI digest "sha256:<64 lower case hex digits>".
func ParseDigest(s string) (CID, error) {
	digits, ok := strings.CutPrefix(s, digestPrefix)
	if !ok {
		algorithm, _, _ := strings.Cut(s, ":")
		return CID{}, bad("digest algorithm %.32q; only sha256 is held here", algorithm)
	}
	var sum [SumSize]byte
	if len(digits) != 2*SumSize || strings.ToLower(digits) != digits {
		return CID{}, bad("digest is not 64 lower case hex digits")
	}
	if _, err := hex.Decode(sum[:], []byte(digits)); err != nil {
		return CID{}, bad("digest: %v", err)
	}
	return OfOCI(sum), nil
}

// String is the text form, 59 characters; "" for the zero CID.
func (c CID) String() string {
	if c.IsZero() {
		return ""
	}
	return c.library().String()
}

// Bytes is the binary form, 36 bytes; nil for the zero CID.
func (c CID) Bytes() []byte {
	if c.IsZero() {
		return nil
	}
	return c.library().Bytes()
}

// Kind says what the CID names.
func (c CID) Kind() Kind { return c.kind }

// Sum is the hash inside the CID.
func (c CID) Sum() [SumSize]byte { return c.sum }

// IsZero reports whether c names nothing.
func (c CID) IsZero() bool { return c.kind == Unknown }

// Digest is the OCI digest of an OCI blob, "" for a file.
func (c CID) Digest() string {
	if c.kind != OCIBlob {
		return ""
	}
	return digestPrefix + hex.EncodeToString(c.sum[:])
}

func (c CID) library() gocid.Cid {
	code := byte(multihash.BLAKE3)
	if c.kind == OCIBlob {
		code = multihash.SHA2_256
	}
	codec := uint64(gocid.Raw)
	if c.kind == Directory {
		codec = codecProtobuf
	}
	hash := append(make([]byte, 0, binaryCIDSize), code, SumSize)
	return gocid.NewCidV1(codec, append(hash, c.sum[:]...))
}

func fromLibrary(c gocid.Cid) (CID, error) {
	if c.Version() != 1 {
		return CID{}, bad("CIDv%d; only CIDv1 raw is held here", c.Version())
	}
	if c.Type() != gocid.Raw && c.Type() != codecProtobuf {
		return CID{}, bad("codec %s; only raw and protobuf are held here", codecName(c.Type()))
	}
	hash, err := multihash.Decode(c.Hash())
	if err != nil {
		return CID{}, bad("%v", err)
	}
	kind := kindOf(hash.Code)
	if kind == Unknown {
		return CID{}, bad("hash %s; only blake3 and sha2-256 are held here", hashName(hash.Code))
	}
	if len(hash.Digest) != SumSize {
		return CID{}, bad("%s of %d bytes, not %d", hashName(hash.Code),
			len(hash.Digest), SumSize)
	}
	if c.Type() == codecProtobuf {
		if kind != File {
			return CID{}, bad("a directory of hash %s; only blake3 is held here", hashName(hash.Code))
		}
		kind = Directory
	}
	return CID{kind: kind, sum: [SumSize]byte(hash.Digest)}, nil
}

func kindOf(hash uint64) Kind {
	switch hash {
	case multihash.BLAKE3:
		return File
	case multihash.SHA2_256:
		return OCIBlob
	default:
		return Unknown
	}
}

func codecName(code uint64) string {
	switch code {
	case gocid.DagProtobuf:
		return "dag-pb"
	case gocid.DagCBOR:
		return "dag-cbor"
	case gocid.DagJSON:
		return "dag-json"
	case gocid.Libp2pKey:
		return "libp2p-key"
	case gocid.GitRaw:
		return "git-raw"
	default:
		return fmt.Sprintf("0x%x", code)
	}
}

func hashName(code uint64) string {
	if name, ok := multihash.Codes[code]; ok {
		return name
	}
	return fmt.Sprintf("0x%x", code)
}
