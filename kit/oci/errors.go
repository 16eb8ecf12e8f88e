package oci

import (
	"fmt"

	"github.com/united-containers/ucn/kit/fault"
)

const (
	// ReasonNotImage: bytes that are no OCI image manifest this network runs.
	ReasonNotImage fault.Reason = "NOT_AN_IMAGE"
	// ReasonBadArchive: an archive or layout that is broken, hostile or beyond the bounds.
	ReasonBadArchive fault.Reason = "BAD_IMAGE_ARCHIVE"
	// ReasonPlatform: an image, or index of images, without one for the platform asked for.
	ReasonPlatform fault.Reason = "IMAGE_PLATFORM"
	// ReasonAmbiguous: an archive with several images and no name that picks one.
	ReasonAmbiguous fault.Reason = "IMAGE_AMBIGUOUS"
	// ReasonTooLarge: an image beyond the bounds, packed or unpacked.
	ReasonTooLarge fault.Reason = "IMAGE_TOO_LARGE"
	// ReasonContent: an image with a file that no engine should make: see Unpacked.
	ReasonContent fault.Reason = "IMAGE_CONTENT"
	// ReasonNoImage: neither a file nor an image of the local podman or docker.
	ReasonNoImage fault.Reason = "IMAGE_NOT_FOUND"
)

// NotImage refuses bytes as an image manifest.
func NotImage(format string, args ...any) error {
	return fault.New(fault.FailedPrecondition, ReasonNotImage, "not an image manifest: %s",
		fmt.Sprintf(format, args...))
}

func badArchive(format string, args ...any) error {
	return fault.New(fault.InvalidArgument, ReasonBadArchive, "cannot read the image archive: %s",
		fmt.Sprintf(format, args...))
}
