// Package segment is the block log on local disk: append-only files of hash-linked, checksummed
// records.
//
// A directory holds LOCK, segment files named by their first height (00000000000000000000.log)
// and snapshots. A segment is a header followed by records; space is reserved in advance, so what
// follows the last record of the last segment is zeros. Every record is on disk (fdatasync) before
// Append returns; a new segment is written aside, synced, renamed, and its directory synced, before
// it takes a record.
//
// At start everything is read and verified. An incomplete last record with nothing valid behind it
// is what a crash leaves: it was never acknowledged, so it is cut off and the log says so. Any
// other damage is refused with file and offset (CorruptError), and nothing is changed: restore from
// a copy or from peers. Checksums are CRC-32C. Every segment has a random salt that no other
// file and no wire shows; checksums begin with it and the mark before every record is derived from
// it, so nobody can plant bytes inside a transaction that pass for a record, or that look enough
// like many records to make a start slow.
//
// What it does not do: it looks at no block's meaning, and it never deletes blocks.
package segment
