package event

import (
	"errors"
	"fmt"

	"github.com/united-containers/ucn/kit/cert"
)

// Why an event is refused. Every error of Event.Validate, Decode, Verifier and Consumer wraps one
// of these, or is a *GapError, *ForkError or *EpochError.
var (
	ErrOversized          = errors.New("event is too large")
	ErrNotCanonical       = errors.New("event is not in canonical bytes")
	ErrMalformed          = errors.New("event breaks a rule of its form")
	ErrSubject            = errors.New("event arrived on a subject that is not its own")
	ErrSignature          = errors.New("signature of the event does not verify")
	ErrCertificateUnknown = errors.New("certificate of the instance is not known")
	ErrCertificateInvalid = errors.New("certificate is not valid")
	ErrCertificateExpired = errors.New("certificate was not in force at the time of the event")
	ErrInstance           = errors.New("certificate is of another instance")
	ErrOperator           = errors.New("certificate is of another operator")
	ErrOperatorRefused    = errors.New("events of this operator are not accepted here")
	ErrService            = errors.New("certificate does not allow this service")
	ErrFuture             = errors.New("time of the event is ahead of this clock")
	ErrDuplicate          = errors.New("event was handled before")
	ErrForked             = errors.New("the instance signed two histories: its line ends there")
	ErrProof              = errors.New("this proves no fork")
	ErrEpochInvalid       = errors.New("the new epoch is not the operator's word")
)

// ErrRefused is wrapped by a handler's error when the event can never be handled, however often it
// is tried: its payload makes no sense. The cursor moves past it without effect.
var ErrRefused = errors.New("event refused by its handler")

// ErrFull is returned by Append when MaxQueued events wait.
var ErrFull = errors.New("outbox is full: its events cannot be sent")

// GapError says that envelopes are missing before Got.
type GapError struct {
	Line  Line
	Epoch uint64
	Want  uint64 // the seq that comes next
	Got   uint64 // the seq that came

	// Service and Certificate are of the owner, whom to ask for what is missing. Set by a Consumer.
	Service     string
	Certificate cert.Certificate
}

// Error tells which envelopes are missing.
func (e *GapError) Error() string {
	return fmt.Sprintf("gap in %s: want seq %d of epoch %d, got %d", e.Line, e.Want, e.Epoch, e.Got)
}

// LostError says that the owner itself does not keep what is missing any more.
type LostError struct {
	Gap    *GapError
	Oldest uint64 // the oldest seq that it keeps, or the one that came; more than Gap.Want
}

// Error tells what is lost.
func (e *LostError) Error() string {
	return fmt.Sprintf("%s: the owner keeps nothing before %d", e.Gap, e.Oldest)
}

// ForkError holds two envelopes, both truly signed by the same instance, that contradict each
// other: they have one place, or the second does not name the first as the one before it. It is
// evidence that anybody can check.
type ForkError struct {
	Line Line
	Have []byte // canonical bytes of the envelope that took effect here
	Got  []byte // canonical bytes of the one that contradicts it
	// Evidence is the canonical bytes of a ForkProof, once a Consumer has written it down.
	Evidence []byte
}

// Error names the line.
func (e *ForkError) Error() string {
	return fmt.Sprintf("fork in %s: the instance signed two histories", e.Line)
}

// EpochError says that an envelope belongs to another epoch than the one followed. A new epoch
// needs the operator's signature.
type EpochError struct {
	Line Line
	Want uint64
	Got  uint64
}

// Error tells both epochs.
func (e *EpochError) Error() string {
	return fmt.Sprintf("epoch of %s: want %d, got %d", e.Line, e.Want, e.Got)
}
