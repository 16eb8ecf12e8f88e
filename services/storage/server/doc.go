// Package server speaks gRPC (ucn.storage.v1.StorageService) for a storage.Store.
//
// It turns the caller that kit/rpc proved into a session of storage.Access, which alone decides
// what the caller may do, and streams bytes in frames of 256 KiB without holding a blob in memory.
// Spans come from kit/rpc; this package adds the blob's CID and size to them and counts bytes,
// blobs and refusals.
package server
