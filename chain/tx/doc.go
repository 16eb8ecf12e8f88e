// Package tx holds transactions, leases, notes, the leaves of the state tree and receipts as plain
// Go values, with hand-written canonical encoders and strict decoders: the hot path of a ledger
// touches no generated code and hardly allocates.
//
// Decode refuses what no chain could ever judge: bytes that are not canonical (package canon), ids,
// keys and signatures that are missing, all zero or of another length, and more of anything than
// the limits below allow. Whether an operation makes sense is the state machine's business and ends
// in a receipt.
//
// Absent and zero are one: a zero id stands for an absent field, and nothing may be all zero on
// the wire. So each value has one encoding and each accepted encoding one value. FromPB and PB go
// through the bytes and are for APIs, not for the hot path.
package tx
