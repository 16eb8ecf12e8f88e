package job

import (
	"encoding/base32"
	"encoding/hex"
	"strings"

	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

// MaxReference bounds an image reference, in bytes.
const MaxReference = 512

// cidHead is what stands before the hash in a CIDv1 (raw, sha2-256) of 32 bytes.
const cidHead = "\x01\x55\x12\x20"

// ImageCID returns the CID of the manifest or index that a checked image means: the one it names,
// or that of the digest to which its reference was resolved. Empty when it means none.
func ImageCID(m *jobv1.Image) string {
	if m.GetReference() == "" {
		return m.GetCid()
	}
	text, ok := strings.CutPrefix(m.GetDigest(), "sha256:")
	sum, err := hex.DecodeString(text)
	if !ok || err != nil || len(sum) != 32 || text != strings.ToLower(text) {
		return ""
	}
	encoding := base32.StdEncoding.WithPadding(base32.NoPadding)
	return "b" + strings.ToLower(encoding.EncodeToString(append([]byte(cidHead), sum...)))
}

// checkImage wants a CID, or a reference with its digest.
func checkImage(m *jobv1.Image) error {
	switch {
	case m.GetReference() == "" && m.GetDigest() != "":
		return invalid("image.digest", "names no registry: say image.reference, too")
	case m.GetReference() == "" && m.GetCid() == "":
		return invalid("image.cid", "is missing")
	case m.GetReference() == "" && !validCID(m.GetCid(), hashSHA256):
		return invalid("image.cid", "%.80q is not a CIDv1 (raw, sha2-256) in base32", m.GetCid())
	case m.GetReference() == "":
		return nil
	case m.GetCid() != "":
		return invalid("image.reference", "stands beside image.cid: an image has one source")
	case len(m.GetReference()) > MaxReference || !printable(m.GetReference()):
		return invalid("image.reference", "must be 1 to %d printable characters", MaxReference)
	case ImageCID(m) == "":
		return invalid("image.digest", "must be \"sha256:\" and 64 hex digits that the reference "+
			"was resolved to")
	}
	return nil
}

// printable tells whether s is ASCII without spaces and control characters.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
}
