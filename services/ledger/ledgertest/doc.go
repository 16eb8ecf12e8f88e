// Package ledgertest holds what tests of ledger implementations share: a contract suite per
// interface, complete in-memory implementations that can be made to fail, and the builders and the
// load generator that tests and benchmarks use.
package ledgertest
