package sig

import (
	"container/list"
	"encoding/binary"
	"sync"

	"github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
)

// MaxCachedKeys is the most expanded keys a Verifier keeps, about 210 MB.
const MaxCachedKeys = 1 << 17

// seenSlots is the number of fingerprints that remember keys seen once (2 MiB): several times the
// keys that are cached, so that few are forgotten before they come again.
const seenSlots = 1 << 19

// keyCache keeps the expanded keys used last. A key is expanded (5 us, 1.6 KiB) when it is seen
// the second time, so that keys seen once cost nothing. Bad keys may be in it: the rule refuses
// them at each use.
type keyCache struct {
	max int

	// mu guards what follows; every method takes it, so a lookup is atomic.
	mu   sync.Mutex
	keys map[PublicKey]*list.Element
	used list.List
	seen []uint32
}

type cachedKey struct {
	key      PublicKey
	expanded *ed25519.ExpandedPublicKey
}

func newKeyCache(maxKeys int) *keyCache {
	return &keyCache{
		max:  maxKeys,
		keys: make(map[PublicKey]*list.Element),
		seen: make([]uint32, seenSlots),
	}
}

// get returns the expanded key, or nil if the key is new or no point of the curve.
func (c *keyCache) get(key PublicKey) *ed25519.ExpandedPublicKey {
	if expanded, again := c.find(key); expanded != nil || !again {
		return expanded
	}
	// Expanded outside the lock: two goroutines may do the same work, and both are right.
	expanded, err := ed25519.NewExpandedPublicKey(key[:])
	if err != nil {
		return nil
	}
	c.put(key, expanded)
	return expanded
}

// find looks the key up and reports whether it was seen before.
func (c *keyCache) find(key PublicKey) (expanded *ed25519.ExpandedPublicKey, again bool) {
	slot := binary.LittleEndian.Uint32(key[0:]) % seenSlots
	mark := binary.LittleEndian.Uint32(key[4:])
	c.mu.Lock()
	defer c.mu.Unlock()
	if element, ok := c.keys[key]; ok {
		c.used.MoveToFront(element)
		return element.Value.(*cachedKey).expanded, true
	}
	again = c.seen[slot] == mark
	c.seen[slot] = mark
	return nil, again
}

func (c *keyCache) put(key PublicKey, expanded *ed25519.ExpandedPublicKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.keys[key]; ok {
		return
	}
	if c.used.Len() >= c.max {
		oldest := c.used.Back()
		delete(c.keys, c.used.Remove(oldest).(*cachedKey).key)
	}
	c.keys[key] = c.used.PushFront(&cachedKey{key: key, expanded: expanded})
}
