package broker

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/rpc"
)

// Scope is what a token must allow to use the broker.
const Scope = "bus"

// Why a connection is turned away. The client learns only that it is.
var (
	errNoLogin   = errors.New("no login that is accepted here")
	errScope     = errors.New("the token does not allow scope " + Scope)
	errSignature = errors.New("the nonce is not signed by the certificate's instance")
)

// gate decides who gets in and what they may do.
type gate struct {
	secret    string
	tokens    rpc.Authenticator
	instances bus.Instances
	log       *slog.Logger
}

var _ server.Authentication = (*gate)(nil)

// Check implements server.Authentication.
func (g *gate) Check(c server.ClientAuthentication) bool {
	o := c.GetOpts()
	if subtle.ConstantTimeCompare([]byte(o.Token), []byte(g.secret)) == 1 {
		c.RegisterUser(&server.User{Username: "own"})
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), authTimeout)
	defer cancel()
	user, err := g.admit(ctx, c, o)
	if err != nil {
		g.log.InfoContext(ctx, "a connection is turned away", "from", from(c), "error", err)
		return false
	}
	c.RegisterUser(user)
	return true
}

func from(c server.ClientAuthentication) string {
	if address := c.RemoteAddress(); address != nil {
		return address.String()
	}
	return ""
}

func (g *gate) admit(
	ctx context.Context, c server.ClientAuthentication, o *server.ClientOpts,
) (*server.User, error) {
	switch {
	case o.Nkey != "" && g.instances != nil:
		return g.instance(ctx, c.GetNonce(), o)
	case o.Token != "" && g.tokens != nil:
		return g.client(ctx, o.Token)
	}
	return nil, errNoLogin
}

// client lets an account ask and hear replies until its token expires.
func (g *gate) client(ctx context.Context, token string) (*server.User, error) {
	caller, err := g.tokens.Authenticate(ctx, token)
	if err != nil {
		return nil, err
	}
	if !caller.HasScope(Scope) {
		return nil, errScope
	}
	return &server.User{
		Username: "client", ConnectionDeadline: caller.NotAfter,
		Permissions: &server.Permissions{
			Publish:   allow(subject.AllRequests),
			Subscribe: allow(subject.AllReplies, subject.AllJobs),
		},
	}, nil
}

// instance lets an instance serve and speak for itself until its certificate expires.
func (g *gate) instance(
	ctx context.Context, nonce []byte, o *server.ClientOpts,
) (*server.User, error) {
	if len(o.Nkey) > cert.MaxText {
		return nil, cert.ErrMalformed
	}
	raw, err := base64.RawURLEncoding.DecodeString(o.Nkey)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", cert.ErrMalformed, err)
	}
	c, _, err := g.instances.Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	signed, err := base64.RawURLEncoding.DecodeString(o.Sig)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSignature, err)
	}
	signature, err := sig.ParseSignature(signed)
	if err != nil || len(nonce) == 0 ||
		!sig.Verify(c.InstanceKey, bus.LoginPreimage(nonce), signature) {
		return nil, errSignature
	}
	return &server.User{
		Username: subject.Instance(c.InstanceKey), ConnectionDeadline: c.NotAfter.Add(time.Second),
		Permissions: instanceRights(c),
	}, nil
}

// instanceRights: ask and answer anyone, publish own events, read any stream, and hear what is
// meant for this instance alone. Streams and consumers cannot be deleted.
func instanceRights(c cert.Certificate) *server.Permissions {
	publish := []string{
		subject.AllRequests, subject.AllReplies, subject.AllJobs,
		"$JS.API.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.NAMES",
		"$JS.API.STREAM.MSG.GET.*", "$JS.API.DIRECT.GET.>",
		"$JS.API.CONSUMER.CREATE.>", "$JS.API.CONSUMER.DURABLE.CREATE.>",
		"$JS.API.CONSUMER.INFO.>", "$JS.API.CONSUMER.MSG.NEXT.>", "$JS.ACK.>", "$JS.FC.>",
	}
	hear := []string{
		subject.AllReplies, subject.AllJobs, bus.InboxOf(c.InstanceKey) + ".>",
	}
	for _, service := range c.Services {
		own := subject.Address{Operator: c.Operator, Service: service, Instance: c.InstanceKey}
		hear = append(hear, own.RPC())
		publish = append(publish, "$JS.API.STREAM.CREATE."+event.StreamName(service))
		for _, topic := range event.Topics() {
			publish = append(publish, own.Event(string(topic), ">"))
		}
	}
	return &server.Permissions{Publish: allow(publish...), Subscribe: allow(hear...)}
}

func allow(subjects ...string) *server.SubjectPermission {
	return &server.SubjectPermission{Allow: subjects}
}
