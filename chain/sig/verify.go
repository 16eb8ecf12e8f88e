package sig

import (
	"crypto/sha256"
	"encoding/binary"
	"io"

	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
)

// Sizes of a batch in entries. Below MinBatch little is gained over single checks, above MaxBatch
// nothing more; Batch splits what is longer.
const (
	MinBatch = 256
	MaxBatch = 1024
)

// rule is ZIP-215 with its two liberties about public keys taken back: keys of small order and
// keys that are not canonically encoded never verify anything here.
func rule() *ed25519.Options {
	zip215 := *ed25519.VerifyOptionsZIP_215
	zip215.AllowSmallOrderA = false
	zip215.AllowNonCanonicalA = false
	return &ed25519.Options{Verify: &zip215}
}

// Verify reports whether signature is key's signature of the preimage. It uses no cache.
func Verify(key PublicKey, preimage []byte, signature Signature) bool {
	return ed25519.VerifyWithOptions(key[:], preimage, signature[:], rule())
}

// Verifier verifies with a cache of expanded keys. It is safe for use by several goroutines; a
// Batch is not.
type Verifier struct {
	rule  *ed25519.Options
	cache *keyCache
}

// NewVerifier returns a Verifier that caches at most maxKeys expanded keys of about 1.6 KiB each;
// 0 means MaxCachedKeys, and more than MaxCachedKeys is cut to it.
func NewVerifier(maxKeys int) *Verifier {
	if maxKeys <= 0 || maxKeys > MaxCachedKeys {
		maxKeys = MaxCachedKeys
	}
	return &Verifier{rule: rule(), cache: newKeyCache(maxKeys)}
}

// Verify is the function Verify with the cache.
func (v *Verifier) Verify(key PublicKey, preimage []byte, signature Signature) bool {
	expanded := v.cache.get(key)
	if expanded == nil {
		return ed25519.VerifyWithOptions(key[:], preimage, signature[:], v.rule)
	}
	return ed25519.VerifyExpandedWithOptions(expanded, preimage, signature[:], v.rule)
}

// Batch collects signatures and checks them together.
type Batch struct {
	verifier *Verifier
	entries  []batchEntry
	engine   *ed25519.BatchVerifier
}

type batchEntry struct {
	key       PublicKey
	preimage  []byte
	signature Signature
}

// NewBatch returns an empty batch with room for n entries.
func (v *Verifier) NewBatch(n int) *Batch {
	return &Batch{
		verifier: v,
		entries:  make([]batchEntry, 0, n),
		engine:   ed25519.NewBatchVerifierWithCapacity(min(n, MaxBatch)),
	}
}

// Add adds a signature to check and returns its index. The preimage is kept until Verify or
// Reset, not copied.
func (b *Batch) Add(key PublicKey, preimage []byte, signature Signature) int {
	b.entries = append(b.entries, batchEntry{key, preimage, signature})
	return len(b.entries) - 1
}

// Len returns the number of entries.
func (b *Batch) Len() int { return len(b.entries) }

// Reset empties the batch for reuse.
func (b *Batch) Reset() {
	clear(b.entries)
	b.entries = b.entries[:0]
}

// Verify returns one verdict per entry, by index. When a batch holds a bad signature its entries
// are checked one by one under the same rule, so a verdict never depends on its neighbours.
func (b *Batch) Verify() []bool {
	verdicts := make([]bool, 0, len(b.entries))
	for from := 0; from < len(b.entries); from += MaxBatch {
		part := b.entries[from:min(from+MaxBatch, len(b.entries))]
		verdicts = append(verdicts, b.verifyPart(part)...)
	}
	return verdicts
}

func (b *Batch) verifyPart(part []batchEntry) []bool {
	b.engine.Reset()
	if len(part) >= MinBatch {
		b.engine.ForceNoPublicKeyExpansion()
	}
	for i := range part {
		entry := &part[i]
		if expanded := b.verifier.cache.get(entry.key); expanded != nil {
			b.engine.AddExpandedWithOptions(expanded, entry.preimage, entry.signature[:],
				b.verifier.rule)
			continue
		}
		b.engine.AddWithOptions(entry.key[:], entry.preimage, entry.signature[:],
			b.verifier.rule)
	}
	_, verdicts := b.engine.Verify(coefficients(part))
	return verdicts
}

// coefficients derives the batch equation's random coefficients from all that is checked, so that
// nobody can choose signatures that cancel out, and no random source is needed.
func coefficients(part []batchEntry) io.Reader {
	h := sha256.New()
	var length [8]byte
	for i := range part {
		entry := &part[i]
		h.Write(entry.key[:])
		h.Write(entry.signature[:])
		binary.BigEndian.PutUint64(length[:], uint64(len(entry.preimage)))
		h.Write(length[:])
		h.Write(entry.preimage)
	}
	stream := &hashStream{}
	h.Sum(stream.seed[:0])
	return stream
}

// hashStream reads SHA-256(seed || counter) for rising counters.
type hashStream struct {
	seed    [sha256.Size]byte
	counter uint64
}

func (s *hashStream) Read(p []byte) (int, error) {
	read := 0
	for read < len(p) {
		var block [sha256.Size + 8]byte
		copy(block[:], s.seed[:])
		binary.BigEndian.PutUint64(block[sha256.Size:], s.counter)
		s.counter++
		sum := sha256.Sum256(block[:])
		read += copy(p[read:], sum[:])
	}
	return read, nil
}
