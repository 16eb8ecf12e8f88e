package ledger

import (
	"errors"
	"time"

	"github.com/united-containers/ucn/kit/fault"
)

// The reasons this domain refuses for: wire constants, found by errors.Is on both sides. What a
// transaction did inside a block is not among them: that is in its receipt.
const (
	// ReasonMalformed: not the canonical bytes of a transaction; the message says where.
	ReasonMalformed fault.Reason = "MALFORMED"
	// ReasonTooLarge: more bytes than a transaction may have.
	ReasonTooLarge fault.Reason = "TRANSACTION_TOO_LARGE"
	// ReasonWrongChain: it names another chain.
	ReasonWrongChain fault.Reason = "WRONG_CHAIN"
	// ReasonBadSignature: a signature does not verify, or the key set is not the account's.
	ReasonBadSignature fault.Reason = "BAD_SIGNATURE"
	// ReasonNonceOld: the nonce was used, by another transaction.
	ReasonNonceOld fault.Reason = "NONCE_OLD"
	// ReasonNonceFuture: a transaction with a lower nonce is missing.
	ReasonNonceFuture fault.Reason = "NONCE_FUTURE"
	// ReasonNonceTaken: another transaction with this nonce waits.
	ReasonNonceTaken fault.Reason = "NONCE_TAKEN"
	// ReasonExpired: valid_until has passed.
	ReasonExpired fault.Reason = "EXPIRED"
	// ReasonTooFarAhead: valid_until is more than 24 h ahead.
	ReasonTooFarAhead fault.Reason = "VALID_UNTIL_TOO_FAR"
	// ReasonFeeTooLow: the fee cap is below what the next block charges.
	ReasonFeeTooLow fault.Reason = "FEE_TOO_LOW"
	// ReasonCannotPay: the account does not exist or cannot pay the fee.
	ReasonCannotPay fault.Reason = "CANNOT_PAY"
	// ReasonSigner: it names a delegate that the account does not have.
	ReasonSigner fault.Reason = "SIGNER_UNKNOWN"
	// ReasonSignerEnded: the delegate's until has come.
	ReasonSignerEnded fault.Reason = "SIGNER_ENDED"
	// ReasonNotAllowed: the delegate may not do one of the operations.
	ReasonNotAllowed fault.Reason = "OPERATION_NOT_ALLOWED"
	// ReasonSignerLimit: the fee alone is above what the delegate's limit leaves.
	ReasonSignerLimit fault.Reason = "SIGNER_LIMIT"
	// ReasonDropped: an earlier submission of the same was dropped; submit it again.
	ReasonDropped fault.Reason = "DROPPED"
	// ReasonPoolFull: too many transactions wait, altogether or of this account.
	ReasonPoolFull fault.Reason = "POOL_FULL"
	// ReasonBatch: no or too many transactions in one request.
	ReasonBatch fault.Reason = "BAD_BATCH"
	// ReasonChainUnknown: this ledger holds no such chain.
	ReasonChainUnknown fault.Reason = "CHAIN_UNKNOWN"
	// ReasonChainStopped: the chain takes nothing because its storage failed, or it is shutting down.
	ReasonChainStopped fault.Reason = "CHAIN_STOPPED"
	// ReasonDiskFull: the chain takes nothing because its disk is full; it goes on by itself once
	// there is room.
	ReasonDiskFull fault.Reason = "DISK_FULL"
	// ReasonWaste: the account, the peer or many accounts together caused too much work that came to
	// nothing: bad signatures, and charges that pay nothing.
	ReasonWaste fault.Reason = "WASTE_LIMIT"
	// ReasonNotFound: no such transaction, block, escrow or lease.
	ReasonNotFound fault.Reason = "LEDGER_NOT_FOUND"
	// ReasonNoIndex: this ledger keeps no index, so it cannot list histories.
	ReasonNoIndex fault.Reason = "NO_INDEX"
	// ReasonBadPageToken: the page token is damaged, or of another query.
	ReasonBadPageToken fault.Reason = "BAD_PAGE_TOKEN"
	// ReasonTooManyWatchers: too many streams of blocks are open, altogether or of this address.
	ReasonTooManyWatchers fault.Reason = "TOO_MANY_WATCHERS"
	// ReasonGaveWay: a stream of blocks ended for another's, whose address had fewer.
	ReasonGaveWay fault.Reason = "WATCH_GAVE_WAY"
	// ReasonStalled: the reader of a stream of blocks took nothing for too long.
	ReasonStalled fault.Reason = "WATCH_STALLED"
	// ReasonBadRequest: an id of the wrong length, or an argument that makes no sense.
	ReasonBadRequest fault.Reason = "BAD_LEDGER_REQUEST"
	// ReasonNotKept: what was true after that block is no longer kept, or not proven.
	ReasonNotKept fault.Reason = "HEIGHT_NOT_KEPT"
	// ReasonNoFaucet: this chain or ledger has no faucet.
	ReasonNoFaucet fault.Reason = "NO_FAUCET"
	// ReasonFaucetUsed: the account has got the faucet's amount before.
	ReasonFaucetUsed fault.Reason = "FAUCET_USED"
	// ReasonLag: the index has not come far enough to answer; try again. Of a transaction that was
	// submitted: it may be in a block; submitting the same bytes again tells.
	ReasonLag fault.Reason = "INDEX_LAGS"
)

func malformed(cause error) *fault.Error {
	return fault.New(fault.InvalidArgument, ReasonMalformed,
		"not a canonical transaction: %v", cause)
}

func badSignature(chain string, cause error) *fault.Error {
	return fault.New(fault.InvalidArgument, ReasonBadSignature,
		"not signed by the account on this chain: %v; the bytes were altered, the key is another, "+
			"or it was signed for another network whose chain is %q too", cause, chain)
}

func dropped() *fault.Error {
	return fault.New(fault.Aborted, ReasonDropped,
		"it waited for a block and was dropped; submit it again to learn why")
}

func nonceOld(nonce, next uint64) *fault.Error {
	return fault.New(fault.FailedPrecondition, ReasonNonceOld,
		"nonce %d was used; the next one is %d", nonce, next)
}

func nonceFuture(nonce, next uint64) *fault.Error {
	return fault.New(fault.FailedPrecondition, ReasonNonceFuture,
		"nonce %d comes too early; the next one is %d", nonce, next)
}

func nonceTaken(nonce uint64) *fault.Error {
	return fault.New(fault.Aborted, ReasonNonceTaken,
		"another transaction with nonce %d waits for its block; it is not replaced", nonce)
}

func poolFull(what string) *fault.Error {
	return fault.New(fault.ResourceExhausted, ReasonPoolFull,
		"too many transactions wait: %s", what).WithRetry(poolRetry)
}

// untold is the refusal of a transaction that may be in a block, which cannot be looked up now.
func untold(cause error) *fault.Error {
	if known := fault.From(cause); known != nil {
		return known
	}
	return fault.New(fault.Unavailable, ReasonLag,
		"whether it is in a block cannot be told now; submit the same bytes again").
		Because(cause).WithRetry(lagRetry)
}

func stopped(cause error) *fault.Error {
	if errors.Is(cause, errEnded) {
		return fault.New(fault.Unavailable, ReasonChainStopped,
			"this ledger is shutting down; submit the same bytes again when it is back").
			Because(cause)
	}
	if errors.Is(cause, ErrFull) {
		return fault.New(fault.Unavailable, ReasonDiskFull,
			"this ledger's disk is full; it goes on by itself once its operator has made room: "+
				"submit the same bytes again then").
			Because(cause).WithRetry(mendRetry)
	}
	return fault.New(fault.Unavailable, ReasonChainStopped,
		"this chain takes no transactions: its storage failed and the operator must look; "+
			"submit the same bytes again when it is back").
		Because(cause).WithRetry(mendRetry)
}

// mendRetry is what a caller is told to wait while the storage is broken.
const mendRetry = 5 * time.Second
