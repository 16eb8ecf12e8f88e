// Package proof builds and verifies the proofs that a ledger hands out: that a transaction stands
// in a certified block with this very receipt, and that an account, escrow or lease had this value
// (or was not there) in the state that a certified header commits to, and that a block is an
// ancestor of a certified one.
//
// A verifier needs no network: the proof's bytes and a Trust, which a genesis gives. Nothing in a
// proof is believed that does not follow from a certificate of the trusted validators over the
// trusted anchor. What it does not prove: that the header is the latest one, or, on a chain with
// one proposer, that there is no second header of the same height.
package proof
