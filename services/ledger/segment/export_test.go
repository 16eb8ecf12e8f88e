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

// WriteHook makes a log call written with what it writes, and synced before each fdatasync.
func WriteHook(c Config, written func([]byte), synced func() error) Config {
	c.disk = hooked{hook: synced, written: written}
	return c
}

type hooked struct {
	local
	hook     func() error
	reserved func() error
	written  func([]byte)
}

type hookedFile struct {
	file
	hook    func() error
	written func([]byte)
}

func (f hookedFile) WriteAt(b []byte, at int64) (int, error) {
	if f.written != nil {
		f.written(b)
	}
	return f.file.WriteAt(b, at)
}

func (h hooked) open(path string, fresh bool) (file, error) {
	f, err := h.local.open(path, fresh)
	if err != nil || h.hook == nil {
		return f, err
	}
	return hookedFile{f, h.hook, h.written}, nil
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
