package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/cli/session"
	"github.com/united-containers/ucn/kit/network"
	"github.com/united-containers/ucn/kit/run"
)

// Exit codes.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitJob         = 3 // the job ended other than completed
	ExitUnreachable = 4
)

// DefaultTimeout bounds commands that do not follow something.
const DefaultTimeout = time.Minute

// Deps are what the commands take from the machine; New takes the machine's own.
type Deps struct {
	Version string
	In      io.Reader
	Out     io.Writer
	Err     io.Writer
	// Env answers for environment variables, "" for one that is not set.
	Env func(name string) string
	Now func() time.Time
	// Columns is the width of the terminal that a stream is, 0 if it is none.
	Columns func(stream any) int
	// Rows is its height, 0 if it is none.
	Rows func(stream any) int
	// Password asks a person for a passphrase without echo. It fails without a terminal.
	Password func(prompt string) ([]byte, error)
	// Open opens a session; tests connect it to fakes.
	Open func(ctx context.Context, cfg session.Config) (*session.Session, error)
}

// app is one invocation.
type app struct {
	Deps
	flags flags
}

// flags are those of every command.
type flags struct {
	api, data, wallet, network, passphraseFile string
	json, quiet                                bool
	timeout                                    time.Duration
	asDelegate                                 delegateFlag
}

// New returns the root command with all client commands. The caller adds its own.
func New(version string) *cobra.Command {
	return NewWith(Deps{
		Version: version, In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: os.Getenv,
		Now: time.Now, Columns: columns, Rows: rows, Password: askPassword, Open: session.Open,
	})
}

// NewWith is New with everything from outside.
func NewWith(d Deps) *cobra.Command {
	a := &app{Deps: d}
	root := &cobra.Command{
		Use:   "ucn",
		Short: "The United Container Network: anyone's containers on anyone's machines",
		Long: `UCN runs your containers on the machines of others, paid by the second from an escrow
that you open and that no single operator owns.

Begin with a network on this machine:

  ucn up --detach          start it
  ucn doctor               see what this machine can and cannot do
  ucn wallet balance       the default wallet has money on a local network
  ucn image push NAME      push an image of your podman or docker
  ucn job run CID          run it, see it live, get the bill

Exit codes: 0 done, 1 failed, 2 a wrong call, 3 a job that ended other than completed, 4 nobody
reached. Standard output is the answer, standard error is about it.

With --json the answer is one document, or one in each line where a command goes on. Amounts are
text in UCN, exact; times are milliseconds since 1970 (names that end in _ms) or RFC 3339; ids are
as people see them, hashes hexadecimal. What fails is a document on standard error:
{"error": TEXT, "reason": STABLE_NAME, "hint": TEXT, "exit_code": NUMBER}, reason and hint if any.`,
		Version: d.Version, SilenceErrors: true, SilenceUsage: true,
		// Its own check, so that flags are read before it: the error is JSON for who wants that.
		Args: args(noCommand), RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRun: func(cmd *cobra.Command, _ []string) { began(cmd.Context()) },
	}
	root.SetIn(d.In)
	root.SetOut(d.Out)
	root.SetErr(&terminal{d.Err, func() int { return d.Columns(d.Err) }})
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	a.persistent(root)
	wrapUsage(root, d.Columns(d.Out))
	root.AddCommand(
		a.walletCommand(), a.transferCommand(), a.jobCommand(), a.fileCommand(), a.imageCommand(),
		a.txCommand(), a.authCommand(), a.verifyCommand(), a.accountCommand(), a.escrowCommand(),
		a.chainCommand(), a.marketCommand(), a.hostCommand(), a.eventCommand(), a.doctorCommand(),
		a.manCommand(),
	)
	return root
}

func (a *app) persistent(root *cobra.Command) {
	p := root.PersistentFlags()
	p.StringVar(&a.flags.api, "api", "", "gRPC address of the operator (default: what the network "+
		"file says; env UCN_API)")
	p.StringVar(&a.flags.data, "data", first(a.Env("UCN_DATA"), network.DefaultDir()),
		"data folder (env UCN_DATA)")
	p.StringVar(&a.flags.wallet, "wallet", "",
		"wallet that acts (default \"default\"; env UCN_WALLET)")
	p.StringVar(&a.flags.network, "network", "", "network file of an operator (default: "+
		"network.json in the data folder; env UCN_NETWORK)")
	p.StringVar(&a.flags.passphraseFile, "passphrase-file", "",
		"file that holds the wallet's passphrase (env UCN_PASSPHRASE_FILE)")
	p.BoolVar(&a.flags.json, "json", false, "print JSON for programs")
	p.BoolVar(&a.flags.quiet, "quiet", false, "print nothing but the result")
	p.DurationVar(&a.flags.timeout, "timeout", DefaultTimeout,
		"longest time for commands that do not follow something")
}

// wrapUsage keeps help within a terminal: flags always, texts if there is a terminal.
func wrapUsage(root *cobra.Command, columns int) {
	if help := root.HelpFunc(); columns > 0 {
		root.SetHelpFunc(func(cmd *cobra.Command, list []string) {
			cmd.Long = screen.Reflow(cmd.Long, columns)
			help(cmd, list)
		})
	}
	const usual, least, most = 80, 60, 100
	if columns == 0 {
		columns = usual
	}
	wrapped := fmt.Sprintf(".FlagUsagesWrapped %d", min(max(columns, least), most))
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", wrapped))
}

// Execute runs the root command: the first SIGINT or SIGTERM ends its context, a second one the
// process. Errors are printed to standard error with what to do. It returns the exit code.
func Execute(ctx context.Context, root *cobra.Command) int {
	ctx, stop := run.Signals(ctx, os.Exit)
	defer stop()
	return ExecuteContext(ctx, root)
}

// ExecuteContext is Execute without signals.
func ExecuteContext(ctx context.Context, root *cobra.Command) int {
	begun := new(bool)
	ctx = context.WithValue(ctx, begunKey{}, begun)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	if !*begun {
		err = usage(err) // cobra did not come to run anything
	}
	asJSON, _ := root.PersistentFlags().GetBool("json") // the flag is always there
	return complain(root.ErrOrStderr(), cmd, err, asJSON)
}

type begunKey struct{}

// began notes that a command was found and its flags and arguments were read.
func began(ctx context.Context) {
	if begun, ok := ctx.Value(begunKey{}).(*bool); ok {
		*begun = true
	}
}
