package disk

// OpenWithHook opens a store that calls hook before each effect on the disk.
func OpenWithHook(cfg Config, hook func(step string) error) (*Disk, error) {
	return open(cfg, func(s step) error { return hook(string(s)) })
}

// AfterCommit is the step at which the effect has already happened.
const AfterCommit = string(stepClaimed)
