package bus

import (
	"context"
	"fmt"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/rpc"
	busv1 "github.com/united-containers/ucn/proto/ucn/bus/v1"
	identityv1 "github.com/united-containers/ucn/proto/ucn/identity/v1"
)

// Identity is what an instance has: its keys, and the certificate that lets it act for an operator.
type Identity struct {
	Key         sig.PrivateKey
	Seal        keys.SealKey
	Certificate []byte // canonical bytes
	Service     string // as which it serves; one that the certificate names
}

// Target is an instance that can be asked.
type Target struct {
	subject.Address
	Seal keys.SealPublic
}

// TargetOf returns where to ask the instance of a certificate, which the caller has judged.
func TargetOf(c cert.Certificate, service string) (Target, error) {
	if !c.Covers(service) {
		return Target{}, fmt.Errorf("bus target: the certificate does not name service %q", service)
	}
	return Target{
		Address: subject.Address{
			Operator: c.Operator, Service: service, Instance: c.InstanceKey,
		},
		Seal: c.SealKey,
	}, nil
}

// Target returns where others ask this instance. It fails when keys, certificate and service do
// not belong together.
func (i Identity) Target() (Target, error) {
	c, _, err := cert.Decode(i.Certificate)
	if err != nil {
		return Target{}, fmt.Errorf("bus identity: %w", err)
	}
	if i.Key.IsZero() || c.InstanceKey != i.Key.Public() || c.SealKey != i.Seal.Public() {
		return Target{}, fmt.Errorf("bus identity: the certificate is for other keys")
	}
	return TargetOf(c, i.Service)
}

// Proof is how a client shows who asks. Make one with TokenProof or InstanceProof.
type Proof interface {
	attach(ctx context.Context, t Target, body []byte, r *busv1.Request) error
}

// TokenProof asks in the name of an account. tokenFor returns a token, not expired, whose audience
// is the given operator; it is called once per request, so it caches. Safe for concurrent use.
func TokenProof(tokenFor func(ctx context.Context, operator sig.AccountID) (string, error)) Proof {
	return tokenProof(tokenFor)
}

type tokenProof func(ctx context.Context, operator sig.AccountID) (string, error)

func (p tokenProof) attach(ctx context.Context, t Target, _ []byte, r *busv1.Request) error {
	text, err := p(ctx, t.Operator)
	if err != nil {
		return fmt.Errorf("get a token: %w", err)
	}
	if text != "" {
		r.Proof = &busv1.Request_Token{Token: text}
	}
	return nil
}

// InstanceProof asks in the name of an instance of an operator.
func InstanceProof(key sig.PrivateKey, certificate []byte) (Proof, error) {
	p := &instanceProof{key: key, certificate: new(identityv1.Certificate)}
	c, _, err := cert.Decode(certificate)
	if err != nil {
		return nil, fmt.Errorf("bus proof: %w", err)
	}
	if key.IsZero() || c.InstanceKey != key.Public() {
		return nil, fmt.Errorf("bus proof: the certificate is for another key")
	}
	if err := canon.Unmarshal(certificate, p.certificate); err != nil {
		return nil, fmt.Errorf("bus proof: %w", err)
	}
	return p, nil
}

type instanceProof struct {
	key         sig.PrivateKey
	certificate *identityv1.Certificate // never changed
}

func (p *instanceProof) attach(_ context.Context, _ Target, body []byte, r *busv1.Request) error {
	signature := p.key.Sign(sig.Preimage(sig.DomainRequest, nil, body))
	r.Proof = &busv1.Request_Instance{Instance: &busv1.InstanceProof{
		Certificate: p.certificate, Signature: signature[:],
	}}
	return nil
}

// Instances judges certificates of calling instances; cert.Verifier does. Safe for concurrent use.
type Instances interface {
	Verify(ctx context.Context, certificate []byte) (cert.Certificate, cert.ID, error)
}

// Authenticator tells who may ask at all. A nil field refuses that kind of proof. What a caller
// may do is the handler's to judge: rpc.RequireScope for accounts, InstanceFrom for instances.
type Authenticator struct {
	Tokens    rpc.Authenticator
	Instances Instances
}

type instanceKey struct{}

// InstanceFrom returns the certificate of the instance that asks; false if an account asks.
// rpc.CallerFrom works for both: for an instance it gives the operator, without any scope.
func InstanceFrom(ctx context.Context) (cert.Certificate, bool) {
	c, ok := ctx.Value(instanceKey{}).(cert.Certificate)
	return c, ok
}

// WithInstance returns ctx with a calling instance. The server calls it; tests may.
func WithInstance(ctx context.Context, c cert.Certificate) context.Context {
	ctx = rpc.WithCaller(ctx, rpc.Caller{Account: c.Operator, NotAfter: c.NotAfter})
	return context.WithValue(ctx, instanceKey{}, c)
}

// proven is who asks: a name to compare, never empty, and what handlers find in their context.
type proven struct {
	name string
	mark func(context.Context) context.Context
}

// authenticate judges the proof. body are the canonical bytes of r's body.
func (a Authenticator) authenticate(
	ctx context.Context, r *busv1.Request, body []byte,
) (proven, error) {
	switch proof := r.GetProof().(type) {
	case *busv1.Request_Token:
		if a.Tokens == nil {
			break
		}
		c, err := a.Tokens.Authenticate(ctx, proof.Token)
		return proven{
			name: "account:" + string(c.Account[:]),
			mark: func(ctx context.Context) context.Context { return rpc.WithCaller(ctx, c) },
		}, err
	case *busv1.Request_Instance:
		if a.Instances == nil {
			break
		}
		c, err := a.instance(ctx, proof.Instance, body)
		return proven{
			name: "instance:" + string(c.InstanceKey[:]),
			mark: func(ctx context.Context) context.Context { return WithInstance(ctx, c) },
		}, err
	}
	return proven{}, fault.New(fault.Unauthenticated, ReasonProofMissing,
		"the request carries no proof that is accepted here: send a token")
}

func (a Authenticator) instance(
	ctx context.Context, p *busv1.InstanceProof, body []byte,
) (cert.Certificate, error) {
	raw, err := canon.Marshal(p.GetCertificate())
	if err != nil {
		return cert.Certificate{}, proofInvalid("the certificate is malformed", err)
	}
	claimed, _, err := cert.Decode(raw)
	if err != nil {
		return cert.Certificate{}, proofInvalid("the certificate is malformed", err)
	}
	// First what asks nobody: a certificate is public, and judging it may take a call to a ledger.
	signature, err := sig.ParseSignature(p.GetSignature())
	preimage := sig.Preimage(sig.DomainRequest, nil, body)
	if err != nil || !sig.Verify(claimed.InstanceKey, preimage, signature) {
		return cert.Certificate{}, proofInvalid("the request is not signed by the instance", err)
	}
	c, _, err := a.Instances.Verify(ctx, raw)
	if err != nil {
		return cert.Certificate{}, proofInvalid("the certificate is not accepted", err)
	}
	return c, nil
}

func proofInvalid(text string, cause error) error {
	return fault.New(fault.Unauthenticated, ReasonProofInvalid, "%s", text).Because(cause)
}
