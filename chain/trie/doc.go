// Package trie is the authenticated map behind a chain's state root: a sparse Merkle tree over
// 32-byte keys, held in RAM.
//
// Shape: keys are walked from the most significant bit; a subtree that holds a single leaf is
// that leaf, and an empty subtree hashes to 32 zero bytes. Hashes are SHA-256 with domains:
//
//	leaf  = SHA-256(0x00 ‖ key ‖ SHA-256(value))
//	inner = SHA-256(0x01 ‖ left ‖ right)
//
// The root is a function of the map's content alone: the order of updates, their grouping into
// batches and the number of processors never show in it.
//
// A Batch is a speculative update. It copies the paths it touches and leaves every committed
// node as it was, so it can be committed or dropped at no cost to the tree, and reads of the
// committed root may go on beside it. Values are not kept, only their hashes.
//
// The package does not persist anything and does not know what its keys and values mean.
package trie
