package cli

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

func (a *app) recoveryCommand() *cobra.Command {
	cmd := group("recovery", "Keys of friends that can replace yours if you lose them",
		a.recoverySet(), a.recoveryClear(), a.recoveryShow(), a.recoverySign(),
		a.recoverySubmit(), a.recoveryFinish(), a.recoveryCancel())
	cmd.Long = `A recovery set is a set of keys that may put a new key in force for your account,
after a delay in which you can cancel it. It is for lost keys: friends sign (ucn wallet recovery
sign), anyone submits what they signed (submit), and after the delay anyone finishes it (finish).
Whoever has your keys can cancel, so against theft it does not help.`
	return cmd
}

// keySetFlags are a set of keys as flags.
type keySetFlags struct {
	keys      []string
	threshold uint32
}

func (s *keySetFlags) add(cmd *cobra.Command, what string) {
	f := cmd.Flags()
	f.StringArrayVar(&s.keys, "key", nil, "public key or wallet of "+what+"; may be repeated")
	f.Uint32Var(&s.threshold, "threshold", 1, "how many of them must sign")
}

func (a *app) keySet(s *keySetFlags) (sig.KeySet, error) {
	var list []sig.PublicKey
	for _, text := range s.keys {
		key, err := a.keyOf(text)
		if err != nil {
			return sig.KeySet{}, err
		}
		list = append(list, key)
	}
	set, err := sig.NewKeySet(s.threshold, list...)
	if err != nil {
		return set, usagef("--key and --threshold make no key set: %w", err)
	}
	return set, nil
}

func (a *app) recoverySet() *cobra.Command {
	s, delay := keySetFlags{}, time.Duration(0)
	cmd := &cobra.Command{
		Use: "set", Short: "Name the keys that may replace yours, or other ones",
		Example: "  ucn wallet recovery set --key KEY1 --key KEY2 --key KEY3 --threshold 2 --delay 168h",
		Args:    args(cobra.NoArgs),
		RunE: a.session(withKey, func(ctx context.Context, l *link, _ []string) error {
			set, err := a.keySet(&s)
			if err != nil {
				return err
			}
			return a.sendDelegate(ctx, l, &tx.SetRecovery{
				Keys: set, Delay: tx.Millis(max(delay.Milliseconds(), 0)),
			})
		}),
	}
	s.add(cmd, "a friend")
	cmd.Flags().DurationVar(&delay, "delay", 7*24*time.Hour,
		"time in which you can cancel a recovery, 24h to 8784h")
	return a.byDelegate(cmd)
}

func (a *app) recoveryClear() *cobra.Command {
	return a.byDelegate(&cobra.Command{
		Use: "clear", Short: "End the recovery set, and what it has begun",
		Example: "  ucn wallet recovery clear", Args: args(cobra.NoArgs),
		RunE: a.session(withKey, func(ctx context.Context, l *link, _ []string) error {
			return a.sendDelegate(ctx, l, &tx.SetRecovery{})
		}),
	})
}

func (a *app) recoveryCancel() *cobra.Command {
	return a.byDelegate(&cobra.Command{
		Use: "cancel", Short: "Cancel a recovery of your account that is pending",
		Example: "  ucn wallet recovery cancel", Args: args(cobra.NoArgs),
		RunE: a.session(withKey, func(ctx context.Context, l *link, _ []string) error {
			held, err := readSigners(ctx, l, l.Sender.Account())
			if err != nil {
				return err
			}
			if held.Recovery.Pending.IsZero() {
				return errNoRecovery
			}
			return a.sendDelegate(ctx, l, &tx.CancelRecovery{})
		}),
	})
}

// recoveryResult is a recovery set as commands print it.
type recoveryResult struct {
	Account   string   `json:"account"`
	Keys      []string `json:"keys"`
	Threshold uint32   `json:"threshold"`
	Delay     uint64   `json:"delay_ms"`
	Counter   uint64   `json:"counter"`
	Pending   []string `json:"pending_keys,omitempty"`
	// How many of the pending keys will have to sign.
	PendingThreshold uint32 `json:"pending_threshold,omitempty"`
	Due              uint64 `json:"due_accrual_ms,omitempty"`
}

func keyTexts(set sig.KeySet) []string {
	texts := []string{}
	for _, key := range set.Keys {
		texts = append(texts, key.String())
	}
	return texts
}

func (a *app) recoveryShow() *cobra.Command {
	return &cobra.Command{
		Use: "show [ACCOUNT]", Short: "Show an account's recovery set, and what is pending",
		Example: "  ucn wallet recovery show\n  ucn wallet recovery show ucn1... --json",
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
			result := recoveryOf(accountText(account), &held.Recovery)
			return a.emit(result, result.print)
		}),
	}
}

func recoveryOf(account string, r *tx.Recovery) *recoveryResult {
	result := &recoveryResult{
		Account: account, Keys: keyTexts(r.Keys), Threshold: r.Keys.Threshold,
		Delay: uint64(r.Delay), Counter: r.Counter, Due: uint64(r.Due),
	}
	if !r.Pending.IsZero() {
		result.Pending, result.PendingThreshold = keyTexts(r.Pending), r.Pending.Threshold
	}
	return result
}

func (r *recoveryResult) print(w io.Writer) {
	printf(w, "account\t%s\n", r.Account)
	r.printSet(w)
}

func (r *recoveryResult) printSet(w io.Writer) {
	if len(r.Keys) == 0 {
		printf(w, "recovery\tnobody: lost keys are lost money\n")
		return
	}
	printf(w, "recovery\t%d of %d keys, after %s\n", r.Threshold, len(r.Keys),
		time.Duration(r.Delay)*time.Millisecond)
	for _, key := range r.Keys {
		printf(w, "  key\t%s\n", key)
	}
	if len(r.Pending) == 0 {
		return
	}
	printf(w, "pending\tnew keys, of which %d of %d must sign\n", r.PendingThreshold,
		len(r.Pending))
	for _, key := range r.Pending {
		printf(w, "  new key\t%s\n", key)
	}
	printf(w, "can be finished\tfrom %s of the chain's accrual clock\n", stamp(r.Due))
}

func (a *app) recoverySign() *cobra.Command {
	s := keySetFlags{}
	cmd := &cobra.Command{
		Use: "sign ACCOUNT", Short: "Sign, as a friend, that an account gets new keys",
		Long: `Sign with the wallet's key, which must be one of the account's recovery set, that the keys
given shall be in force. Print a text for whoever submits it; each friend signs the same keys.`,
		Example: "  ucn wallet recovery sign ucn1... --key NEWKEY > mine.txt",
		Args:    args(cobra.ExactArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			account, err := parseAccount(list[0])
			if err != nil {
				return err
			}
			set, err := a.keySet(&s)
			if err != nil {
				return err
			}
			held, err := readSigners(ctx, l, account)
			if err != nil {
				return err
			}
			text, err := signRecovery(l, account, set, &held.Recovery)
			if err != nil {
				return err
			}
			result := struct {
				Signed string `json:"signed"`
			}{text}
			return a.emit(result, func(w io.Writer) { printf(w, "%s\n", text) })
		}),
	}
	s.add(cmd, "the account's new set")
	return cmd
}

// signRecovery makes the text of an intent with the wallet's signature.
func signRecovery(l *link, account sig.AccountID, set sig.KeySet, r *tx.Recovery) (string, error) {
	key, err := l.Key()
	if err != nil {
		return "", err
	}
	place := slices.Index(r.Keys.Keys, key.Public())
	if place < 0 {
		return "", fmt.Errorf("the wallet's key is not in the recovery set of %s",
			accountText(account))
	}
	intent := tx.RecoveryIntent{Account: account, Keys: set, Counter: r.Counter}
	signature := key.Sign(intent.Preimage(l.Anchor))
	raw, err := canon.Marshal(&chainv1.Recover{Intent: intent.PB(), Signatures: []*chainv1.Signature{
		{Index: uint32(place), Signature: signature[:]},
	}})
	if err != nil {
		return "", fmt.Errorf("write the intent: %w", err)
	}
	return base64.StdEncoding.EncodeToString(raw), nil
}

// errIntents says that texts do not make one recovery.
var errIntents = errors.New("the texts are of different recoveries: all friends must sign the " +
	"same keys for the same account, after the last recovery ended")

// joinIntents makes one operation of what several friends signed.
func joinIntents(texts []string) (*tx.Recover, error) {
	out := &tx.Recover{}
	for i, text := range texts {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
		m := &chainv1.Recover{}
		if err == nil {
			err = canon.Unmarshal(raw, m)
		}
		if err != nil {
			return nil, usagef("text %d is not what `ucn wallet recovery sign` prints (what a file "+
				"holds is given as \"$(cat FILE)\"): %w", i+1, err)
		}
		intent, err := tx.IntentFromPB(m.GetIntent())
		if err != nil {
			return nil, usagef("text %d: %w", i+1, err)
		}
		if i > 0 && string(intent.Append(nil)) != string(out.Intent.Append(nil)) {
			return nil, usage(errIntents)
		}
		out.Intent = intent
		for _, one := range m.GetSignatures() {
			signature, err := sig.ParseSignature(one.GetSignature())
			if err != nil {
				return nil, usagef("text %d: %w", i+1, err)
			}
			out.Signatures = append(out.Signatures,
				sig.IndexedSignature{Index: one.GetIndex(), Signature: signature})
		}
	}
	slices.SortFunc(out.Signatures, func(x, y sig.IndexedSignature) int {
		return int(x.Index) - int(y.Index)
	})
	return out, nil
}

// trim leaves as many good signatures as the set asks for: the chain wants no more, and would
// charge the fee for refusing them.
func trim(o *tx.Recover, set sig.KeySet, anchor sig.Anchor) error {
	preimage := o.Intent.Preimage(anchor)
	o.Signatures = slices.DeleteFunc(o.Signatures, func(s sig.IndexedSignature) bool {
		return int(s.Index) >= len(set.Keys) ||
			!sig.Verify(set.Keys[s.Index], preimage, s.Signature)
	})
	// Only now, or a bad one in a friend's name could stand for that friend's good one.
	o.Signatures = slices.CompactFunc(o.Signatures, func(x, y sig.IndexedSignature) bool {
		return x.Index == y.Index
	})
	if n := len(o.Signatures); n < int(set.Threshold) || n == 0 {
		return fmt.Errorf("%d good signatures of its friends, %s needs %d (recovery-signature)", n,
			accountText(o.Intent.Account), set.Threshold)
	}
	o.Signatures = o.Signatures[:set.Threshold]
	return nil
}

func (a *app) recoverySubmit() *cobra.Command {
	return &cobra.Command{
		Use: "submit SIGNED...", Short: "Begin a recovery with what friends signed; anyone may",
		Example: "  ucn wallet recovery submit $(cat mine.txt) $(cat theirs.txt)",
		Args:    args(cobra.RangeArgs(1, sig.MaxKeys)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			operation, err := joinIntents(list)
			if err != nil {
				return err
			}
			held, err := readSigners(ctx, l, operation.Intent.Account)
			if err != nil {
				return err
			}
			if at := held.Recovery.Counter; operation.Intent.Counter != at {
				return fmt.Errorf("the texts are of recovery %d of %s, it is at %d by now: sign them "+
					"anew (recovery-counter)", operation.Intent.Counter,
					accountText(operation.Intent.Account), at)
			}
			if err := trim(operation, held.Recovery.Keys, l.Anchor); err != nil {
				return err
			}
			return a.sendDelegate(ctx, l, operation)
		}),
	}
}

func (a *app) recoveryFinish() *cobra.Command {
	return &cobra.Command{
		Use: "finish ACCOUNT", Short: "Put the new keys in force once the delay is over; anyone may",
		Long: `Put the new keys of a pending recovery in force. The account's delegates end. From then
on its new key acts with --as-delegate ACCOUNT:0.`,
		Example: "  ucn wallet recovery finish ucn1...", Args: args(cobra.ExactArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			account, err := parseAccount(list[0])
			if err != nil {
				return err
			}
			if err := finishable(ctx, l, account); err != nil {
				return err
			}
			return a.sendDelegate(ctx, l, &tx.FinishRecovery{Account: account})
		}),
	}
}

// errNoRecovery is told before a transaction is sent that would fail and cost its fee.
var errNoRecovery = errors.New("no recovery of the account is pending (recovery-none)")

// nearlyDue is how far the accrual clock may come with the block that finishes a recovery.
const nearlyDue tx.Millis = 60_000

// finishable refuses what the chain would refuse for a fee.
func finishable(ctx context.Context, l *link, account sig.AccountID) error {
	held, err := readSigners(ctx, l, account)
	if err != nil {
		return err
	}
	if held.Recovery.Pending.IsZero() {
		return errNoRecovery
	}
	chain, err := l.Ledger.GetChain(ctx, &ledgerv1.GetChainRequest{Chain: l.Chain})
	if err != nil {
		return fmt.Errorf("read the chain: %w", err)
	}
	now := tx.Millis(chain.GetAccrual())
	if due := held.Recovery.Due; now != 0 && due > now+nearlyDue {
		return fmt.Errorf("the recovery can be finished in %s, or later if the chain rests "+
			"(recovery-not-due)", (time.Duration(due-now) * time.Millisecond).Round(time.Minute))
	}
	return nil
}
