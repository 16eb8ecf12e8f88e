package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/wallet"
	"github.com/united-containers/ucn/kit/keys"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// walletResult is a wallet as commands print it.
type walletResult struct {
	Name      string         `json:"name"`
	Account   string         `json:"account"`
	Key       string         `json:"public_key"`
	Encrypted bool           `json:"encrypted"`
	Balance   *amount.Amount `json:"balance,omitempty"`
	Locked    *amount.Amount `json:"locked,omitempty"`
	File      string         `json:"file,omitempty"`
}

func (a *app) walletCommand() *cobra.Command {
	return group("wallet", "Keys that hold your money",
		a.walletNew(), a.walletList(), a.walletShow(), a.walletBalance(), a.walletExport(),
		a.walletImport(), a.walletFaucet(), a.delegateCommand(),
		a.recoveryCommand(),
		a.history("history", "  ucn wallet history\n  ucn wallet history --received --since 24h"))
}

// named returns the wallet of the argument, or else the one that acts.
func (a *app) named(list []string) (string, error) {
	if len(list) > 0 {
		return list[0], nil
	}
	return a.walletName()
}

func (a *app) resultOf(w wallet.Wallet) walletResult {
	path, _ := a.wallets().Path(w.Name) // the name was accepted before
	return walletResult{
		Name: w.Name, Account: accountText(w.Account), Key: w.Key.String(),
		Encrypted: w.Encrypted, File: path,
	}
}

func (r walletResult) print(w io.Writer) {
	kind := "plain: whoever reads the file has the money"
	if r.Encrypted {
		kind = "encrypted with a passphrase"
	}
	printf(w, "wallet\t%s\naccount\t%s\nfile\t%s (%s)\n", r.Name, r.Account, r.File, kind)
	if r.Balance != nil {
		printf(w, "balance\t%s\n", amount.Text(*r.Balance))
	}
}

func (a *app) walletNew() *cobra.Command {
	plain := false
	cmd := &cobra.Command{
		Use: "new [NAME]", Short: "Make a wallet with a new key",
		Long: `Make a wallet: a new ed25519 key in a file of the data folder, encrypted with a passphrase
that is asked for twice. The key is the money: keep a copy (ucn wallet export) and the passphrase.`,
		Example: "  ucn wallet new savings\n  ucn wallet new robot --no-passphrase",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, list []string) error {
			name, err := a.named(list)
			if err != nil {
				return err
			}
			if path, err := a.wallets().Path(name); err != nil {
				return usage(err)
			} else if _, err := os.Lstat(path); err == nil {
				return fmt.Errorf("wallet %q: %w", name, wallet.ErrExists) // before asking
			}
			secret, err := a.newPassphrase(plain, fmt.Sprintf("wallet %q", name))()
			if err != nil {
				return err
			}
			made, err := a.wallets().Create(name, secret)
			if err != nil {
				return err
			}
			result := a.resultOf(made)
			return a.emit(result, result.print)
		},
	}
	cmd.Flags().BoolVar(&plain, "no-passphrase", false, "keep the key unencrypted, for machines")
	return cmd
}

func (a *app) walletList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the wallets of the data folder",
		Example: "  ucn wallet list --json", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			list, broken := a.wallets().List()
			results := []walletResult{}
			for _, w := range list {
				results = append(results, a.resultOf(w))
			}
			err := a.emit(results, func(w io.Writer) {
				printf(w, "NAME\tKEY FILE\tACCOUNT\n")
				for _, r := range results {
					file := "plain"
					if r.Encrypted {
						file = "encrypted"
					}
					printf(w, "%s\t%s\t%s\n", r.Name, file, r.Account)
				}
			})
			return errors.Join(err, broken)
		},
	}
}

func (a *app) walletShow() *cobra.Command {
	return &cobra.Command{
		Use: "show [NAME]", Short: "Show a wallet's account, without its passphrase",
		Example: "  ucn wallet show\n  ucn wallet show savings --json",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, list []string) error {
			name, err := a.named(list)
			if err != nil {
				return err
			}
			w, err := a.wallets().Get(name)
			if err != nil {
				return err
			}
			result := a.resultOf(w)
			return a.emit(result, result.print)
		},
	}
}

func (a *app) walletBalance() *cobra.Command {
	return &cobra.Command{
		Use: "balance [NAME]", Short: "Show what a wallet holds on the chain",
		Example: "  ucn wallet balance\n  ucn wallet balance savings --json",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: a.session(withoutKey, func(ctx context.Context, l *link, list []string) error {
			name, err := a.named(list)
			if err != nil {
				return err
			}
			w, err := a.wallets().Get(name)
			if err != nil {
				return err
			}
			answer, err := l.Ledger.GetAccount(ctx, &ledgerv1.GetAccountRequest{
				Chain: l.Chain, Account: w.Account[:],
			})
			if err != nil {
				return fmt.Errorf("read the balance: %w", err)
			}
			balance := amount.Amount(answer.GetAccount().GetBalance())
			locked := amount.Amount(answer.GetAccount().GetLock())
			result := a.resultOf(w)
			result.Balance, result.Locked = &balance, &locked
			return a.emit(result, func(w io.Writer) {
				if a.flags.quiet {
					printf(w, "%s\n", balance)
					return
				}
				result.print(w)
			})
		}),
	}
}

func (a *app) walletExport() *cobra.Command {
	plain, out := false, ""
	cmd := &cobra.Command{
		Use: "export [NAME]", Short: "Print or save a copy of a wallet's key",
		Long: `Print the text of a wallet's key, or save it to a new file with mode 0600. It is encrypted
with a passphrase, which may be another than the wallet's.`,
		Example: "  ucn wallet export savings -o savings.backup",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, list []string) error {
			name, err := a.named(list)
			if err != nil {
				return err
			}
			text, err := a.wallets().Export(name, a.passphrase(name),
				a.newPassphrase(plain, "the copy"))
			if err != nil {
				return err
			}
			if out != "" {
				if err := keys.Create(out, text); err != nil {
					return fmt.Errorf("save the copy: %w", err)
				}
				return nil
			}
			result := struct {
				Name string `json:"name"`
				Key  string `json:"key"`
			}{name, string(text)}
			return a.emit(result, func(w io.Writer) { printf(w, "%s", text) })
		},
	}
	cmd.Flags().BoolVar(&plain, "no-passphrase", false, "do not encrypt the copy")
	cmd.Flags().StringVarP(&out, "output", "o", "", "new file to save it to, instead of printing")
	return cmd
}

func (a *app) walletImport() *cobra.Command {
	plain := false
	cmd := &cobra.Command{
		Use: "import NAME FILE|-", Short: "Keep a key that was exported, under a free name",
		Example: "  ucn wallet import savings savings.backup",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(_ *cobra.Command, list []string) error {
			text, err := a.readSmall(list[1], keys.MaxText)
			if err != nil {
				return err
			}
			w, err := a.wallets().Import(list[0], text, a.passphrase(list[0]),
				a.newPassphrase(plain, fmt.Sprintf("wallet %q", list[0])))
			if err != nil {
				return err
			}
			result := a.resultOf(w)
			return a.emit(result, result.print)
		},
	}
	cmd.Flags().BoolVar(&plain, "no-passphrase", false, "keep the key unencrypted, for machines")
	return cmd
}

// readSmall reads a file, or standard input for "-", of at most limit bytes.
func (a *app) readSmall(path string, limit int64) (text []byte, err error) {
	from := a.In
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }() // only read
		from = file
	}
	text, err = io.ReadAll(io.LimitReader(from, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s is longer than %d bytes", path, limit)
	}
	return text, err
}

func (a *app) walletFaucet() *cobra.Command {
	return &cobra.Command{
		Use: "faucet", Short: "Get a wallet its first money on a local network, once",
		Example: "  ucn wallet faucet --wallet robot", Args: args(cobra.NoArgs),
		RunE: a.session(withKey, func(ctx context.Context, l *link, _ []string) error {
			answer, err := l.Ledger.RequestFaucet(ctx, &ledgerv1.RequestFaucetRequest{
				Chain: l.Chain,
			})
			if err != nil {
				return err
			}
			return a.printSubmitted(answer.GetResult(), func(r *submitted) {
				r.Amount = amountOf(answer.GetAmount())
			})
		}),
	}
}

func amountOf[T ~uint64](grains T) *amount.Amount {
	a := amount.Amount(grains)
	return &a
}
