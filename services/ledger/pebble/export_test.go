package pebble

// FreeHook makes an index ask free how much space its disk has.
func FreeHook(c Config, free func(dir string) (uint64, error)) Config {
	c.free = free
	return c
}
