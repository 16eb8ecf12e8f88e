package cli

import (
	"context"
	"encoding/hex"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/token"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
)

// Bounds of a token for a host; gateways take none that is good for longer.
const (
	defaultHostToken = 5 * time.Minute
	maxHostToken     = 15 * time.Minute
	maxHostBody      = 1 << 20 // bytes, as gateways take them
)

// hostTokenResult is a token for a host, and where it is good.
type hostTokenResult struct {
	Token    string    `json:"token"`
	Host     string    `json:"host"`
	Key      string    `json:"key"`
	Method   string    `json:"method"`
	Path     string    `json:"path"`
	Scope    string    `json:"scope"`
	Account  string    `json:"account"`
	NotAfter time.Time `json:"not_after"`
}

func (a *app) hostToken() *cobra.Command {
	body, life := "", defaultHostToken
	cmd := &cobra.Command{
		Use:   "token HOST read|drain|undrain|evict|policy [ATTEMPT]",
		Short: "Make a token with which REST asks or tells a host of yours one thing",
		Long: `Make a token for REST. "read" reads the host, its attempts and its policy. All others are
bound to one request, and --body must be what is sent (white space and order do not matter): a
gateway that was broken into can repeat that request while the token lasts, but tell the host
nothing else. evict also names the attempt. --json shows method and path as well.`,
		Example: `  key=$(ucn host token alpha-1 read --wallet alpha --json | jq -r .key)
  curl -H "Authorization: Bearer $(ucn host token alpha-1 read --wallet alpha)" \
       http://127.0.0.1:7680/v1/hosts/$key
  body='{"evict_after_ms": "7200000", "reason": "new disks"}'
  curl -X POST -d "$body" http://127.0.0.1:7680/v1/hosts/$key:drain \
       -H "Authorization: Bearer $(ucn host token alpha-1 drain --wallet alpha --body "$body")"`,
		Args: args(cobra.RangeArgs(2, 3)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			if life <= 0 || life > maxHostToken {
				return usagef("--expires is %v, allowed up to %v", life, maxHostToken)
			}
			text, err := readHostBody(body)
			if err != nil {
				return err
			}
			r, err := l.hostToken(ctx, list, text, life)
			if err != nil {
				return err
			}
			return a.emit(r, func(w io.Writer) { printf(w, "%s\n", r.Token) })
		}),
	}
	cmd.Flags().StringVar(&body, "body", "", "the JSON that is sent, or @FILE that holds it")
	cmd.Flags().DurationVar(&life, "expires", life, "how long it is valid, up to 15m")
	return cmd
}

// readHostBody returns a body as --body gives it.
func readHostBody(body string) ([]byte, error) {
	name, isFile := strings.CutPrefix(body, "@")
	if !isFile {
		return []byte(body), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, usagef("--body: %w", err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	text, err := io.ReadAll(io.LimitReader(f, maxHostBody+1))
	switch {
	case err != nil:
		return nil, usagef("--body: %w", err)
	case len(text) > maxHostBody:
		return nil, usagef("--body: %s has more than %d bytes", name, maxHostBody)
	}
	return text, nil
}

// hostToken makes the token for what list names: host, action, perhaps attempt.
func (l *link) hostToken(
	ctx context.Context, list []string, body []byte, life time.Duration,
) (*hostTokenResult, error) {
	request, err := hostRequestOf(list[1:])
	if err != nil {
		return nil, err
	}
	offer, err := l.ownHost(ctx, list[0])
	if err != nil {
		return nil, err
	}
	key := sig.PublicKey(offer.GetExecutor())
	scope := token.AdminScope(key, list[1])
	if request.message == nil && len(body) > 0 {
		return nil, usagef("reading has no --body")
	}
	if request.message != nil {
		if scope, err = request.bind(scope, key, body); err != nil {
			return nil, err
		}
	}
	text, err := l.Token(l.Account, life, scope)
	if err != nil {
		return nil, err
	}
	digits := hex.EncodeToString(key[:])
	return &hostTokenResult{
		Token: text, Host: list[0], Key: digits, Method: request.method,
		Path: "/v1/hosts/" + digits + request.path, Scope: scope,
		Account: accountText(l.Account), NotAfter: l.Now().Add(life).UTC().Truncate(time.Millisecond),
	}, nil
}

// hostRequest is a request of REST to a host.
type hostRequest struct {
	method, path string
	message      proto.Message // nil where the token is bound to none
	fill         func(key, attempt []byte)
	attempt      []byte
}

// hostRequestOf reads an action, and the attempt that one of them names.
func hostRequestOf(list []string) (*hostRequest, error) {
	r := &hostRequest{method: "POST", path: ":" + list[0]}
	switch list[0] {
	case "read":
		r.method, r.path = "GET", ""
	case "drain":
		m := &executorv1.DrainRequest{}
		r.message, r.fill = m, func(key, _ []byte) { m.Executor = key }
	case "undrain":
		m := &executorv1.UndrainRequest{}
		r.message, r.fill = m, func(key, _ []byte) { m.Executor = key }
	case "policy":
		m := &executorv1.SetPolicyRequest{}
		r.method, r.path = "PUT", "/policy"
		r.message, r.fill = m, func(key, _ []byte) { m.Executor = key }
	case "evict":
		m := &executorv1.EvictRequest{}
		r.message = m
		r.fill = func(key, attempt []byte) { m.Executor, m.Attempt = key, attempt }
	default:
		return nil, usagef("%.40q is none of read, drain, undrain, evict, policy", list[0])
	}
	if (list[0] == "evict") != (len(list) == 2) {
		return nil, usagef("evict names an attempt, and nothing else does")
	}
	if len(list) == 2 {
		var err error
		if r.attempt, err = hex.DecodeString(list[1]); err != nil || len(r.attempt) == 0 {
			return nil, usagef("%.80q is not an attempt as host show prints it", list[1])
		}
		r.path = "/attempts/" + list[1] + ":evict"
	}
	return r, nil
}

// bind narrows a scope to the request with a body.
func (r *hostRequest) bind(scope string, key sig.PublicKey, body []byte) (string, error) {
	if len(body) > 0 {
		if err := protojson.Unmarshal(body, r.message); err != nil {
			return "", usagef("--body: %w", err)
		}
	}
	r.fill(key[:], r.attempt) // the path says it, whatever the body does
	bound, err := token.Bound(scope, r.message)
	if err != nil {
		return "", usagef("--body: %w", err)
	}
	return bound, nil
}
