package executor

import (
	"fmt"
	"slices"
	"time"

	"github.com/united-containers/ucn/kit/id"
)

// Policy is whom and what an operator does not want. The zero value wants all.
type Policy struct {
	// AllowOwners are the only accounts (ucn1...) whose jobs are taken; empty is any.
	AllowOwners []string `yaml:"allow_owners"`
	// DenyOwners are accounts whose jobs are not taken.
	DenyOwners []string `yaml:"deny_owners"`
	// DenyImages are images that are not run, as CID or "sha256:..." digest.
	DenyImages []string `yaml:"deny_images"`
	// MaxRunTime is the longest limits.run_time that is taken; with it, jobs that name none are not
	// taken. Zero is any.
	MaxRunTime time.Duration `yaml:"max_run_time"`
}

const maxPolicy = 10_000 // entries of one list

func (p *Policy) validate() error {
	for _, list := range [][]string{p.AllowOwners, p.DenyOwners, p.DenyImages} {
		if len(list) > maxPolicy {
			return fmt.Errorf("a list has %d entries, at most %d", len(list), maxPolicy)
		}
	}
	for _, owner := range slices.Concat(p.AllowOwners, p.DenyOwners) {
		if _, err := id.ParseBech32(id.Account, owner); err != nil {
			return fmt.Errorf("owner %.100q: %w", owner, err)
		}
	}
	if p.MaxRunTime < 0 {
		return fmt.Errorf("max_run_time is negative")
	}
	return nil
}

// check declines what the operator does not want, and says which rule it was.
func (p *Policy) check(spec *JobSpec) *Decline {
	owner := id.Bech32(id.Account, spec.Owner)
	digest, err := spec.Image.Digest()
	switch {
	case len(p.AllowOwners) > 0 && !slices.Contains(p.AllowOwners, owner):
		return declined(DeclinePolicy, "owner: this host runs jobs of chosen accounts alone")
	case slices.Contains(p.DenyOwners, owner):
		return declined(DeclinePolicy, "owner: this host runs no jobs of this account")
	case slices.Contains(p.DenyImages, string(spec.Image)),
		err == nil && slices.Contains(p.DenyImages, digest):
		return declined(DeclinePolicy, "image: this host does not run this image")
	case p.MaxRunTime > 0 && (spec.RunTime == 0 || spec.RunTime > p.MaxRunTime):
		return declined(DeclinePolicy, "limits.run_time_ms: this host takes jobs of at most %v",
			p.MaxRunTime)
	}
	return nil
}

// Policy returns what the configuration says.
func (a *Agent) Policy() Policy { return a.cfg.Policy }
