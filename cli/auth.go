package cli

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/kit/token"
)

func (a *app) authCommand() *cobra.Command {
	return group("auth", "Access tokens for programs and REST", a.authToken())
}

type tokenResult struct {
	Token    string    `json:"token"`
	Account  string    `json:"account"`
	Audience string    `json:"audience"`
	Scopes   []string  `json:"scopes"`
	NotAfter time.Time `json:"not_after"`
}

func (a *app) authToken() *cobra.Command {
	var scopes []string
	var life time.Duration
	audience := ""
	cmd := &cobra.Command{
		Use: "token", Short: "Make an access token and print it",
		Long: `Make an access token: whoever has it may act for the wallet's account at one operator,
within the scopes, until it expires. It cannot be taken back before. Scopes: ledger:submit, job,
job:read and job:read:<job> (at hosts only), file:read, file:read:<cid>, file:write,
file:write:<job>, bus. For what an operator tells its hosts, see ` + "`ucn host token`" + `.`,
		Example: `  ucn auth token --scope job --scope file:read --expires 1h
  curl -H "Authorization: Bearer $(ucn auth token --scope job)" \
       http://127.0.0.1:7680/v1/jobs`,
		Args: args(cobra.NoArgs),
		RunE: a.session(withKey, func(_ context.Context, l *link, _ []string) error {
			to := l.Operator
			if audience != "" {
				account, err := parseAccount(audience)
				if err != nil {
					return err
				}
				to = account
			}
			if life <= 0 || life > token.MaxLifetime {
				return usagef("--expires is %v, allowed up to %v", life, token.MaxLifetime)
			}
			if len(scopes) == 0 {
				return usagef("name at least one --scope")
			}
			text, err := l.Token(to, life, scopes...)
			if err != nil {
				return usage(err)
			}
			result := tokenResult{
				Token: text, Account: accountText(l.Account), Audience: accountText(to),
				Scopes: scopes, NotAfter: l.Now().Add(life).UTC().Truncate(time.Millisecond),
			}
			return a.emit(result, func(w io.Writer) { printf(w, "%s\n", text) })
		}),
	}
	cmd.Flags().StringSliceVar(&scopes, "scope", nil, "what the token allows; may be repeated")
	cmd.Flags().DurationVar(&life, "expires", time.Hour, "how long it is valid, up to 24h")
	cmd.Flags().StringVar(&audience, "audience", "", "operator it is for (default: the network's)")
	return cmd
}
