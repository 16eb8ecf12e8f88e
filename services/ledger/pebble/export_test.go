package pebble

import "github.com/cockroachdb/pebble/v2/vfs"

// FreeHook makes an index ask free how much space its disk has.
func FreeHook(c Config, free func(dir string) (uint64, error)) Config {
	c.free = free
	return c
}

// OnFS puts an index on a file system that has room.
func OnFS(c Config, fs vfs.FS) Config {
	c.fs, c.free = fs, func(string) (uint64, error) { return 1 << 40, nil }
	return c
}
