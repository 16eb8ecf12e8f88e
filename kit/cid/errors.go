package cid

import (
	"fmt"

	"github.com/united-containers/ucn/kit/fault"
)

// The reasons this package refuses for: wire constants, found by errors.Is on both sides.
const (
	// ReasonBad: text or bytes that are no CID of ours; the message names the codec or hash.
	ReasonBad fault.Reason = "BAD_CID"
	// ReasonMismatch: bytes that do not hash to the CID they are said to have.
	ReasonMismatch fault.Reason = "CID_MISMATCH"
	// ReasonSlice: a slice that cannot be: of an OCI blob, or with a negative range.
	ReasonSlice fault.Reason = "BAD_SLICE"
	// ReasonPrefix: what is there of a file are not its first bytes.
	ReasonPrefix fault.Reason = "WRONG_PREFIX"
)

func bad(format string, args ...any) error {
	return fault.New(fault.InvalidArgument, ReasonBad, "not a CID this network holds: %s",
		fmt.Sprintf(format, args...))
}

// Mismatch says which CID was expected and which one the bytes have.
func Mismatch(want, got CID) error {
	return fault.New(fault.InvalidArgument, ReasonMismatch,
		"bytes do not match the CID: expected %s, they are %s", want, got)
}

func mismatch(want CID, format string, args ...any) error {
	return fault.New(fault.InvalidArgument, ReasonMismatch, "bytes do not match the CID %s: %s",
		want, fmt.Sprintf(format, args...))
}

// WrongPrefix says that what is there of a blob is something else.
func WrongPrefix(c CID) error {
	return fault.New(fault.InvalidArgument, ReasonPrefix,
		"what is there are not the first bytes of %s", c)
}

func badSlice(format string, args ...any) error {
	return fault.New(fault.InvalidArgument, ReasonSlice, format, args...)
}
