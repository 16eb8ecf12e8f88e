// Package state is the state transition function of a chain, rules version 1, frozen with the
// first block: accounts, fees, escrows, leases and charges as docs/design/0001-money.md and the
// domain rules say.
//
// It is pure: a step is (state, transactions, block time) -> (state, receipts). No clock, no
// random numbers, no I/O, no order of a map shows in a result, and the number of processors does
// not either.
//
// State holds what is committed. Begin opens an Execution on top of it; Apply runs transactions
// one by one, Finish closes the block with its fees, prices, conservation check and state root,
// and Commit or Drop ends it. A dropped execution leaves no trace, so proposing is free.
//
// A transaction that could not stand in any block (wrong signature, nonce, chain, time, or unable
// to pay its fee) gives an error and leaves no trace. One that fails for an ordinary reason costs
// its fee and nonce, and its Receipt names the reason.
//
// Conservation (accounts + escrows + lockboxes + locks + burned = genesis + minted) is checked
// after every segment from sums that follow the records themselves; a violation panics with the
// figures, because going on would spend money that does not exist.
//
// The package does not keep blocks, order transactions or write to disk.
package state
