// Package sig is the one place where this network signs and verifies: ed25519 under the ZIP-215
// rule (https://zips.z.cash/zip-0215), key sets, account ids and the domains that keep one kind
// of signed bytes from being taken for another.
//
// It promises one verdict per (key, bytes, signature), whether checked alone, in a batch, or with
// a cached key: the cofactored equation, S below the group order, any encoding of R, and a public
// key that is canonically encoded and not of small order. Go's crypto/ed25519 judges crafted
// signatures differently; a single call of its Verify would split a chain.
//
// It keeps no keys on disk and reads no random numbers except from the reader handed to
// NewPrivateKey.
package sig
