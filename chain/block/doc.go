// Package block holds what makes a chain of blocks out of transactions: headers, certificates,
// validator sets, bodies, Merkle lists (RFC 6962) and the genesis, all as plain Go values with
// hand-written canonical bytes.
//
// A header commits to everything else; its hash is the SHA-256 of its signed preimage, and the
// certificate that makes it final stands outside. CheckLink checks a header against its parent,
// Certificate.Verify its signatures, Genesis.Validate what a chain begins with. The package does
// not execute transactions and knows no clock: how far ahead of its own a follower lets a
// header's time be is the follower's business.
package block
