// Package registry reads images from OCI registries that strangers name and run: it resolves a
// reference to a digest, and streams an image that is pinned by digest as an OCI layout.
//
// It promises that every blob is checked against digest and size while it streams, that manifests,
// layers, bytes as they travel, redirects, tries and time are bounded (what layers unpack to is for
// whoever unpacks them), and that no connection is
// made to an address of this host or its networks unless Options allow it: the address that is
// dialed is judged, after the name was looked up, so redirects, token realms and names that change
// meanwhile are judged too. Credentials go to the registry they name and to the token realm it
// names, over TLS. Nothing is written to disk.
package registry
