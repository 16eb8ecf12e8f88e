package cli

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/amount"
)

// delegateFlag is --as-delegate: whose delegate the wallet's key is, and which.
type delegateFlag struct {
	account sig.AccountID
	number  uint32
}

// String implements pflag.Value.
func (d *delegateFlag) String() string {
	if d.account.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s:%d", accountText(d.account), d.number)
}

// Type implements pflag.Value.
func (d *delegateFlag) Type() string { return "ACCOUNT:NUMBER" }

// Set implements pflag.Value.
func (d *delegateFlag) Set(text string) error {
	account, number, _ := strings.Cut(text, ":")
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return fmt.Errorf("%q is not ACCOUNT:NUMBER", text)
	}
	if d.account, err = parseAccount(account); err != nil {
		return err
	}
	d.number = uint32(n)
	return nil
}

// byDelegate lets a command act as a delegate.
func (a *app) byDelegate(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().Var(&a.flags.asDelegate, "as-delegate", "act for another account, as its delegate "+
		"of that number (see ucn wallet delegate), or with number 0 by its key set, if that is "+
		"the wallet's key by now")
	return cmd
}

func (a *app) delegateCommand() *cobra.Command {
	cmd := group("delegate", "Keys that may act for your account within limits",
		a.delegateAdd(), a.delegateSet(), a.delegateRemove(), a.delegateList())
	cmd.Long = `A delegate is a key that may do some operations for your account: only those allowed,
up to a limit per period that counts all that leaves the account (fees and deposits included), and
until a date. It can never change keys, delegates or recovery. Give machines a delegate, not your
wallet.`
	return cmd
}

// delegateOptions are the bounds of a delegate as flags.
type delegateOptions struct {
	allow  []string
	limit  amount.Amount
	period time.Duration
	life   time.Duration
}

func (o *delegateOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&o.allow, "allow", nil, "operations: transfer, top-up, charge, settle, "+
		"place-lease, extend, ... (those of ucn wallet history --kind)")
	f.Var(&o.limit, "limit", "the most that may leave the account within a period")
	f.DurationVar(&o.period, "per", 24*time.Hour, "the period, 1m to 8784h")
	f.DurationVar(&o.life, "for", 30*24*time.Hour, "how long it may act from now on")
}

// bounds makes of the flags what the chain wants. Only flags that were given change old bounds.
func (o *delegateOptions) bounds(cmd *cobra.Command, b tx.Bounds, now time.Time) (
	tx.Bounds, error,
) {
	if len(o.allow) > 0 {
		b.Operations = 0
	}
	for _, text := range o.allow {
		kind, err := kindOf("--allow", text)
		if err != nil {
			return b, err
		}
		if !state.Delegable.Has(tx.Kind(kind)) {
			return b, usagef("--allow %s: no delegate may do that, only the account's own keys", text)
		}
		b.Operations |= tx.OperationsOf(tx.Kind(kind))
	}
	if cmd.Flags().Changed("limit") {
		b.Limit = tx.Grains(o.limit)
	}
	if b.Period == 0 || cmd.Flags().Changed("per") {
		b.Period = tx.Millis(max(o.period.Milliseconds(), 0))
	}
	if b.Until == 0 || cmd.Flags().Changed("for") {
		b.Until = tx.Millis(now.Add(max(o.life, 0)).UnixMilli())
	}
	if b.Operations == 0 || b.Limit == 0 {
		return b, usagef("--allow and --limit are needed: what it may do, and how much it may spend")
	}
	return b, nil
}

func (a *app) delegateAdd() *cobra.Command {
	o := delegateOptions{}
	cmd := &cobra.Command{
		Use: "add KEY|WALLET", Short: "Let a key act for your account within limits",
		Long: `Let a key (64 hexadecimal digits, public_key of ucn wallet show) or a wallet of the
data folder act for your account. The receipt names its number, with which it acts:
ucn transfer --wallet robot --as-delegate ACCOUNT:NUMBER ...`,
		Example: "  ucn wallet new robot --no-passphrase\n" +
			"  ucn wallet delegate add robot --allow transfer,top-up --limit 5 --per 24h --for 720h",
		Args: args(cobra.ExactArgs(1)),
	}
	o.add(cmd)
	cmd.RunE = a.session(withKey, func(ctx context.Context, l *link, list []string) error {
		key, err := a.keyOf(list[0])
		if err != nil {
			return err
		}
		b, err := o.bounds(cmd, tx.Bounds{}, l.Now())
		if err != nil {
			return err
		}
		held, err := readSigners(ctx, l, l.Account)
		if err != nil {
			return err
		}
		for _, d := range held.Delegates {
			if d.Key == key {
				a.aside("that key is delegate %d already: it gets a second limit beside that one",
					d.Number)
			}
		}
		return a.sendDelegate(ctx, l, &tx.SetDelegate{Key: key, Bounds: b})
	})
	return cmd
}

func (a *app) sendDelegate(ctx context.Context, l *link, operation tx.Operation) error {
	r, err := l.Sender.Send(ctx, operation)
	return a.printSent(r, err, func(s *submitted) {
		if outcomes := r.Receipt.GetOutcomes(); len(outcomes) > 0 {
			s.Delegate = outcomes[0].GetDelegate()
		}
	})
}

// keyOf reads a public key, or that of a wallet.
func (a *app) keyOf(text string) (sig.PublicKey, error) {
	if raw, err := hex.DecodeString(text); err == nil && len(raw) == sig.PublicKeySize {
		return sig.PublicKey(raw), nil
	}
	w, err := a.wallets().Get(text)
	if err != nil {
		return sig.PublicKey{}, fmt.Errorf("%.80q is neither a public key nor a wallet: %w", text, err)
	}
	return w.Key, nil
}

func (a *app) delegateSet() *cobra.Command {
	o := delegateOptions{}
	cmd := &cobra.Command{
		Use: "set NUMBER", Short: "Change the limits of a delegate; what is not given stays",
		Example: "  ucn wallet delegate set 1 --limit 20 --for 2160h",
		Args:    args(cobra.ExactArgs(1)),
	}
	o.add(cmd)
	cmd.RunE = a.session(withKey, func(ctx context.Context, l *link, list []string) error {
		number, err := delegateNumber(list[0])
		if err != nil {
			return err
		}
		held, err := readSigners(ctx, l, l.Account)
		if err != nil {
			return err
		}
		place, found := held.Find(number)
		if !found {
			return fmt.Errorf("the account has no delegate %d", number)
		}
		d := &held.Delegates[place]
		b, err := o.bounds(cmd, d.Bounds, l.Now())
		if err != nil {
			return err
		}
		return a.sendDelegate(ctx, l, &tx.SetDelegate{Number: number, Key: d.Key, Bounds: b})
	})
	return cmd
}

func delegateNumber(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 {
		return 0, usagef("%.20q is no number of a delegate", text)
	}
	return uint32(n), nil
}

func (a *app) delegateRemove() *cobra.Command {
	return &cobra.Command{
		Use: "rm NUMBER", Short: "End a delegate at once",
		Example: "  ucn wallet delegate rm 1", Args: args(cobra.ExactArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			number, err := delegateNumber(list[0])
			if err != nil {
				return err
			}
			held, err := readSigners(ctx, l, l.Account)
			if err != nil {
				return err
			}
			if _, found := held.Find(number); !found {
				return fmt.Errorf("the account has no delegate %d", number)
			}
			return a.sendDelegate(ctx, l, &tx.RemoveDelegate{Number: number})
		}),
	}
}

// readSigners reads who may act for an account beside its key set, proven: what is changed or
// signed next keeps what is not named, and must not keep what a ledger made up.
func readSigners(ctx context.Context, l *link, account sig.AccountID) (tx.AccountSigners, error) {
	r, _, err := (&proofFlags{}).accountProven(ctx, l, account)
	if err != nil {
		return tx.AccountSigners{}, fmt.Errorf("read who may act for the account: %w", err)
	}
	return r.signers, nil
}

// delegateResult is a delegate as commands print it.
type delegateResult struct {
	Number     uint32        `json:"number"`
	Key        string        `json:"public_key"`
	Operations []string      `json:"operations"`
	Limit      amount.Amount `json:"limit"`
	Period     uint64        `json:"period_ms"`
	Until      uint64        `json:"until_ms"`
	Spent      amount.Amount `json:"spent"`
	Nonce      uint64        `json:"nonce"`
}

func delegatesOf(held *tx.AccountSigners) []delegateResult {
	results := []delegateResult{}
	for _, d := range held.Delegates {
		r := delegateResult{
			Number: d.Number, Key: d.Key.String(), Limit: amount.Amount(d.Limit),
			Period: uint64(d.Period), Until: uint64(d.Until), Spent: amount.Amount(d.Spent),
			Nonce: d.Nonce,
		}
		for i, name := range kindNames() {
			if d.Operations.Has(tx.Kind(i + 1)) {
				r.Operations = append(r.Operations, name)
			}
		}
		results = append(results, r)
	}
	return results
}

func (a *app) delegateList() *cobra.Command {
	return &cobra.Command{
		Use: "ls [ACCOUNT]", Aliases: []string{"list"},
		Short:   "List the delegates of an account, the wallet's by default",
		Example: "  ucn wallet delegate ls\n  ucn wallet delegate ls ucn1... --json",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: a.session(withoutKey, func(ctx context.Context, l *link, list []string) error {
			account, err := a.accountOf(list)
			if err != nil {
				return err
			}
			held, err := readSigners(ctx, l, account)
			if err != nil {
				return err
			}
			results := delegatesOf(&held)
			return a.emit(results, func(w io.Writer) { printDelegates(w, results) })
		}),
	}
}

func printDelegates(w io.Writer, results []delegateResult) {
	if len(results) == 0 {
		printf(w, "nobody else may act for the account (ucn wallet delegate add)\n")
		return
	}
	printf(w, "NUMBER\tLIMIT\tPER\tSPENT\tUNTIL\tMAY\tKEY\n")
	for _, r := range results {
		printf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Number, amount.Text(r.Limit),
			time.Duration(r.Period)*time.Millisecond, amount.Text(r.Spent), stamp(r.Until),
			strings.Join(r.Operations, ","), r.Key)
	}
}
