// Package ledger is the domain of the ledger service: it orders signed transactions into blocks,
// makes the blocks durable, executes them and answers for the state they lead to.
//
// One Chain is one chain of blocks. It takes raw transactions (Submit), checks and keeps them in a
// bounded pool, and is driven by an Orderer from a single goroutine: build, certify, commit. The
// truth is the Store, a block log that is durable before anything is acknowledged; the state lives
// in memory and is rebuilt from a snapshot and the log at every start.
//
// What is promised: a transaction answered as committed is in a block that survives kill -9 and
// power loss, exactly once; conservation of money is checked in every block. What is not: a
// transaction answered as accepted may be lost.
//
// This package holds no wire format, no transport and no file: those are services/ledger/server,
// segment, pebble and solo.
package ledger
