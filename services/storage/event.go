package storage

import (
	"strconv"
	"time"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
)

// What is what happened to a reference.
type What uint8

// What happens to references.
const (
	// RefKept: the account refers to the blob from now on, and its bytes are whole.
	RefKept What = iota + 1
	// RefRemoved: the account ended it.
	RefRemoved
	// RefExpired: it ended by itself.
	RefExpired
	// RefChanged: its pin or expiry changed.
	RefChanged
	// RefDamaged: bytes do not verify any more. They may be put again, which is RefKept.
	RefDamaged
)

// Event tells what happened to one account's reference. A Store tells it in the write that makes
// it so: both are there or neither is.
type Event struct {
	Time    time.Time
	What    What
	Account Account
	// File is the blob's name under the account's own key: events are read by other operators,
	// who shall not learn which bytes an account holds.
	File cid.Blinded
	// Files are the names when one write removed several, 2 to MaxPage of them, ascending. File,
	// Pinned and Expires are zero then.
	Files []cid.Blinded
	// Pinned and Expires are those of the reference, the last ones when it ended.
	Pinned  bool
	Expires time.Time
}

// TooManyEvents refuses a change of an account that changed too much of late: its share is burst
// changes at once and perSecond over time.
func TooManyEvents(again time.Duration, perSecond float64, burst int) error {
	rate := strconv.FormatFloat(perSecond, 'g', -1, 64)
	return fault.New(fault.ResourceExhausted, ReasonEventRate,
		"the account changed too many files of late: try again in %s. Here an account may put, pin "+
			"and remove %d files at once, and then %s a second; removing many in one call counts "+
			"once. Who runs the storage may allow more (event_rate)",
		again.Round(time.Millisecond), burst, rate).
		With("burst", itoa(int64(burst))).With("per_second", rate).WithRetry(again)
}

// Untold says that a change cannot be told of, so that it does not happen.
func Untold(err error) error {
	return fault.New(fault.Unavailable, ReasonUntold,
		"too many events of this service wait for the broker: try again later").Because(err)
}
