package executor

import (
	"context"
	"crypto/rand"
	"fmt"
	"reflect"
	"time"

	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/telemetry"
)

// MaxPolicyEntries bounds each list of a policy that is set by command.
const MaxPolicyEntries = 1000

const saltBytes = 32 // of a PolicySet

// ReasonPolicyChanged: another policy is in force than the one that a change was based on.
const ReasonPolicyChanged fault.Reason = "POLICY_CHANGED"

// PolicySet is the policy that the operator set by command. A job must pass it and the
// configuration's: whoever has an operator's token can narrow what a host takes, and cannot lift
// what its file forbids.
type PolicySet struct {
	Policy  Policy
	Version uint64 // 1 is the first that was set
	Since   time.Time
	Reason  string // for the operator's own record, at most MaxDrainReason bytes
	// Salt is the random key of the hash that the event tells: few enough entries could be guessed.
	Salt []byte
}

// PolicyChange is what others are told of a policy that was set: not whom or what it names.
type PolicyChange struct {
	Time   time.Time
	Policy PolicySet
}

// SetPolicy puts a policy in the place of the one with version base; 0 is none yet. It is on disk,
// with the event that tells of it, when it returns, and counts for questions from then on: one
// whose answer is being written down may still be answered yes. What is here goes on; against tells
// how many of it would not be taken now. Repeating a change that was made is success.
func (a *Agent) SetPolicy(
	ctx context.Context, policy Policy, base uint64, reason string,
) (set PolicySet, against int, err error) {
	if len(reason) > MaxDrainReason {
		return PolicySet{}, 0, badReason(reason)
	}
	r, err := checkSet(&policy)
	if err != nil {
		return PolicySet{}, 0, err
	}
	_, err = a.setState(ctx, func(s *HostState) ([]event.Event, error) {
		if have := s.Set; have != nil && have.Version == base+1 && have.Reason == reason &&
			reflect.DeepEqual(have.Policy, policy) {
			set = *have
			return nil, nil
		}
		if have := s.policyVersion(); have != base {
			return nil, fault.New(fault.FailedPrecondition, ReasonPolicyChanged,
				"version %d is in force, and the change is based on %d: read it and try again", have,
				base)
		}
		salt := make([]byte, saltBytes)
		_, _ = rand.Read(salt)                                           // never fails
		s.Set = &PolicySet{policy, base + 1, a.deps.Now(), reason, salt} // never written into again
		set = *s.Set
		e, err := a.policyEvent(ctx, set)
		return []event.Event{e}, err
	})
	if err != nil {
		return PolicySet{}, 0, err
	}
	for _, t := range a.snapshot() {
		if r.check(&t.ask.Spec) != nil {
			against++
		}
	}
	a.deps.Log.InfoContext(ctx, "the operator set a policy", "version", set.Version,
		"allow_owners", len(policy.AllowOwners), "deny_owners", len(policy.DenyOwners),
		"deny_images", len(policy.DenyImages), "max_run_time", policy.MaxRunTime, "reason", reason)
	return set, against, nil
}

// checkSet reads a policy that is to be set, and refuses it with the field's name.
func checkSet(p *Policy) (rules, error) {
	for name, list := range map[string][]string{
		"allow_owners": p.AllowOwners, "deny_owners": p.DenyOwners, "deny_images": p.DenyImages,
	} {
		if len(list) > MaxPolicyEntries {
			return rules{}, fault.New(fault.InvalidArgument, ReasonBadArgument,
				"policy: %s has %d entries, at most %d", name, len(list), MaxPolicyEntries)
		}
	}
	r, err := p.rules()
	if err != nil {
		return rules{}, fault.New(fault.InvalidArgument, ReasonBadArgument, "policy: %v", err)
	}
	return r, nil
}

func (s *HostState) policyVersion() uint64 {
	if s.Set == nil {
		return 0
	}
	return s.Set.Version
}

// rules reads the policy that was set by command.
func (s *HostState) rules() (rules, error) {
	if s.Set == nil {
		return rules{}, nil
	}
	r, err := s.Set.Policy.rules()
	if err != nil {
		return rules{}, fmt.Errorf("policy version %d: %w", s.Set.Version, err)
	}
	return r, nil
}

func (a *Agent) policyEvent(ctx context.Context, set PolicySet) (event.Event, error) {
	payload, err := a.deps.Encoder.Policy(PolicyChange{Time: set.Since, Policy: set})
	if err != nil {
		return event.Event{}, fmt.Errorf("encode the change of policy: %w", err)
	}
	return event.Event{
		Topic: event.TopicOperator, Type: TypePolicyChanged, Time: set.Since, Payload: payload,
		Traceparent: telemetry.Inject(ctx),
	}, nil
}

// judge declines what the operator does not want, by the file or by command. The caller holds the
// agent's mutex.
func (a *Agent) judge(spec *JobSpec) *Decline {
	if no := a.rules.check(spec); no != nil {
		return no
	}
	return a.set.check(spec)
}
