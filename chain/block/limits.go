package block

import "errors"

// Limits of a block.
const (
	// MaxValidators is the most validators of a set.
	MaxValidators = 256
	// MaxBody is the longest body in bytes that any chain may allow.
	MaxBody = 48 << 20
	// MaxTransactions is the most transactions of a body.
	MaxTransactions = 1_000_000
	// MaxAllocations is the most allocations of a genesis.
	MaxAllocations = 100_000
	// MaxGenesis is the longest genesis in bytes.
	MaxGenesis = 8 << 20
	// Version is the version of headers that this program writes and knows.
	Version = 1
)

// What can be wrong with a block. Functions of this package wrap these and say with which values.
var (
	ErrTooLarge          = errors.New("too long")
	ErrVersion           = errors.New("header version is not known")
	ErrChain             = errors.New("header is of another chain")
	ErrHeight            = errors.New("height does not follow the parent's")
	ErrPrev              = errors.New("prev is not the parent's hash")
	ErrTime              = errors.New("time is before the parent's")
	ErrAccrual           = errors.New("accrual does not follow the parent's")
	ErrRules             = errors.New("rules version is below the parent's")
	ErrSigners           = errors.New("signers are not the set that the parent named")
	ErrParentCertificate = errors.New("parent certificate is not the one of the header")
	ErrBody              = errors.New("body is not the one of the header")
	ErrCertificateOrder  = errors.New("certificate is not strictly ascending by key")
	ErrCertificateKey    = errors.New("certificate holds a key outside the validator set")
	ErrCertificateFew    = errors.New("certificate holds too few signatures")
	ErrCertificateForged = errors.New("certificate holds a signature that does not verify")
	ErrValidators        = errors.New("validator set is invalid")
	ErrGenesis           = errors.New("genesis is invalid")
	ErrProof             = errors.New("proof does not match")
	ErrTooMany           = errors.New("too many elements")
)
