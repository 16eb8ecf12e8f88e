package state

import "errors"

// Why a transaction cannot stand in a block. Apply and Check wrap them; a block that holds such a
// transaction is invalid. Signature and key set errors are those of package sig.
var (
	// ErrChain: it names another chain.
	ErrChain = errors.New("transaction is of another chain")
	// ErrSigner: it names a delegate that the account does not have, or no longer.
	ErrSigner = errors.New("the account has no such delegate")
	// ErrSignerEnded: the delegate's until has come.
	ErrSignerEnded = errors.New("the delegate's time is over")
	// ErrNotAllowed: the delegate may not do one of its operations.
	ErrNotAllowed = errors.New("the delegate is not allowed such an operation")
	// ErrLimit: the fee is above what is left of the delegate's limit in this period.
	ErrLimit = errors.New("fee is above what the delegate's limit leaves")
	// ErrNonceOld: its nonce was used; it may be in the chain already.
	ErrNonceOld = errors.New("nonce was used already")
	// ErrNonceFuture: an earlier nonce has not been used yet.
	ErrNonceFuture = errors.New("nonce is ahead of the next one")
	// ErrExpired: the block's time is past valid_until.
	ErrExpired = errors.New("valid_until has passed")
	// ErrTooEarly: valid_until is more than 24 h ahead of the block's time.
	ErrTooEarly = errors.New("valid_until is more than 24 hours ahead")
	// ErrFeeCap: the fee at this block's prices is above the transaction's cap.
	ErrFeeCap = errors.New("fee is above the transaction's cap")
	// ErrCannotPay: neither the sender's balance nor, where allowed, the proceeds cover the fee.
	ErrCannotPay = errors.New("fee cannot be paid")
	// ErrFull: the block has no room for it; a later block may.
	ErrFull = errors.New("block is full")
)

// Why an execution cannot begin.
var (
	// ErrOpen: another execution is open.
	ErrOpen = errors.New("state: another execution is open")
	// ErrContext: height, time or accrual do not follow from the parent.
	ErrContext = errors.New("state: block does not follow its parent")
	// ErrProposer: the proposer's account does not exist.
	ErrProposer = errors.New("state: proposer has no account")
)
