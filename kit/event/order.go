package event

import (
	"bytes"
	"fmt"
)

// Follows tells whether e is the envelope that comes next where the cursor stands: nil,
// ErrDuplicate for one that took effect or lies before one that did, ErrForked for a line that
// ended in a proven fork, *GapError, *ForkError or *EpochError. e must be verified.
//
// A cursor without Last stands where its owner forgot what it said (LostError): the next envelope
// cannot be held against the one before.
func (c Cursor) Follows(e *Envelope) error {
	epoch := max(c.Epoch, FirstEpoch)
	switch b := e.Body; {
	case b.Epoch > epoch:
		return &EpochError{Line: e.Line(), Want: epoch, Got: b.Epoch}
	case b.Epoch < epoch:
		return fmt.Errorf("%s, epoch %d: %w", e.Line(), b.Epoch, ErrDuplicate)
	case len(c.Fork) > 0:
		return fmt.Errorf("%s, seq %d: %w", e.Line(), b.Seq, ErrForked)
	case b.Seq == c.Seq && len(c.Last) > 0 && e.Hash != c.Hash:
		return &ForkError{Line: e.Line(), Have: c.Last, Got: e.Raw}
	case b.Seq <= c.Seq:
		return fmt.Errorf("%s, seq %d: %w", e.Line(), b.Seq, ErrDuplicate)
	case b.Seq > c.Seq+1:
		return &GapError{Line: e.Line(), Epoch: epoch, Want: c.Seq + 1, Got: b.Seq}
	case len(c.Last) > 0 && !bytes.Equal(b.Prev, c.Hash[:]):
		return &ForkError{Line: e.Line(), Have: c.Last, Got: e.Raw}
	}
	return nil
}

// at returns the cursor that stands on e.
func at(e *Envelope) Cursor {
	return Cursor{Head: Head{Epoch: e.Body.Epoch, Seq: e.Body.Seq, Hash: e.Hash}, Last: e.Raw}
}
