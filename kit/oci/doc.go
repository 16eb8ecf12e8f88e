// Package oci turns container images into blobs to push, and blobs back into an image to load.
//
// Open takes an OCI archive, a docker archive (docker save), an OCI layout directory, or the
// name of an image in the local podman or docker. It yields an OCI manifest and the blobs it
// names, every digest verified, for one platform. A docker image is converted without touching
// config or layers, so the same input gives the same manifest digest on every machine.
// WriteLayout streams the reverse: an OCI archive made of blobs, each verified as it passes.
//
// It pushes nothing, unpacks no layer, talks to no registry, and needs no root.
package oci
