package registry

import (
	"errors"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/oci"
)

const (
	// ReasonReference: a reference or digest that cannot be read.
	ReasonReference fault.Reason = "BAD_IMAGE_REFERENCE"
	// ReasonDenied: the registry wants credentials, or others.
	ReasonDenied fault.Reason = "REGISTRY_DENIED"
	// ReasonNotFound: the registry has no such image.
	ReasonNotFound fault.Reason = "REGISTRY_IMAGE_NOT_FOUND"
	// ReasonUnavailable: the registry did not answer, or broke off, as often as it was tried.
	ReasonUnavailable fault.Reason = "REGISTRY_UNAVAILABLE"
	// ReasonAddress: an address or scheme that this host does not connect to.
	ReasonAddress fault.Reason = "REGISTRY_ADDRESS_REFUSED"
	// ReasonTooLarge: an image beyond the bounds, packed or unpacked.
	ReasonTooLarge = oci.ReasonTooLarge
	// ReasonMismatch: bytes that are not what their digest and size say.
	ReasonMismatch fault.Reason = "IMAGE_MISMATCH"
)

func refuse(reason fault.Reason, format string, args ...any) error {
	return fault.New(fault.FailedPrecondition, reason, format, args...)
}

// unavailable hides what the network said: it may name addresses of this host's networks.
func unavailable(host string, cause error) error {
	return fault.New(fault.FailedPrecondition, ReasonUnavailable,
		"registry %.100s does not answer, or breaks off", host).Because(cause)
}

// lasting tells a refusal from what another try may mend.
func lasting(err error) bool {
	f := fault.From(err)
	return f != nil && f.Reason() != ReasonUnavailable
}

// asFault returns the fault in err, else one that says the registry is away.
func asFault(host string, err error) error {
	if f := fault.From(err); f != nil {
		return f
	}
	var bad *addressError
	if errors.As(err, &bad) {
		if bad.plain {
			return refuse(ReasonAddress, "registry %.100s leads to an address without TLS, which "+
				"must be allowed by name (--insecure-registry, or registries.insecure of a host)", host)
		}
		return refuse(ReasonAddress, "registry %.100s is at an address of this machine or of a "+
			"private network, which must be allowed (registries.private of a host)", host)
	}
	return unavailable(host, err)
}
