// Package storage is the domain of content-addressed files and images: what a Store promises,
// references and quotas of accounts, and who may read or write what.
//
// A blob is named by its content (kit/cid) and by nothing else. An account holds a reference to
// each blob it put; a blob lives as long as somebody refers to it, and whoever refers to it pays
// its full size from the quota. Access is the only way from a caller's token to a Store.
//
// The package does not know disks, gRPC or how tokens are signed: package disk keeps the bytes,
// package server speaks gRPC, package wire puts them together.
package storage
