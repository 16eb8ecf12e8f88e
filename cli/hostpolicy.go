package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
)

const (
	maxPolicyTries                   = 3 // when somebody else changes it meanwhile
	reasonPolicyChanged fault.Reason = "POLICY_CHANGED"
)

func (a *app) hostPolicy() *cobra.Command {
	cmd := &cobra.Command{
		Use: "policy HOST", Short: "Show or set whom and what a host does not want",
		Long: `Show whom and what a host does not want. Its rules have two sources, and a job must
pass both: the file (agent.policy of the host's configuration, read when the host starts), and what
was set by command. So a command can narrow what a host takes, at once and from anywhere, but cannot
lift what the file forbids. What runs is not touched by a change.`,
		Example: `  ucn host policy alpha-1 --wallet alpha
  ucn host policy add alpha-1 --wallet alpha --deny-owner ucn1... --reason spam`,
		Args: args(cobra.ExactArgs(1)),
		RunE: a.atHost(func(ctx context.Context, d *desk, _ []string) error {
			host, err := d.host(ctx)
			if err != nil {
				return err
			}
			r := policyOf(host)
			return a.emit(r, r.print)
		}),
	}
	cmd.AddCommand(
		a.changePolicy("set", "Replace what was set by command",
			func(_, given *executorv1.HostPolicy) (*executorv1.HostPolicy, error) {
				if isEmpty(given) {
					return nil, usagef("say what the policy is; `ucn host policy clear` lifts all of it")
				}
				return given, nil
			}),
		a.changePolicy("add", "Add to what was set by command", addPolicy),
		a.changePolicy("rm", "Take away from what was set by command", removePolicy),
		a.changePolicy("clear", "Lift all that was set by command; the file's rules stay",
			func(_, _ *executorv1.HostPolicy) (*executorv1.HostPolicy, error) {
				return &executorv1.HostPolicy{}, nil
			}))
	return cmd
}

func (d *desk) host(ctx context.Context) (*executorv1.GetHostResponse, error) {
	host := &executorv1.GetHostResponse{}
	return host, d.call(ctx, "GetHost", &executorv1.GetHostRequest{}, host)
}

// policyChange makes the new policy of the one in force and what the flags give.
type policyChange func(have, given *executorv1.HostPolicy) (*executorv1.HostPolicy, error)

// policyFlags are the rules that a command names.
type policyFlags struct {
	policy  executorv1.HostPolicy
	longest time.Duration
	anyTime bool
	reason  string
}

func (a *app) changePolicy(verb, short string, change policyChange) *cobra.Command {
	var f policyFlags
	cmd := &cobra.Command{
		Use: verb + " HOST", Short: short,
		Example: "  ucn host policy " + verb + " alpha-1 --wallet alpha" + policyExample(verb),
		Args:    args(cobra.ExactArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			if err := f.check(); err != nil {
				return err
			}
			d, err := l.desk(ctx, list[0])
			if err != nil {
				return err
			}
			r, err := d.setPolicy(ctx, &f, change)
			if err != nil {
				return err
			}
			return a.emit(r, r.print)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.reason, "reason", "", "for your own record, at most 200 bytes")
	if verb == "clear" {
		return cmd
	}
	flags.StringArrayVar(&f.policy.AllowOwners, "allow-owner", nil,
		"take jobs of such accounts (ucn1...) alone; may be repeated")
	flags.StringArrayVar(&f.policy.DenyOwners, "deny-owner", nil,
		"take no jobs of this account; may be repeated")
	flags.StringArrayVar(&f.policy.DenyImages, "deny-image", nil,
		"do not run this image, a CID or sha256:...; may be repeated")
	if verb == "rm" {
		flags.BoolVar(&f.anyTime, "max-run-time", false, "lift the longest run time")
		return cmd
	}
	flags.DurationVar(&f.longest, "max-run-time", 0,
		"take jobs that say they end within such a time, as 2h")
	return cmd
}

func policyExample(verb string) string {
	switch verb {
	case "set":
		return " --allow-owner ucn1... --max-run-time 2h"
	case "clear":
		return ""
	}
	return " --deny-owner ucn1..."
}

// check reads what can be read without the host.
func (f *policyFlags) check() error {
	for flag, owners := range map[string][]string{
		"--allow-owner": f.policy.AllowOwners, "--deny-owner": f.policy.DenyOwners,
	} {
		for _, text := range owners {
			if _, err := id.ParseBech32(id.Account, text); err != nil {
				return usagef("%s: %.100q is no account: %w", flag, text, err)
			}
		}
	}
	ms, err := spanOf("--max-run-time", f.longest)
	f.policy.MaxRunTimeMs = ms
	if f.longest > 0 && ms == 0 {
		return usagef("--max-run-time is %v, at least 1ms", f.longest)
	}
	if f.anyTime {
		f.policy.MaxRunTimeMs = 1 // named, for removePolicy
	}
	return err
}

// setPolicy changes what the host has, and looks again when somebody else changed it meanwhile.
func (d *desk) setPolicy(
	ctx context.Context, f *policyFlags, change policyChange,
) (*policySetResult, error) {
	for try := 1; ; try++ {
		host, err := d.host(ctx)
		if err != nil {
			return nil, err
		}
		policy, err := change(host.GetSetPolicy(), &f.policy)
		if err != nil {
			return nil, err
		}
		out := &executorv1.SetPolicyResponse{}
		err = d.call(ctx, "SetPolicy", &executorv1.SetPolicyRequest{
			Policy: policy, Base: host.GetSetVersion(), Reason: f.reason,
		}, out)
		if err == nil {
			return &policySetResult{out.GetVersion(), out.GetAgainst()}, nil
		}
		if !errors.Is(err, reasonPolicyChanged) || try == maxPolicyTries {
			return nil, err
		}
	}
}

func isEmpty(p *executorv1.HostPolicy) bool {
	return len(p.GetAllowOwners())+len(p.GetDenyOwners())+len(p.GetDenyImages()) == 0 &&
		p.GetMaxRunTimeMs() == 0
}

// addPolicy is have and given together; of run times the given one counts.
func addPolicy(have, given *executorv1.HostPolicy) (*executorv1.HostPolicy, error) {
	if isEmpty(given) {
		return nil, usagef("say what is added, such as --deny-owner")
	}
	join := func(a, b []string) []string {
		out := slices.Clone(a)
		for _, one := range b {
			if !slices.Contains(out, one) {
				out = append(out, one)
			}
		}
		return out
	}
	p := &executorv1.HostPolicy{
		AllowOwners:  join(have.GetAllowOwners(), given.GetAllowOwners()),
		DenyOwners:   join(have.GetDenyOwners(), given.GetDenyOwners()),
		DenyImages:   join(have.GetDenyImages(), given.GetDenyImages()),
		MaxRunTimeMs: have.GetMaxRunTimeMs(),
	}
	if given.GetMaxRunTimeMs() > 0 {
		p.MaxRunTimeMs = given.GetMaxRunTimeMs()
	}
	return p, nil
}

// removePolicy is have without given. What is not there is an error: a mistyped name must not look
// as if it had been lifted.
func removePolicy(have, given *executorv1.HostPolicy) (*executorv1.HostPolicy, error) {
	if isEmpty(given) {
		return nil, usagef("say what is taken away, such as --deny-owner")
	}
	var missing error
	cut := func(flag string, from, names []string) []string {
		out := slices.Clone(from)
		for _, one := range names {
			i := slices.Index(out, one)
			if i < 0 {
				missing = fmt.Errorf("%s %.100q was not set by command: "+
					"`ucn host policy HOST` shows what was", flag, one)
				continue
			}
			out = slices.Delete(out, i, i+1)
		}
		return out
	}
	p := &executorv1.HostPolicy{
		AllowOwners:  cut("--allow-owner", have.GetAllowOwners(), given.GetAllowOwners()),
		DenyOwners:   cut("--deny-owner", have.GetDenyOwners(), given.GetDenyOwners()),
		DenyImages:   cut("--deny-image", have.GetDenyImages(), given.GetDenyImages()),
		MaxRunTimeMs: have.GetMaxRunTimeMs(),
	}
	if missing == nil && len(have.GetAllowOwners()) > 0 && len(p.GetAllowOwners()) == 0 {
		missing = errors.New("without its last allowed owner the host would take anybody's jobs: " +
			"`ucn host policy set` or `clear` says so")
	}
	if given.GetMaxRunTimeMs() > 0 {
		p.MaxRunTimeMs = 0
	}
	return p, missing
}

// policySetResult is what became of a change.
type policySetResult struct {
	Version uint64 `json:"version"`
	Against uint32 `json:"against"`
}

func (r *policySetResult) print(w io.Writer) {
	printf(w, "version %d of the policy is in force\n", r.Version)
	if r.Against > 0 {
		printf(w, "it would decline now: %d of what is here, which goes on; `ucn host evict` ends one\n",
			r.Against)
	}
}

// policyRules are the rules of one source.
type policyRules struct {
	AllowOwners []string `json:"allow_owners"`
	DenyOwners  []string `json:"deny_owners"`
	DenyImages  []string `json:"deny_images"`
	MaxRunTime  uint64   `json:"max_run_time_ms"`
	Entries     uint32   `json:"entries"` // in truth: a list is cut at 1,000
}

// policyResult is whom and what a host does not want: by its file, and by command.
type policyResult struct {
	policyRules
	Set *policyOrder `json:"set_by_command,omitempty"`
}

type policyOrder struct {
	policyRules
	Version uint64 `json:"version"`
	Since   uint64 `json:"since_ms"`
	Reason  string `json:"reason,omitempty"`
}

func policyOf(host *executorv1.GetHostResponse) *policyResult {
	r := &policyResult{policyRules: rulesOf(host.GetPolicy())}
	if v := host.GetSetVersion(); v > 0 {
		r.Set = &policyOrder{
			rulesOf(host.GetSetPolicy()), v, host.GetSetSince(), screen.Clean(host.GetSetReason()),
		}
	}
	return r
}

func rulesOf(p *executorv1.HostPolicy) policyRules {
	clean := func(list []string) []string {
		out := make([]string, len(list))
		for i := range list {
			out[i] = screen.Clean(list[i])
		}
		return out
	}
	return policyRules{
		clean(p.GetAllowOwners()), clean(p.GetDenyOwners()), clean(p.GetDenyImages()),
		p.GetMaxRunTimeMs(), p.GetEntries(),
	}
}

// count is how many rules are shown.
func (p *policyRules) count() int {
	n := len(p.AllowOwners) + len(p.DenyOwners) + len(p.DenyImages)
	if p.MaxRunTime > 0 {
		n++
	}
	return n
}

func (p *policyRules) rows(w io.Writer, source string) {
	list := func(rule string, entries []string) {
		for _, e := range entries {
			printf(w, "%s\t%s\t%s\n", source, rule, e)
		}
	}
	list("only owner", p.AllowOwners)
	list("not owner", p.DenyOwners)
	list("not image", p.DenyImages)
	if p.MaxRunTime > 0 {
		longest := time.Duration(p.MaxRunTime) * time.Millisecond
		printf(w, "%s\trun time\tat most %v\n", source, longest)
	}
	if shown := len(p.AllowOwners) + len(p.DenyOwners) + len(p.DenyImages); int(p.Entries) > shown {
		printf(w, "%s\t...\t%d of %d entries are shown\n", source, shown, p.Entries)
	}
}

func (r *policyResult) print(w io.Writer) {
	rules := r.count()
	if r.Set != nil {
		rules += r.Set.count()
	}
	if rules == 0 {
		printf(w, "it takes anybody's jobs; `ucn host policy add` chooses\n")
	} else {
		printf(w, "SOURCE\tRULE\tVALUE\n")
		r.rows(w, "file")
	}
	if r.Set == nil {
		return
	}
	r.Set.rows(w, "command")
	printf(w, "\nset by command: version %d, since %s", r.Set.Version, stamp(r.Set.Since))
	if r.Set.Reason != "" {
		printf(w, ", %q", r.Set.Reason)
	}
	if r.Set.count() == 0 {
		printf(w, "; it has no rules\n")
		return
	}
	printf(w, "; a job must pass the file's rules as well\n")
}
