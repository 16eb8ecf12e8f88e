package segment

// SyncHook makes a log call hook before each fdatasync of a segment; its error is the sync's.
func SyncHook(c Config, hook func() error) Config {
	c.disk = hooked{hook: hook}
	return c
}

// ReserveHook makes a log call hook before it reserves space; its error is the disk's.
func ReserveHook(c Config, hook func() error) Config {
	c.disk = hooked{reserved: hook}
	return c
}

type hooked struct {
	local
	hook     func() error
	reserved func() error
}

type hookedFile struct {
	file
	hook func() error
}

func (h hooked) open(path string, fresh bool) (file, error) {
	f, err := h.local.open(path, fresh)
	if err != nil || h.hook == nil {
		return f, err
	}
	return hookedFile{f, h.hook}, nil
}

func (h hooked) reserve(f file, size int64) error {
	if h.reserved != nil {
		if err := h.reserved(); err != nil {
			return err
		}
	}
	return h.local.reserve(f, size)
}

func (f hookedFile) Sync() error {
	if err := f.hook(); err != nil {
		return err
	}
	return f.file.Sync()
}
