// Package storage is the domain of content-addressed files and images: content identifiers, the
// tree that makes any range of a blob verify, references and quotas of accounts, and who may read
// or write what.
//
// It promises that bytes are named by their content and by nothing else. A file is CIDv1 raw +
// BLAKE3-256, whose Bao outboard (16 KiB groups) lets a reader check any range against the CID
// alone. An OCI blob or image manifest is CIDv1 raw + SHA2-256, the same 32 bytes as its OCI digest.
//
// It does not know disks, gRPC or tokens: package disk keeps the bytes, package server speaks gRPC,
// package oci reads and writes image archives, package wire puts them together.
package storage
