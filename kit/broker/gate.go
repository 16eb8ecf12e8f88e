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
	errOperator  = errors.New("instances of this operator are not let in here")
)

// gate decides who gets in and what they may do.
type gate struct {
	admin     string // lets the broker itself in to the streams
	secret    string // lets own services in to where everybody talks
	commons   func() *server.Account
	tokens    rpc.Authenticator
	instances bus.Instances
	accept    func(operator sig.AccountID) bool // nil accepts all
	roster    *roster                           // hears who was let in
	log       *slog.Logger
}

var _ server.Authentication = (*gate)(nil)

// Check implements server.Authentication.
func (g *gate) Check(c server.ClientAuthentication) bool {
	o := c.GetOpts()
	if same(o.Token, g.admin) {
		c.RegisterUser(&server.User{Username: "admin"}) // of the account that holds the streams
		return true
	}
	commons := g.commons()
	if commons == nil {
		return false // without an account they would enter that of the streams
	}
	if same(o.Token, g.secret) {
		c.RegisterUser(&server.User{Username: "own", Account: commons})
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), authTimeout)
	defer cancel()
	user, err := g.admit(ctx, c, o)
	if err != nil {
		g.log.InfoContext(ctx, "a connection is turned away", "from", g.from(c), "error", err)
		return false
	}
	user.Account = commons
	c.RegisterUser(user)
	return true
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func (g *gate) from(c server.ClientAuthentication) string {
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
	if err := g.proves(raw, nonce, o.Sig); err != nil {
		return nil, err
	}
	c, _, err := g.instances.Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	g.roster.note(subject.Instance(c.InstanceKey), c.Operator)
	return &server.User{
		Username: subject.Instance(c.InstanceKey), ConnectionDeadline: c.NotAfter.Add(time.Second),
		Permissions: instanceRights(c),
	}, nil
}

// proves checks what costs nothing but a signature, before anybody is asked about the certificate:
// that the operator is let in, and that the peer holds the instance's key.
func (g *gate) proves(certificate, nonce []byte, text string) error {
	c, _, err := cert.Decode(certificate)
	if err != nil {
		return err
	}
	if g.accept != nil && !g.accept(c.Operator) {
		return errOperator
	}
	signed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return fmt.Errorf("%w: %w", errSignature, err)
	}
	signature, err := sig.ParseSignature(signed)
	if err != nil || len(nonce) == 0 ||
		!sig.Verify(c.InstanceKey, bus.LoginPreimage(nonce), signature) {
		return errSignature
	}
	return nil
}

// instanceRights: ask and answer anyone, publish own events, read any stream, and hear what is
// meant for this instance alone. Streams are the broker's owner's to make; consumers are touched by
// the instance that they are named for and nobody else, or it could pause them and take their
// messages.
func instanceRights(c cert.Certificate) *server.Permissions {
	publish := []string{
		subject.AllRequests, subject.AllReplies, subject.AllJobs,
		apiStreamInfo, apiStreamNames, apiGet, apiDirect,
	}
	hear := []string{
		subject.AllReplies, subject.AllJobs, bus.InboxOf(c.InstanceKey) + ".>",
	}
	for _, service := range c.Services {
		own := subject.Address{Operator: c.Operator, Service: service, Instance: c.InstanceKey}
		hear = append(hear, own.RPC())
		named := "*." + event.DurableName(service, c.InstanceKey)
		publish = append(publish,
			apiCreate+named, apiCreate+named+".>", apiDurableCreate+named, apiConsumerInfo+named,
			apiNext+named, apiAck+named+".>")
		for _, topic := range event.Topics() {
			publish = append(publish, own.Event(string(topic), ">"))
		}
	}
	return &server.Permissions{Publish: allow(publish...), Subscribe: allow(hear...)}
}

func allow(subjects ...string) *server.SubjectPermission {
	return &server.SubjectPermission{Allow: subjects}
}
