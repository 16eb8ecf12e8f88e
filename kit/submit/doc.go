// Package submit signs the transactions of one single-key account and brings them to a ledger, in
// order and once.
//
// It promises that an operation list handed to Send is in at most one block, whatever breaks on
// the way: what was signed is sent again until the ledger says what became of it, and is signed
// anew only after the ledger refused it before any block. Concurrent calls travel together: while
// one submission is under way the next ones gather, each in its own transaction.
//
// It does not look into receipts beyond success and failure, and it knows no passphrases.
package submit
