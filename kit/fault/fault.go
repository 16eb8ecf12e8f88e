// Package fault is the error value that a peer can act on.
//
// A Fault says three things that survive every hop between machines: a Kind (what to do about it
// in general; one-to-one with a gRPC code), a stable Reason (what exactly is wrong, for programs)
// and a message (what to do, for people). Errors that are not faults are nobody else's business:
// kit/rpc logs them and lets only an id across.
//
// What is lost by wrapping: nothing locally, but only the innermost fault's own message, metadata
// and retry delay cross the wire. Text added by fmt.Errorf around a fault stays on this machine.
//
// This package imports the standard library only, so that domain packages may name their errors
// without linking a transport. kit/rpc turns faults into gRPC statuses and back.
package fault

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
)

// Bounds of what one fault may carry over a wire. Longer values are cut, further entries dropped.
const (
	MaxMessage = 2048 // bytes of message
	MaxMeta    = 16   // metadata entries
	MaxKey     = 64   // bytes of one metadata key
	MaxValue   = 512  // bytes of one metadata value
	MaxReason  = 63   // bytes of a reason, as google.rpc.ErrorInfo demands
)

// Reason names one exact cause in UPPER_SNAKE_CASE. Reasons are wire constants: once released
// a reason is never renamed or given another meaning. A Reason is an error, so that
// errors.Is(err, ledger.ReasonStaleNonce) works on both sides of a connection.
type Reason string

// Error makes a Reason usable as a target of errors.Is.
func (r Reason) Error() string { return string(r) }

// Valid reports whether r is UPPER_SNAKE_CASE of 1 to MaxReason bytes.
func (r Reason) Valid() bool {
	if len(r) == 0 || len(r) > MaxReason || r[0] < 'A' || r[0] > 'Z' || r[len(r)-1] == '_' {
		return false
	}
	return strings.IndexFunc(string(r), func(c rune) bool {
		return (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_'
	}) < 0
}

// Error is a fault. The zero value is not useful: make one with New. A fault is immutable; With,
// WithRetry and Because return changed copies, so a package-level fault serves as a sentinel.
type Error struct {
	kind    Kind
	reason  Reason
	message string
	meta    map[string]string
	retry   time.Duration
	cause   error
}

// New returns a fault. The message is made by fmt.Sprintf and should say what to do; it crosses
// the wire, so it must hold no secret and no path of this machine. An invalid reason is a
// programming error and panics.
func New(kind Kind, reason Reason, format string, args ...any) *Error {
	if !reason.Valid() {
		panic(fmt.Sprintf("fault: reason %q is not UPPER_SNAKE_CASE", string(reason)))
	}
	message := cut(fmt.Sprintf(format, args...), MaxMessage)
	return &Error{kind: kind.known(), reason: reason, message: message}
}

// Kind returns what to do about the fault in general.
func (e *Error) Kind() Kind { return e.kind }

// Reason returns the exact cause, for programs.
func (e *Error) Reason() Reason { return e.reason }

// Message returns the text for people, without kind, reason or cause.
func (e *Error) Message() string { return e.message }

// Meta returns a copy of the metadata, never nil.
func (e *Error) Meta() map[string]string {
	m := make(map[string]string, len(e.meta))
	maps.Copy(m, e.meta)
	return m
}

// Value returns one metadata value, "" when there is none.
func (e *Error) Value(key string) string { return e.meta[key] }

// Retry returns after how long it makes sense to try again; 0 says nothing about that.
func (e *Error) Retry() time.Duration { return e.retry }

// Error returns message, reason and cause for a local log.
func (e *Error) Error() string {
	text := e.message + " (" + string(e.reason) + ")"
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

// With returns a copy of e with one more metadata entry. Metadata crosses the wire. Beyond
// MaxMeta entries new keys are dropped; keys are cut at MaxKey and values at MaxValue bytes.
func (e *Error) With(key, value string) *Error {
	c := *e
	key = cut(key, MaxKey)
	c.meta = e.Meta()
	if _, replaces := c.meta[key]; replaces || len(c.meta) < MaxMeta {
		c.meta[key] = cut(value, MaxValue)
	}
	return &c
}

// WithRetry returns a copy of e which tells the peer to try again after d.
func (e *Error) WithRetry(d time.Duration) *Error {
	c := *e
	c.retry = max(d, 0)
	return &c
}

// Because returns a copy of e with a local cause. The cause is logged here, found by errors.Is
// and errors.As, and never crosses the wire.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// Unwrap returns the local cause, or nil.
func (e *Error) Unwrap() error { return e.cause }

// Is makes errors.Is match a Kind, a Reason, or another fault of the same kind and reason.
func (e *Error) Is(target error) bool {
	switch t := target.(type) {
	case Kind:
		return e.kind == t
	case Reason:
		return e.reason == t
	case *Error:
		return t != nil && e.kind == t.kind && e.reason == t.reason
	}
	return false
}

// From returns the outermost fault in err's tree, or nil when there is none.
func From(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// KindOf returns the kind of the outermost fault in err's tree, and Internal when there is none.
// KindOf(nil) is OK.
func KindOf(err error) Kind {
	if err == nil {
		return OK
	}
	if e := From(err); e != nil {
		return e.kind
	}
	return Internal
}

// ReasonOf returns the reason of the outermost fault in err's tree, "" when there is none.
func ReasonOf(err error) Reason {
	if e := From(err); e != nil {
		return e.reason
	}
	return ""
}

// cut shortens s to at most n bytes without splitting a character and without invalid UTF-8,
// which protobuf strings refuse.
func cut(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
