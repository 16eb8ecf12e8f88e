package bus

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/cert"
)

// How connections behave.
const (
	reconnectWait = 250 * time.Millisecond
	dialTimeout   = 5 * time.Second
	pingEvery     = 20 * time.Second
	outboxBytes   = 8 << 20 // published while the connection is down; beyond it publishing fails
)

// ErrPlaintext is returned for a broker off this machine that is not reached by TLS: the login
// would travel in the open.
var ErrPlaintext = errors.New("a broker on another machine needs a tls:// address")

// Login is how a connection shows a broker whose it is.
type Login func(*nats.Options) error

// TokenLogin logs in with an access token of scope "bus" for the broker's operator. token is called
// at each connect and must not fail for long; what it returns is refused or not by the broker.
func TokenLogin(token func() string) Login { return Login(nats.TokenHandler(token)) }

// InstanceLogin logs in as an instance: the certificate, and the broker's nonce signed by its key.
// Its replies from JetStream come on an inbox that no other instance can listen to.
func InstanceLogin(key sig.PrivateKey, certificate []byte) (Login, error) {
	c, _, err := cert.Decode(certificate)
	if err != nil {
		return nil, fmt.Errorf("broker login: %w", err)
	}
	if key.IsZero() || c.InstanceKey != key.Public() {
		return nil, errors.New("broker login: the certificate is for another key")
	}
	text := base64.RawURLEncoding.EncodeToString(certificate)
	return func(o *nats.Options) error {
		o.InboxPrefix = InboxOf(c.InstanceKey)
		// The protocol's field for a public key carries the certificate.
		return nats.Nkey(text, func(nonce []byte) ([]byte, error) {
			signature := key.Sign(LoginPreimage(nonce))
			return signature[:], nil
		})(o)
	}, nil
}

// LoginPreimage returns what an instance signs to log in at a broker that gave it the nonce.
func LoginPreimage(nonce []byte) []byte { return sig.Preimage(sig.DomainBroker, nil, nonce) }

// InboxPrefix is what all inboxes begin with.
const InboxPrefix = "_INBOX."

// InboxOf returns the prefix of the inboxes of an instance that logs in by its certificate.
func InboxOf(instance sig.PublicKey) string { return InboxPrefix + subject.Instance(instance) }

// Connect connects to a broker at a NATS address such as "tls://nats.example:4222". login may be
// nil if the address itself holds what that broker asks for. It does not wait: a broker that is
// away is tried again for ever, and log, which may be nil, tells of it.
func Connect(address, name string, login Login, log *slog.Logger) (*nats.Conn, error) {
	if err := checkAddress(address); err != nil {
		return nil, fmt.Errorf("connect to broker: %w", err)
	}
	options := ConnectOptions(name, log)
	if login != nil {
		options = append(options, nats.Option(login))
	}
	conn, err := nats.Connect(address, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to broker: %w", err)
	}
	return conn, nil
}

// ConnectOptions returns what every connection of this house has: it never gives up, sees a dead
// broker within a minute, and tells log, which may be nil, what happens to it.
func ConnectOptions(name string, log *slog.Logger) []nats.Option {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return []nats.Option{
		nats.Name(name), nats.Timeout(dialTimeout), nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectWait, reconnectWait), nats.IgnoreAuthErrorAbort(),
		nats.ReconnectBufSize(outboxBytes), nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(2), nats.SyncQueueLen(pendingReplies),
		nats.DisconnectErrHandler(func(c *nats.Conn, err error) {
			if c.IsClosed() { // by ourselves
				return
			}
			log.Warn("the broker is away", "connection", name, "error", err)
		}),
		nats.ReconnectHandler(func(*nats.Conn) {
			log.Info("the broker is back", "connection", name)
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			on := ""
			if sub != nil {
				on = sub.Subject
			}
			log.Warn("the broker complains", "connection", name, "subject", on, "error", err)
		}),
	}
}

// checkAddress refuses logins in plain text off this machine.
func checkAddress(address string) error {
	for one := range strings.SplitSeq(address, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil {
			return errors.New("the address is not a URL") // the text may hold a password
		}
		ip := net.ParseIP(u.Hostname())
		local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
		if !local && u.Scheme != "tls" && u.Scheme != "wss" {
			return ErrPlaintext
		}
	}
	return nil
}
