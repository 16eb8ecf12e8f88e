package broker

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/united-containers/ucn/kit/rpc"
)

// front is where others connect. NATS counts connections that never log in together with those of
// own services and knows no bound per address: idle strangers could keep everybody out. So NATS
// itself listens nowhere, where other users of this machine would find it, and the front passes on
// what it lets in, through memory. NATS knows no TLS there, so the front ends it.
type front struct {
	net.Listener
	enter func() (net.Conn, error) // to NATS
	tls   *tls.Config              // nil for none
	log   *slog.Logger
}

// ownConnections is how many connections there is room for at NATS beyond those of the front: own
// services and the broker itself.
const ownConnections = 256

// acceptAgain is how long the front waits after it could not accept: for want of files, mostly.
const acceptAgain = 100 * time.Millisecond

// newFront listens on the configured address.
func newFront(cfg Config, secure *tls.Config, log *slog.Logger) (*front, error) {
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for the broker's clients: %w", err)
	}
	bound := rpc.Bound(listener, cfg.Connections, cfg.PerAddress, log)
	return &front{Listener: bound, tls: secure, log: log}, nil
}

// serve passes connections on to NATS until ctx ends, and returns when all are closed.
func (f *front) serve(ctx context.Context, enter func() (net.Conn, error)) {
	f.enter = enter
	var open sync.WaitGroup
	defer open.Wait()
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer stop()
	for {
		conn, err := f.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return
		}
		if err != nil {
			f.log.WarnContext(ctx, "cannot accept a connection", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptAgain):
			}
			continue
		}
		open.Go(func() { f.pass(ctx, conn) })
	}
}

// pass copies between a client and NATS until one of them is done or ctx ends.
func (f *front) pass(ctx context.Context, client net.Conn) {
	defer func() { _ = client.Close() }()
	inner, err := f.enter()
	if err != nil {
		f.log.WarnContext(ctx, "cannot reach the broker behind its listener", "error", err)
		return
	}
	defer func() { _ = inner.Close() }()

	ctx, done := context.WithCancel(ctx)
	defer done()
	stop := context.AfterFunc(ctx, func() { _, _ = inner.Close(), client.Close() })
	defer stop()
	outer, err := f.greet(ctx, client, inner)
	if err != nil {
		f.log.DebugContext(ctx, "a connection did not begin", "from", client.RemoteAddr().String(),
			"error", err)
		return
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		defer done()
		deliver(outer, inner)
	}()
	_, _ = io.Copy(inner, outer)
	done()
	<-back
}

// greet tells NATS who the client is, passes on NATS's first word, and returns the connection that
// the client goes on with: NATS's protocol says in the clear that TLS is required, and begins it
// then.
func (f *front) greet(ctx context.Context, client, inner net.Conn) (net.Conn, error) {
	late := time.Now().Add(greetTime)
	if err := errors.Join(client.SetDeadline(late), inner.SetDeadline(late)); err != nil {
		return nil, err
	}
	word := make([]byte, maxInfo)
	n := 0
	for !bytes.HasSuffix(word[:n], []byte("\n")) {
		if n == len(word) {
			return nil, errInfo
		}
		m, err := inner.Read(word[n:])
		if n += m; err != nil {
			return nil, err
		}
	}
	word = word[:n]
	_, err := inner.Write(proxyHeader(client.RemoteAddr()))
	if err == nil && f.tls != nil {
		word, err = requireTLS(word)
	}
	if err == nil {
		_, err = client.Write(word)
	}
	if err == nil && f.tls != nil {
		secure := tls.Server(client, f.tls)
		client, err = secure, secure.HandshakeContext(ctx)
	}
	if err != nil {
		return nil, err
	}
	return client, errors.Join(client.SetDeadline(time.Time{}), inner.SetDeadline(time.Time{}))
}

const (
	// greetTime is how long a connection may take until it speaks to NATS.
	greetTime = 5 * time.Second
	// maxInfo bounds the bytes of NATS's first word.
	maxInfo = 16 << 10
)

var errInfo = errors.New("the broker's first word is not as expected")

// requireTLS is NATS's first word with TLS.
func requireTLS(info []byte) ([]byte, error) {
	fields, ok := bytes.CutPrefix(info, []byte("INFO {"))
	if !ok || bytes.Contains(info, []byte(`"tls_required"`)) {
		return nil, errInfo
	}
	return append([]byte(`INFO {"tls_required":true,`), fields...), nil
}

// proxyHeader says who stands behind a connection, in version 1 of the PROXY protocol.
func proxyHeader(client net.Addr) []byte {
	from, err := netip.ParseAddrPort(client.String())
	if err != nil {
		return []byte("PROXY UNKNOWN\r\n")
	}
	ip, kind := from.Addr().Unmap().WithZone(""), "TCP6"
	if ip.Is4() {
		kind = "TCP4"
	}
	return fmt.Appendf(nil, "PROXY %s %s %s %d 0\r\n", kind, ip, ip, from.Port())
}

// A client must take each piece within deliverTime: a little more than NATS waits itself, so that
// NATS is who says why.
const (
	deliverTime  = writeDeadline + 5*time.Second
	deliverPiece = 64 << 10
)

// deliver copies from NATS to a client until either is done, or the client takes nothing. While a
// write to such a client waits nobody would read that NATS has cut it off: so each piece has a
// deadline.
func deliver(client, inner net.Conn) {
	piece := make([]byte, deliverPiece)
	for {
		n, err := inner.Read(piece)
		if n > 0 {
			if client.SetWriteDeadline(time.Now().Add(deliverTime)) != nil {
				return
			}
			if _, failed := client.Write(piece[:n]); failed != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
