package tx

import "errors"

// Limits of a transaction. More is malformed, whatever it says.
const (
	// MaxBody is the longest body in bytes.
	MaxBody = 128 << 10
	// MaxTransaction is the longest transaction in bytes, signatures included.
	MaxTransaction = 132 << 10
	// MaxOperations is the most operations.
	MaxOperations = 1000
	// MaxMemo is the longest memo in bytes.
	MaxMemo = 4 << 10
	// MaxChain is the longest chain id in bytes, that of a UUID.
	MaxChain = 36
	// MaxSubject is the longest subject of an escrow or lease in bytes.
	MaxSubject = 256
	// MaxSettle is the most leases of one Settle.
	MaxSettle = 1000
	// MaxSignatures is the most signatures and keys an account signature carries.
	MaxSignatures = 16
)

// What can be wrong with a message beyond the errors of package canon.
var (
	ErrMissing    = errors.New("is missing")
	ErrZero       = errors.New("is all zero")
	ErrTooLarge   = errors.New("transaction is longer than 132 KiB")
	ErrBodySize   = errors.New("body is longer than 128 KiB")
	ErrOperations = errors.New("a transaction holds 1 to 1,000 operations")
	ErrSettle     = errors.New("a settle names 1 to 1,000 leases")
	ErrSignatures = errors.New("a transaction carries 1 to 16 signatures, of at most 16 keys")
	ErrDelegates  = errors.New("an account has at most 16 delegates")
	ErrAlgorithm  = errors.New("key algorithm is not known")
)
