package cid_test

import (
	"testing"

	"github.com/united-containers/ucn/kit/cid"
)

// TestBlind: a name is the same for the same key and CID, and differs by either.
func TestBlind(t *testing.T) {
	var store cid.BlindKey
	alice, bob := store.Of([]byte("alice")), store.Of([]byte("bob"))
	one, two := cid.OfFile([32]byte{1}), cid.OfFile([32]byte{2})
	if again := store.Of([]byte("alice")); again != alice || again.Blind(one) != alice.Blind(one) {
		t.Error("a name is not stable")
	}
	seen := map[cid.Blinded]string{}
	for name, b := range map[string]cid.Blinded{
		"alice one": alice.Blind(one), "alice two": alice.Blind(two), "bob one": bob.Blind(one),
		"store one": store.Blind(one), "an image's": alice.Blind(cid.OfOCI([32]byte{1})),
	} {
		if other, twice := seen[b]; twice {
			t.Errorf("%s has the name of %s", name, other)
		}
		seen[b] = name
	}
	// Names outlive releases: whoever kept one must find it again.
	const want = "a0985b2b13dd5699ec53bb89fb584c90"
	if got := alice.Blind(one).String(); got != want {
		t.Errorf("name %s, want %s", got, want)
	}
}
