package executor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/cid"
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

// rules are a policy as it was read: what can be spelled in several ways is compared by value.
type rules struct {
	allow, deny []sig.AccountID
	images      []cid.CID
	runTime     time.Duration
}

// rules refuses what can match nothing: a rule that is passed over lets everybody in.
func (p *Policy) rules() (rules, error) {
	for _, list := range [][]string{p.AllowOwners, p.DenyOwners, p.DenyImages} {
		if len(list) > maxPolicy {
			return rules{}, fmt.Errorf("a list has %d entries, at most %d", len(list), maxPolicy)
		}
	}
	if p.MaxRunTime < 0 {
		return rules{}, fmt.Errorf("max_run_time is negative")
	}
	r := rules{runTime: p.MaxRunTime}
	var err error
	if r.allow, err = owners(p.AllowOwners); err != nil {
		return rules{}, fmt.Errorf("allow_owners: %w", err)
	}
	if r.deny, err = owners(p.DenyOwners); err != nil {
		return rules{}, fmt.Errorf("deny_owners: %w", err)
	}
	for _, text := range p.DenyImages {
		c, err := imageOf(text)
		if err != nil {
			return rules{}, fmt.Errorf("deny_images: %.150q: %w", text, err)
		}
		r.images = append(r.images, c)
	}
	return r, nil
}

func owners(list []string) ([]sig.AccountID, error) {
	out := make([]sig.AccountID, 0, len(list))
	for _, text := range list {
		owner, err := id.ParseBech32(id.Account, text)
		if err != nil {
			return nil, fmt.Errorf("owner %.100q: %w", text, err)
		}
		out = append(out, owner)
	}
	return out, nil
}

// imageOf reads a CID or a digest.
func imageOf(text string) (cid.CID, error) {
	if strings.Contains(text, ":") {
		return cid.ParseDigest(text)
	}
	c, err := cid.Parse(text)
	if err == nil && c.Kind() != cid.OCIBlob {
		err = fmt.Errorf("it names a %s, no image", c.Kind())
	}
	return c, err
}

// check declines what the operator does not want, and says which rule it was.
func (r *rules) check(spec *JobSpec) *Decline {
	image, err := cid.Parse(string(spec.Image))
	switch {
	case len(r.allow) > 0 && !slices.Contains(r.allow, spec.Owner):
		return declined(DeclinePolicy, "owner: this host runs jobs of chosen accounts alone")
	case slices.Contains(r.deny, spec.Owner):
		return declined(DeclinePolicy, "owner: this host runs no jobs of this account")
	case err == nil && slices.Contains(r.images, image):
		return declined(DeclinePolicy, "image: this host does not run this image")
	case r.runTime > 0 && (spec.RunTime == 0 || spec.RunTime > r.runTime):
		return declined(DeclinePolicy,
			"limits.run_time_ms: this host takes jobs that say they end within %v", r.runTime)
	}
	return nil
}

// Policy returns what the configuration says.
func (a *Agent) Policy() Policy { return a.cfg.Policy }
