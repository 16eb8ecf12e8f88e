package broker

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/event"
	"github.com/united-containers/ucn/kit/rpc"
)

// How the server runs.
const (
	maxPayload    = 1 << 20  // bytes of one message
	maxPending    = 32 << 20 // bytes that wait for a slow client before it is cut off
	maxControl    = 16 << 10 // bytes of a login; a token or certificate has at most 6 KiB
	maxSubjects   = 16       // tokens of a subject
	maxListens    = 8192     // subscriptions of one connection
	startTimeout  = 30 * time.Second
	authTimeout   = 5 * time.Second // a key set may have to be looked up
	pingEvery     = 30 * time.Second
	syncEvery     = 2 * time.Minute // of streams without SyncAlways
	writeDeadline = 10 * time.Second
)

// Deps are what a Broker works with.
type Deps struct {
	// Tokens judges access tokens of clients; nil lets no client in by token.
	Tokens rpc.Authenticator
	// Instances judges certificates of instances; nil lets none in by certificate.
	Instances bus.Instances
	// Operators says whose instances are let in; nil lets in those of every account, which is for
	// tests: every account can certify instances, and a flood of them pushes others' events out of
	// the streams.
	Operators func(operator sig.AccountID) bool
	// TLS of the listener; required off loopback.
	TLS *tls.Config
	Log *slog.Logger // nil logs nothing
}

// Broker is an embedded NATS server. It runs once.
type Broker struct {
	cfg    Config
	log    *slog.Logger
	tls    *tls.Config // that clients of the listener must speak; nil for none
	server *server.Server
	// Of this process, never shown: admin for the streams, secret for own services, inbox for what
	// these hear.
	admin, secret, inbox string
	// commons is the account where everybody talks. The streams are in the server's global one,
	// which only the broker itself enters. nil until the server's store is open, or the server would
	// answer JetStream's requests in it by itself.
	commons atomic.Pointer[server.Account]
	front   atomic.Pointer[front] // nil without a listener, and before Run
	roster  *roster
}

// New prepares a broker: it makes the folder and locks nothing yet. Connect works from now on,
// its connections wait for Run.
func New(cfg Config, deps Deps) (*Broker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the broker's folder: %w", err)
	}
	b := &Broker{cfg: cfg, log: deps.Log, tls: deps.TLS,
		admin: rand.Text(), secret: rand.Text(),
		inbox: bus.InboxPrefix + "own" + rand.Text(), roster: newRoster()}
	options, err := b.options(deps)
	if err != nil {
		return nil, err
	}
	if b.server, err = server.NewServer(options); err != nil {
		return nil, fmt.Errorf("make the broker: %w", err)
	}
	b.server.SetLoggerV2(logger{deps.Log}, false, false, false)
	return b, nil
}

// accounts makes the account where everybody talks, lets answers of the streams into it, and opens
// it. Nobody is let in before.
func (b *Broker) accounts() error {
	commons, err := b.server.RegisterAccount("commons")
	if err != nil {
		return fmt.Errorf("make the broker's accounts: %w", err)
	}
	const answers = bus.InboxPrefix + ">"
	streams := b.server.GlobalAccount()
	if err := streams.AddStreamExport(answers, []*server.Account{commons}); err != nil {
		return fmt.Errorf("make the broker's accounts: %w", err)
	}
	if err := commons.AddStreamImport(streams, answers, ""); err != nil {
		return fmt.Errorf("make the broker's accounts: %w", err)
	}
	b.commons.Store(commons)
	return nil
}

func (b *Broker) options(deps Deps) (*server.Options, error) {
	o := &server.Options{
		ServerName: "ucn-" + rand.Text(), DontListen: true, NoSigs: true,
		DisableJetStreamBanner: true, JetStream: true, StoreDir: b.cfg.Dir,
		JetStreamMaxMemory: b.cfg.Memory, JetStreamMaxStore: b.cfg.Disk,
		SyncAlways: b.cfg.SyncAlways, SyncInterval: syncEvery,
		MaxConn: b.cfg.Connections + ownConnections, MaxPayload: maxPayload, MaxPending: maxPending,
		MaxSubs: maxListens, MaxControlLine: maxControl, MaxSubTokens: maxSubjects,
		PingInterval: pingEvery, MaxPingsOut: 2,
		WriteDeadline: writeDeadline, AuthTimeout: authTimeout.Seconds(),
		AlwaysEnableNonce: true,
		CustomClientAuthentication: &gate{
			admin: b.admin, secret: b.secret,
			commons: b.commons.Load, tokens: deps.Tokens, instances: deps.Instances,
			accept: deps.Operators, roster: b.roster, log: deps.Log,
		},
	}
	if b.cfg.Listen == "" {
		return o, nil
	}
	host, _, err := b.cfg.address()
	if err != nil {
		return nil, err
	}
	if !loopback(host) && deps.TLS == nil {
		return nil, fmt.Errorf("broker: listening on %s needs TLS", b.cfg.Listen)
	}
	o.ProxyProtocol = true // the front says who stands behind it
	if deps.TLS != nil {
		o.AuthTimeout += greetTime.Seconds()
	}
	return o, nil
}

// Run starts the server, makes the streams, calls ready, and stops the server when ctx ends; it
// implements kit/run.Component.
func (b *Broker) Run(ctx context.Context, ready func()) error {
	if b.cfg.Listen != "" {
		f, err := newFront(b.cfg, b.tls, b.log)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // done already by serve, if it came to that
		b.front.Store(f)
	}
	b.server.Start()
	defer func() {
		b.server.Shutdown()
		b.server.WaitForShutdown()
	}()
	if !b.server.ReadyForConnections(startTimeout) {
		return fmt.Errorf("start the broker: not ready after %s; see its log", startTimeout)
	}
	if !b.server.JetStreamEnabled() {
		return errors.New("start the broker: its store cannot be used; see its log")
	}
	if err := b.accounts(); err != nil {
		return err
	}
	admin, err := b.enter("streams", b.admin)
	if err != nil {
		return err
	}
	defer admin.Close()
	own, err := b.Connect("warden")
	if err != nil {
		return err
	}
	defer own.Close()
	if err := b.open(ctx, admin, own); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	ready()
	if f := b.front.Load(); f != nil {
		f.serve(ctx, b.server.InProcessConn)
	}
	<-ctx.Done()
	return nil
}

// open makes the streams and lets others at them.
func (b *Broker) open(ctx context.Context, admin, own *nats.Conn) error {
	if err := b.streams(ctx, admin); err != nil {
		return err
	}
	w := &warden{
		in: own, out: admin, own: b.inbox, shares: newShares(b.cfg.EventRate), log: b.log,
		inactive: 2 * cmp.Or(b.cfg.Age, event.DefaultAge), roster: b.roster,
		consumers: newConsumers(b.cfg.Consumers, func() (map[string]sig.AccountID, error) {
			return recall(admin, b.cfg.Services)
		}),
	}
	if err := w.consumers.load(); err != nil {
		return err
	}
	return w.guard(b.cfg.Services)
}

// streams makes what is missing. The disk is shared out so that no stream starves another.
func (b *Broker) streams(ctx context.Context, conn *nats.Conn) error {
	js, err := jetstream.New(conn)
	if err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	share := b.cfg.Disk / int64(len(b.cfg.Services)+1)
	limits := event.Limits{Age: b.cfg.Age, Bytes: min(share, event.DefaultBytes)}
	for _, service := range b.cfg.Services {
		if err := event.EnsureStream(ctx, js, service, limits); err != nil {
			return err
		}
	}
	return nil
}

// Connect returns a connection through memory for services of this process. It may talk and listen
// everywhere but at the streams, which it reaches as instances do. It does not wait for Run: until
// the broker runs the connection tries again and again. The caller closes it.
func (b *Broker) Connect(name string) (*nats.Conn, error) { return b.enter(name, b.secret) }

func (b *Broker) enter(name, secret string) (*nats.Conn, error) {
	options := append(bus.ConnectOptions(name, b.log),
		nats.InProcessServer(door{b}), nats.Token(secret), nats.CustomInboxPrefix(b.inbox),
		nats.ReconnectWait(20*time.Millisecond),
		nats.ReconnectJitter(20*time.Millisecond, 20*time.Millisecond))
	conn, err := nats.Connect("", options...)
	if err != nil {
		return nil, fmt.Errorf("connect to the broker of this process: %w", err)
	}
	return conn, nil
}

// door is where connections of this process come in. It is shut until the accounts are made: the
// server would turn them away, and a client that is turned away while the server opens its store
// waits for seconds, with its lock held.
type door struct{ *Broker }

var errShut = errors.New("the broker is not open yet")

// InProcessConn implements nats.InProcessConnProvider.
func (d door) InProcessConn() (net.Conn, error) {
	if d.commons.Load() == nil {
		return nil, errShut
	}
	return d.server.InProcessConn()
}

// Addr returns where the listener listens, nil without one or before Run.
func (b *Broker) Addr() net.Addr {
	f := b.front.Load()
	if f == nil {
		return nil
	}
	return f.Addr()
}

// URL returns the address of the listener for bus.Connect, "" without one.
func (b *Broker) URL() string {
	addr, _ := b.Addr().(*net.TCPAddr)
	if addr == nil {
		return ""
	}
	scheme, host := "nats", addr.IP.String()
	if addr.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	if b.tls != nil {
		scheme = "tls"
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(addr.Port))
}

// logger passes the server's words on. Its texts hold no secrets at these levels.
type logger struct{ log *slog.Logger }

var _ server.Logger = logger{}

func (l logger) Noticef(format string, v ...any) { l.tell(slog.LevelDebug, format, v) }
func (l logger) Warnf(format string, v ...any)   { l.tell(slog.LevelWarn, format, v) }
func (l logger) Fatalf(format string, v ...any)  { l.tell(slog.LevelError, format, v) }
func (l logger) Errorf(format string, v ...any)  { l.tell(slog.LevelError, format, v) }
func (l logger) Debugf(format string, v ...any)  { l.tell(slog.LevelDebug, format, v) }
func (l logger) Tracef(format string, v ...any)  { l.tell(slog.LevelDebug, format, v) }

func (l logger) tell(level slog.Level, format string, v []any) {
	l.log.Log(context.Background(), level, "nats", "text", fmt.Sprintf(format, v...))
}
