package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
	marketv1 "github.com/united-containers/ucn/proto/ucn/market/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
)

// Bounds of the host commands.
const (
	defaultNotice = 5 * time.Minute
	maxAttempts   = 1000
)

// errNoHost says that the market knows no such host of the wallet.
var errNoHost = errors.New("no offer of such a host stands: it is away, or another operator's; " +
	"`ucn host ls --all` shows all, and --wallet names the operator's wallet")

func (a *app) hostCommand() *cobra.Command {
	cmd := group("host", "Hosts of an operator: look in, choose jobs, drain, evict",
		a.hostList(), a.hostShow(), a.hostPolicy(), a.hostDrain(), a.hostUndrain(), a.hostEvict(),
		a.hostToken())
	cmd.Long = `Look into the hosts of an operator, and tell them what to do. The wallet that acts is
the operator's account; its hosts are reached over the bus, so they need no open port.

On a network that ` + "`ucn up`" + ` started, the operators' keys are in the data folder:

  ucn wallet import alpha ~/.local/share/ucn/operators/alpha.key
  ucn host ls --wallet alpha`
	return cmd
}

func (a *app) hostList() *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the operator's hosts, by their offers",
		Example: "  ucn host ls --wallet alpha\n  ucn host ls --all --json", Args: args(cobra.NoArgs),
		RunE: a.session(withKey, func(ctx context.Context, l *link, _ []string) error {
			hosts := []hostLine{}
			err := eachOffer(ctx, l, func(o *marketv1.Offer) {
				if all || sig.AccountID(o.GetOperator()) == l.Account {
					hosts = append(hosts, hostLineOf(o))
				}
			})
			if err != nil {
				return err
			}
			return a.emit(hosts, func(w io.Writer) { printHosts(w, hosts) })
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "those of other operators, too")
	return cmd
}

// eachOffer passes all offers that stand; those without an operator are nobody's.
func eachOffer(ctx context.Context, l *link, pass func(*marketv1.Offer)) error {
	token := ""
	for range maxPages {
		page, err := l.Scheduler.ListOffers(ctx, &schedulerv1.ListOffersRequest{PageToken: token})
		if err != nil {
			return err
		}
		for _, posted := range page.GetOffers() {
			if o := posted.GetOffer(); len(o.GetOperator()) == len(sig.AccountID{}) {
				pass(o)
			}
		}
		if token = page.GetNextPageToken(); token == "" {
			return nil
		}
	}
	return nil
}

// desk is one host of the wallet, ready to be called.
type desk struct {
	client *bus.Client
	target bus.Target
}

// desk finds a host of the wallet by its name or the beginning of its key, to call it.
func (l *link) desk(ctx context.Context, name string) (*desk, error) {
	offer, err := l.ownHost(ctx, name)
	if err != nil {
		return nil, err
	}
	target, err := l.Host(ctx, offer.GetCertificate())
	if err != nil {
		return nil, err
	}
	client, err := l.Operate(target)
	return &desk{client, target}, err
}

// ownHost finds a host of the wallet by its name or the beginning of its key.
func (l *link) ownHost(ctx context.Context, name string) (*marketv1.Offer, error) {
	var found []*marketv1.Offer
	err := eachOffer(ctx, l, func(o *marketv1.Offer) {
		key := hex.EncodeToString(o.GetExecutor())
		named := o.GetHost() == name || len(name) >= 8 && strings.HasPrefix(key, name)
		if named && sig.AccountID(o.GetOperator()) == l.Account {
			found = append(found, o)
		}
	})
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, fmt.Errorf("%q: %w", name, errNoHost)
	case len(found) > 1:
		return nil, usagef("%q names %d hosts: give the key that `ucn host ls --json` shows", name,
			len(found))
	case len(found[0].GetExecutor()) != len(sig.PublicKey{}):
		return nil, fmt.Errorf("%q: %w", name, errNoHost)
	}
	return found[0], nil
}

func (d *desk) call(ctx context.Context, method string, in, out proto.Message) error {
	return d.client.Call(ctx, d.target, "executor.v1/"+method, in, out)
}

// atHost makes a command's RunE of what is done at the host that its first argument names.
func (a *app) atHost(do func(ctx context.Context, d *desk, list []string) error,
) func(*cobra.Command, []string) error {
	return a.session(withKey, func(ctx context.Context, l *link, list []string) error {
		d, err := l.desk(ctx, list[0])
		if err != nil {
			return err
		}
		return do(ctx, d, list[1:])
	})
}

func (a *app) hostShow() *cobra.Command {
	limit := 20
	cmd := &cobra.Command{
		Use: "show HOST", Short: "Show what a host can do, has free, runs and ran",
		Example: "  ucn host show alpha-1 --wallet alpha", Args: args(cobra.ExactArgs(1)),
		RunE: a.atHost(func(ctx context.Context, d *desk, _ []string) error {
			if limit < 0 || limit > maxAttempts {
				return usagef("--attempts is %d, allowed 0 to %d", limit, maxAttempts)
			}
			host := &executorv1.GetHostResponse{}
			err := d.call(ctx, "GetHost", &executorv1.GetHostRequest{}, host)
			if err != nil {
				return err
			}
			r := hostOf(host)
			in := &executorv1.ListAttemptsRequest{}
			for len(r.Attempts) < limit {
				page := &executorv1.ListAttemptsResponse{}
				in.PageSize = uint32(limit - len(r.Attempts))
				if err := d.call(ctx, "ListAttempts", in, page); err != nil {
					return err
				}
				for _, s := range page.GetAttempts() {
					r.Attempts = append(r.Attempts, hostAttemptOf(s))
				}
				if in.PageToken = page.GetNextPageToken(); in.PageToken == "" {
					break
				}
			}
			return a.emit(r, r.print)
		}),
	}
	cmd.Flags().IntVar(&limit, "attempts", limit, "how many attempts, newest first; at most 1000")
	return cmd
}

func (a *app) hostDrain() *cobra.Command {
	reason, after := "", time.Duration(0)
	cmd := &cobra.Command{
		Use: "drain HOST", Short: "Take no new work; evict what still runs at a deadline",
		Long: `Take no new work. What runs goes on, without --evict-after to its end; with it, it is
told at once when it has to go, so that it can be placed elsewhere before, and is asked to end then.

It survives restarts of the host. Draining again sets a new deadline, but what was told to go
earlier still goes then.`,
		Example: `  ucn host drain alpha-1 --wallet alpha
  ucn host drain alpha-1 --wallet alpha --evict-after 2h --reason "new disks"`,
		Args: args(cobra.ExactArgs(1)),
		RunE: a.atHost(func(ctx context.Context, d *desk, _ []string) error {
			ms, err := spanOf("--evict-after", after)
			if err != nil {
				return err
			}
			out := &executorv1.DrainResponse{}
			err = d.call(ctx, "Drain", &executorv1.DrainRequest{EvictAfterMs: ms, Reason: reason}, out)
			if err != nil {
				return err
			}
			r := drainResult{out.GetAttempts(), out.GetEvictAt()}
			return a.emit(r, r.print)
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "what owners are told, at most 200 bytes")
	cmd.Flags().DurationVar(&after, "evict-after", 0, "evict what still runs then, at most 8784h; "+
		"0 never evicts")
	return cmd
}

func (a *app) hostUndrain() *cobra.Command {
	return &cobra.Command{
		Use: "undrain HOST", Short: "Take new work again; what was told to go still goes",
		Example: "  ucn host undrain alpha-1 --wallet alpha", Args: args(cobra.ExactArgs(1)),
		RunE: a.atHost(func(ctx context.Context, d *desk, _ []string) error {
			out := &executorv1.UndrainResponse{}
			if err := d.call(ctx, "Undrain", &executorv1.UndrainRequest{}, out); err != nil {
				return err
			}
			return a.emit(struct{}{}, func(w io.Writer) { printf(w, "it takes new work\n") })
		}),
	}
}

func (a *app) hostEvict() *cobra.Command {
	reason, notice := "", defaultNotice
	cmd := &cobra.Command{
		Use: "evict HOST ATTEMPT", Short: "End one attempt after a notice",
		Long: `End one attempt after a notice: its owner and its scheduler are told at once, so that
it can be placed elsewhere before. It is paid up to its end; with a notice of less than 10 s only
up to its last signed note. Evicting again can bring the end nearer, not put it off.`,
		Example: "  ucn host evict alpha-1 9f2c... --wallet alpha --notice 10m",
		Args:    args(cobra.ExactArgs(2)),
		RunE: a.atHost(func(ctx context.Context, d *desk, list []string) error {
			id, err := hex.DecodeString(list[0])
			if err != nil || len(id) == 0 {
				return usagef("%.80q is not an attempt as host show prints it", list[0])
			}
			ms, err := spanOf("--notice", notice)
			if err != nil {
				return err
			}
			out := &executorv1.EvictResponse{}
			err = d.call(ctx, "Evict", &executorv1.EvictRequest{
				Attempt: id, NoticeMs: ms, Reason: reason,
			}, out)
			if err != nil {
				return err
			}
			r := evictResult{list[0], out.GetEvictAt()}
			return a.emit(r, r.print)
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "what the owner is told, at most 200 bytes")
	cmd.Flags().DurationVar(&notice, "notice", notice, "time until it is asked to end, at most 24h")
	return cmd
}

func spanOf(flag string, d time.Duration) (uint64, error) {
	if d < 0 {
		return 0, usagef("%s is negative", flag)
	}
	return uint64(d.Milliseconds()), nil
}
