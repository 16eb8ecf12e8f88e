package segment

import (
	"fmt"

	"github.com/united-containers/ucn/services/ledger"
)

// CorruptError says where a block log is damaged. It wraps ledger.ErrCorrupt.
type CorruptError struct {
	// File is the segment's path, Offset the byte at which no valid record begins.
	File   string
	Offset int64
	// Why says what was found there.
	Why error
}

// Error names file, offset and what is wrong.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("%v: %s at offset %d: %v; nothing was changed, restore the file from a copy",
		ledger.ErrCorrupt, e.File, e.Offset, e.Why)
}

// Unwrap makes errors.Is(err, ledger.ErrCorrupt) true.
func (e *CorruptError) Unwrap() []error { return []error{ledger.ErrCorrupt, e.Why} }
