package cli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/doctor"
	"github.com/united-containers/ucn/kit/network"
)

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Say what this machine can and cannot do, and the fix",
		Long: `Look at this machine: podman and its helpers, cgroups, user namespaces, disk, ports, clock,
and whether a network answers. Nothing is changed. Only what runs containers here needs podman: for
using a network elsewhere nothing is needed but this program. Exit code 1 when something that a
host needs is missing.`,
		Example: "  ucn doctor\n  ucn doctor --json", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.settings()
			if err != nil {
				return err
			}
			file := first(a.flags.network, a.Env("UCN_NETWORK"), s.Network, network.Path(a.data()))
			found := doctor.Examine(cmd.Context(), doctor.Host{}, a.data(), file)
			healthy := doctor.Healthy(found)
			result := struct {
				Healthy bool             `json:"healthy"`
				Checks  []doctor.Finding `json:"checks"`
			}{healthy, found}
			err = a.emit(result, func(w io.Writer) {
				for _, f := range found {
					printf(w, "%s\t%s\t%s\n", f.State, f.Name, f.Detail)
					if f.Fix != "" {
						printf(w, "\t\tfix: %s\n", f.Fix)
					}
				}
			})
			if err == nil && !healthy {
				err = &exitError{ExitFailed, errTold}
			}
			return err
		},
	}
}
