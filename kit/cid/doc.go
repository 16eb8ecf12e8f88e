// Package cid names bytes by their content and checks that bytes are the ones a name promises.
//
// A file is CIDv1 raw + BLAKE3-256; its Bao tree of 16 KiB groups lets a reader check any range
// against the CID alone (Hasher, Tree, DecodeSlice). An OCI blob or image manifest is CIDv1 raw +
// SHA2-256, the same 32 bytes as its OCI digest. The text form is base32 lower case. No other
// version, codec or hash is taken; the refusal names it.
//
// The package does no I/O of its own and knows no storage service. The Bao tree is that of
// https://github.com/oconnor663/bao/blob/master/docs/spec.md with groups of 16 chunks, the same as
// lukechampine.com/blake3/bao with group 4.
package cid
