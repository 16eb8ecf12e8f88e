package instance

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/cert"
	"github.com/united-containers/ucn/kit/clock"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/origin"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/telemetry"
	"github.com/united-containers/ucn/kit/token"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
)

// Instance is one running instance of one service. Its fields are set before use and not changed.
type Instance struct {
	// Service as which it acts, such as "scheduler".
	Service string
	// Identity is its keys and its certificate.
	Identity bus.Identity
	// Certificate is the certificate, decoded and judged.
	Certificate cert.Certificate
	// Epoch is the operator's word that the instance was restored, for its event.Publisher; nil for
	// none.
	Epoch []byte
	// Chain is the chain that judges key sets and holds the money; Anchor ties signatures to it.
	Chain  string
	Anchor sig.Anchor
	// Dialer connects it to its peers by service name, with its own tokens.
	Dialer rpc.Dialer
	// Connect connects it to the broker. The caller closes the connection.
	Connect func(name string) (*nats.Conn, error)
	// Sets answers which key sets are in force.
	Sets      keys.Sets
	Telemetry *telemetry.Service
	// Now is the wall clock: tokens, certificates and messages are judged by it.
	Now func() time.Time
	// Steady is the clock by which leases, offers and files end: it does not jump. Instances that
	// share a process share it. Nil means Now.
	Steady *clock.Steady
}

// Clock tells the time by which money is paid.
func (i *Instance) Clock() func() time.Time {
	if i.Steady == nil {
		return i.Now
	}
	return i.Steady.Now
}

// maxAhead is how far a block's time may be ahead of the wall clock to be taken note of. It is
// measured by a clock that no ledger moves: step by step one could move the other to any time.
const maxAhead = 24 * time.Hour

// HeadTime takes note of a block's time: the clock tells no earlier one from then on. One that is
// more than a day ahead of the wall clock is not believed.
func (i *Instance) HeadTime(at time.Time) {
	if i.Steady != nil && at.Sub(i.Now()) <= maxAhead {
		i.Steady.Raise(at)
	}
}

// Operator is the account whose certificate the instance has.
func (i *Instance) Operator() sig.AccountID { return i.Certificate.Operator }

// Account is the instance's own account, which pays the fees of what it submits.
func (i *Instance) Account() sig.AccountID { return sig.AccountOfKey(i.Identity.Key.Public()) }

// Tokens judges the access tokens of those who call this instance.
func (i *Instance) Tokens() rpc.Authenticator {
	return &token.Verifier{
		Audience: i.Operator(), Chains: []string{i.Chain}, Sets: i.Sets, Now: i.Now,
	}
}

// Judge judges the certificates of other instances.
func (i *Instance) Judge() cert.Verifier {
	return cert.Verifier{Chains: []string{i.Chain}, Sets: i.Sets, Now: i.Now}
}

// Origins judges where gateways of this operator say that their callers come from.
func (i *Instance) Origins() rpc.OriginJudge {
	return &origin.Judge{Operator: i.Operator(), Certificates: i.Judge(), Now: i.Now}
}

// Authenticator judges both for calls on the bus.
func (i *Instance) Authenticator() bus.Authenticator {
	return bus.Authenticator{Tokens: i.Tokens(), Instances: i.Judge()}
}

// BusClient asks other instances in this one's name.
func (i *Instance) BusClient(conn *nats.Conn) (*bus.Client, error) {
	proof, err := bus.InstanceProof(i.Identity.Key, i.Identity.Certificate)
	if err != nil {
		return nil, fmt.Errorf("prove the instance: %w", err)
	}
	return bus.NewClient(conn, proof, bus.ClientOptions{
		Tracer: i.Telemetry.Tracers.Tracer("github.com/united-containers/ucn/kit/bus"),
		Clock:  i.Now,
	}), nil
}

// EventSigner signs this instance's events.
func (i *Instance) EventSigner() (*event.Signer, error) {
	signer, err := event.NewSigner(i.Identity.Key, i.Identity.Certificate, i.Service)
	if err != nil {
		return nil, fmt.Errorf("sign events: %w", err)
	}
	return signer, nil
}

// NewTokens returns the tokens that an instance account shows to its peers' operators. operators
// names whose each service is; one that is missing is taken to be own.
func NewTokens(
	key sig.PrivateKey, chain string, own sig.AccountID, operators map[string]sig.AccountID,
) *token.Source {
	return &token.Source{
		Signer: keys.SingleSigner(key), Chain: chain, Scopes: scopes(),
		Audience: operators, AnyService: own,
	}
}

// NewOrigins returns what a gateway tells its peers of where its callers come from; nil for an
// instance that is none. Operators names whose each peer is, as for NewTokens: only those of its
// own operator are told.
func NewOrigins(
	who bus.Identity, own sig.AccountID, operators map[string]sig.AccountID, now func() time.Time,
) rpc.OriginSource {
	if who.Service != "gateway" {
		return nil
	}
	return &origin.Source{Key: who.Key, Certificate: who.Certificate, Now: now,
		Own: func(service string) bool {
			operator, named := operators[service]
			return !named || operator == own
		},
	}
}

// scopes are what instances may ask of their peers in their own name.
func scopes() []string { return []string{"ledger:submit", "job", "file", "bus"} }

// LedgerSets asks a ledger which key sets are in force.
type LedgerSets struct {
	Ledger ledgerv1.LedgerServiceClient
}

var _ keys.Sets = LedgerSets{}

// KeySet implements keys.Sets.
func (l LedgerSets) KeySet(
	ctx context.Context, chain string, account sig.AccountID,
) (sig.KeySet, error) {
	r, err := l.Ledger.GetAccount(ctx, &ledgerv1.GetAccountRequest{
		Chain: chain, Account: account[:],
	})
	if err != nil {
		return sig.KeySet{}, fmt.Errorf("ask the ledger for a key set: %w", err)
	}
	held := r.GetAccount().GetKeys()
	if held == nil {
		return sig.KeySet{}, nil
	}
	set, err := sig.ParseKeySet(held)
	if err != nil {
		return sig.KeySet{}, fmt.Errorf("key set from the ledger: %w", err)
	}
	return set, nil
}
