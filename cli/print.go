package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/id"
)

// emit prints a result: as JSON, or by text for people.
func (a *app) emit(v any, text func(w io.Writer)) error {
	if a.flags.json {
		return a.emitJSON(v)
	}
	w := screen.NewTable(a.Out, a.Columns(a.Out))
	text(w)
	return w.Flush()
}

// emitJSON prints what programs read, with --json or without.
func (a *app) emitJSON(v any) error {
	encoder := json.NewEncoder(a.Out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// rawJSON is a message in the JSON form of protobuf, for a field of a result.
func rawJSON(m proto.Message) (json.RawMessage, error) {
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	return raw, nil
}

// printf writes to a table, which keeps errors for Flush.
func printf(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// args wraps a check of arguments so that what it refuses is a wrong call.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, list []string) error {
		err := check(cmd, list)
		if err != nil && strings.Contains(err.Error(), "arg(s)") { // cobra's own
			_, what, _ := strings.Cut(cmd.Use, " ")
			return usagef("%s given; the call is: %s %s", many(len(list), "argument"),
				cmd.CommandPath(), what)
		}
		if err != nil {
			return usage(err)
		}
		return nil
	}
}

// needing refuses a command without these flags as a wrong call, which cobra's own check does not.
func needing(cmd *cobra.Command, flags ...string) *cobra.Command {
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, list []string) error {
		missing := []string{}
		for _, name := range flags {
			if !cmd.Flags().Changed(name) {
				missing = append(missing, "--"+name)
			}
		}
		if len(missing) > 0 {
			return usagef("%s must be given", strings.Join(missing, ", "))
		}
		return run(cmd, list)
	}
	return cmd
}

func accountText(a [32]byte) string { return id.Bech32(id.Account, a) }
func escrowText(e [32]byte) string  { return id.Bech32(id.Escrow, e) }

// bytesText is the text of an id that came as bytes; empty for none.
func bytesText(kind string, raw []byte) string {
	if len(raw) != 32 {
		return ""
	}
	return id.Bech32(kind, [32]byte(raw))
}

func parseAccount(text string) (sig.AccountID, error) {
	account, err := id.ParseBech32(id.Account, text)
	if err != nil {
		return sig.AccountID{}, notID("an account", text, err)
	}
	return account, nil
}

func parseEscrow(text string) (tx.EscrowID, error) {
	escrow, err := id.ParseBech32(id.Escrow, text)
	if err != nil {
		return tx.EscrowID{}, notID("an escrow", text, err)
	}
	return escrow, nil
}

// notID refuses a text that is not the id of such a thing.
func notID(thing, text string, err error) error {
	for _, why := range []error{id.ErrPrefix, id.ErrChecksum} {
		if errors.Is(err, why) {
			return usagef("%s: %w", thing[strings.IndexByte(thing, ' ')+1:], err)
		}
	}
	return usagef("%q is not the id of %s", screen.Fit(text, 100), thing)
}

func parseJob(text string) ([32]byte, error) {
	job, err := id.ParseBech32(id.Job, text)
	if err != nil {
		return job, notID("a job", text, err)
	}
	return job, nil
}

// many is a number of things.
func many[N ~uint32 | ~uint64 | ~int](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func stamp(ms uint64) string {
	if ms == 0 {
		return "-"
	}
	return time.UnixMilli(int64(ms)).Local().Format("2006-01-02 15:04:05")
}

// reasonText is the name of a proto enum for people.
func reasonText(name, prefix string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, prefix), "_", "-"))
}

// noCommand refuses what is no command below a group.
func noCommand(cmd *cobra.Command, list []string) error {
	if len(list) == 0 {
		return nil
	}
	if cmd.SuggestionsMinimumDistance <= 0 {
		cmd.SuggestionsMinimumDistance = 2 // letters to change, which cobra sets for the root alone
	}
	like := cmd.SuggestionsFor(list[0])
	if len(like) == 0 {
		return fmt.Errorf("there is no command %q below %q", list[0], cmd.CommandPath())
	}
	return fmt.Errorf("there is no command %q below %q; did you mean %s?", list[0],
		cmd.CommandPath(), strings.Join(like, " or "))
}

// group is a command that only has commands below it.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: args(noCommand),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}
