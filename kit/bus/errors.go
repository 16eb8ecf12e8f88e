package bus

import (
	"errors"
	"fmt"

	"github.com/united-containers/ucn/kit/fault"
)

// Reasons of the faults that this package makes, besides those of kit/rpc for tokens, deadlines,
// rate limits and draining.
const (
	// ReasonNotConnected: nobody listens on the instance's subject.
	ReasonNotConnected fault.Reason = "INSTANCE_NOT_CONNECTED"
	// ReasonSilent: the instance stopped answering in the middle of a stream.
	ReasonSilent fault.Reason = "INSTANCE_SILENT"
	// ReasonBusy: the instance handles as many calls as it may.
	ReasonBusy fault.Reason = "INSTANCE_BUSY"
	// ReasonProofMissing: the request carries neither token nor certificate.
	ReasonProofMissing fault.Reason = "PROOF_MISSING"
	// ReasonProofInvalid: the certificate or the signature of the calling instance is not good.
	ReasonProofInvalid fault.Reason = "PROOF_INVALID"
	// ReasonNotAfter: the request's not_after is too far ahead.
	ReasonNotAfter fault.Reason = "NOT_AFTER_TOO_FAR"
	// ReasonRequestInvalid: the payload is not the method's request message in canonical form.
	ReasonRequestInvalid fault.Reason = "REQUEST_INVALID"
	// ReasonReplyLost: replies of a stream are missing; the error is a *GapError too.
	ReasonReplyLost fault.Reason = "REPLY_LOST"
	// ReasonReplyInvalid: what was truly signed by the instance makes no sense.
	ReasonReplyInvalid fault.Reason = "REPLY_INVALID"
)

// ErrForged is the local cause of a deadline or silence during which replies came that the
// instance did not sign.
var ErrForged = errors.New("replies came that the instance did not sign")

// GapError says that replies of a stream are missing. Ask again from where Last was.
type GapError struct {
	Last uint64 // seq of the last reply received, 0 for none
	Got  uint64 // seq of the one that came after it
}

// Error tells the two seqs.
func (e *GapError) Error() string {
	return fmt.Sprintf("replies are missing between seq %d and %d", e.Last, e.Got)
}

func notConnected(t Target) error {
	return fault.New(fault.Unavailable, ReasonNotConnected,
		"%s is not connected: try again later or choose another", t.Service)
}
