package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/cli/amount"
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/submit"
)

// exitError carries an exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usage marks an error as a wrong call.
func usage(err error) error { return &exitError{ExitUsage, err} }

func usagef(format string, args ...any) error { return usage(fmt.Errorf(format, args...)) }

// unreachable marks an error as "no network".
func unreachable(err error) error { return &exitError{ExitUnreachable, err} }

// hinted is an error with what the person can do about it.
type hinted struct {
	err  error
	hint string
}

func (e *hinted) Error() string { return e.err.Error() }
func (e *hinted) Unwrap() error { return e.err }

// errTold is a failure that the command's own output has told already.
var errTold = errors.New("told already")

// codeOf maps an error to the exit code.
func codeOf(err error) int {
	var coded *exitError
	switch {
	case errors.As(err, &coded):
		return coded.code
	case errors.Is(err, rpc.ReasonUnavailable), errors.Is(err, rpc.ReasonUnassigned):
		return ExitUnreachable
	case errors.Is(err, amount.ErrNotAmount), errors.Is(err, jobfile.ErrInvalid),
		errors.Is(err, job.ErrInvalid), errors.Is(err, job.ErrNotBuilt):
		return ExitUsage
	}
	return ExitFailed
}

// complain prints an error with what to do about it and returns the exit code.
func complain(w io.Writer, cmd *cobra.Command, err error, asJSON bool) int {
	code := codeOf(err)
	if errors.Is(err, errTold) {
		return code
	}
	hint := hintFor(cmd, err, code)
	if asJSON {
		told := struct {
			Error  string `json:"error"`
			Reason string `json:"reason,omitempty"`
			Hint   string `json:"hint,omitempty"`
			Again  int64  `json:"retry_after_ms,omitempty"`
			Code   int    `json:"exit_code"`
		}{message(err), string(fault.ReasonOf(err)), hint, 0, code}
		if f := fault.From(err); f != nil {
			told.Again = f.Retry().Milliseconds()
		}
		_ = json.NewEncoder(w).Encode(told) // there is nobody else to tell
		return code
	}
	columns := 0
	if t, ok := w.(*terminal); ok {
		columns = t.columns()
	}
	const hang = "     " // under the text after "ucn: "
	lead := "ucn: "
	for line := range strings.Lines(message(err) + "\n" + hint) {
		line = strings.TrimSpace(line)
		if line != "" {
			_, _ = fmt.Fprintln(w, screen.Wrap(lead+line, len(hang), columns))
			lead = hang
		}
	}
	return code
}

// terminal is where errors are printed, with its width; 0: it is no terminal.
type terminal struct {
	io.Writer
	columns func() int
}

// message words an error for a person, in lines that are fit to be shown: a service may have
// written any of it.
func message(err error) string {
	var lines []string
	for line := range strings.SplitSeq(wording(err), "\n") {
		// What a service wrote after a carriage return must not take away what we said before it.
		line = strings.ReplaceAll(strings.TrimRight(line, "\r"), "\r", " ")
		lines = append(lines, screen.Clean(line))
	}
	return strings.Join(lines, "\n")
}

// wording is of a fault its own text, with what was being done.
func wording(err error) string {
	var failed *submit.FailedError
	if errors.As(err, &failed) {
		return fmt.Sprintf("the transaction is in a block and failed, which cost its fee: %s",
			reasonText(failed.Receipt.GetReason().String(), "REASON_"))
	}
	f := fault.From(err)
	if f == nil {
		return err.Error()
	}
	// What was wrapped around the fault says what was being done; the fault's own text repeats
	// its reason and local cause, which help nobody here.
	text, inner := err.Error(), f.Error()
	if n := len(text) - len(inner); n >= 0 && text[n:] == inner {
		return text[:n] + f.Message()
	}
	return text
}

// hints for what a person can do, by what is wrong.
func hintFor(cmd *cobra.Command, err error, code int) string {
	var typed *config.Error
	var own *hinted
	switch {
	case errors.As(err, &own):
		return own.hint
	case code == ExitUsage && !errors.As(err, &typed) && cmd != nil:
		return fmt.Sprintf("see `%s --help`", cmd.CommandPath())
	case code == ExitUnreachable:
		return "start a network here with `ucn up --detach`, or name an operator's file with " +
			"--network FILE"
	case errors.Is(err, keys.ErrEncrypted), errors.Is(err, keys.ErrPassphrase):
		return "give the passphrase at the prompt, or by --passphrase-file FILE"
	case errors.Is(err, bus.ReasonNotConnected):
		return "the host is away; its offers vanish within minutes"
	case errors.Is(err, submit.ErrUnknown):
		return "look with `ucn tx get ID` before doing it again"
	case errors.Is(err, rpc.ReasonTokenExpired), errors.Is(err, rpc.ReasonWrongAudience):
		return "is this machine's clock right, and the network file that of this operator?"
	case errors.Is(err, fault.Reason("EXPIRED")), errors.Is(err, fault.Reason("VALID_UNTIL_TOO_FAR")):
		return "is this machine's clock right? a transaction is valid by the chain's"
	case errors.Is(err, fault.Reason("FAUCET_USED")):
		return "the faucet gives once per wallet; make another wallet or ask for a transfer"
	case errors.Is(err, context.DeadlineExceeded):
		return "it took longer than --timeout"
	case errors.Is(err, fs.ErrPermission):
		return "this user may not; is the data folder another user's?"
	}
	return ""
}
