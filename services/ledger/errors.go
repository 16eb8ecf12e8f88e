package ledger

import "errors"

// What a block log refuses with. Locally only: none of these crosses the wire.
var (
	// ErrNotLinked: the record is not the next one after the head.
	ErrNotLinked = errors.New("block does not follow the head of the log")
	// ErrNoBlock: the log holds no block of that height.
	ErrNoBlock = errors.New("no such block")
	// ErrBroken: a write failed; the log must be mended, or opened anew.
	ErrBroken = errors.New("block log failed and takes no more blocks")
	// ErrFull: there is no room for the block. It comes with ErrBroken.
	ErrFull = errors.New("no space left for the block log")
	// ErrCorrupt: what the log holds is damaged before its end. Nothing was changed.
	ErrCorrupt = errors.New("block log is damaged")
	// ErrLocked: another process has the log open.
	ErrLocked = errors.New("block log is in use")
	// ErrGenesis: the log belongs to another chain.
	ErrGenesis = errors.New("block log belongs to another genesis")
	// ErrFormat: the log was written by an earlier version, before the first release. Nothing was
	// changed.
	ErrFormat = errors.New("block log is of format 1, which no release ever wrote and this " +
		"version does not read; begin a new one, or use the version that wrote it")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("block log is closed")
)
