package broker

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/united-containers/ucn/kit/rpc"
)

// front is where others connect. NATS counts connections that never log in together with those of
// own services and knows no bound per address: idle strangers could keep everybody out. So NATS
// itself listens on loopback, and the front passes on what it lets in; TLS goes through untouched.
type front struct {
	net.Listener
	inner string // address of NATS
	log   *slog.Logger
	// from is who stands behind a connection to NATS, by that connection's own address.
	from sync.Map
}

// ownConnections is how many connections there is room for at NATS beyond those of the front: own
// services and the broker itself.
const ownConnections = 256

// acceptAgain is how long the front waits after it could not accept: for want of files, mostly.
const acceptAgain = 100 * time.Millisecond

// newFront listens on the configured address.
func newFront(cfg Config, log *slog.Logger) (*front, error) {
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for the broker's clients: %w", err)
	}
	bound := rpc.Bound(listener, cfg.Connections, cfg.PerAddress, log)
	return &front{Listener: bound, log: log}, nil
}

// serve passes connections on to NATS at inner until ctx ends, and returns when all are closed.
func (f *front) serve(ctx context.Context, inner string) {
	f.inner = inner
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
	var dialer net.Dialer
	inner, err := dialer.DialContext(ctx, "tcp", f.inner)
	if err != nil {
		f.log.WarnContext(ctx, "cannot reach the broker behind its listener", "error", err)
		return
	}
	defer func() { _ = inner.Close() }()
	f.from.Store(inner.LocalAddr().String(), client.RemoteAddr().String())
	defer f.from.Delete(inner.LocalAddr().String())

	ctx, done := context.WithCancel(ctx)
	defer done()
	stop := context.AfterFunc(ctx, func() { _, _ = inner.Close(), client.Close() })
	defer stop()
	back := make(chan struct{})
	go func() {
		defer close(back)
		defer done()
		deliver(raw(client), raw(inner))
	}()
	_, _ = io.Copy(raw(inner), raw(client))
	done()
	<-back
}

// A client must take each piece within deliverTime: a little more than NATS waits itself, so that
// NATS is who says why. What NATS wrote before it closed a connection lies in buffers: few, so that
// a client that takes little cannot stay for long when its token is over.
const (
	deliverTime   = writeDeadline + 5*time.Second
	deliverPiece  = 64 << 10
	deliverBuffer = 256 << 10
)

// deliver copies from NATS to a client until either is done, or the client takes nothing. While the
// kernel waits for such a client nobody would read that NATS has cut it off: so each piece has a
// deadline, which splice has not.
func deliver(client, inner net.Conn) {
	if tcp, ok := inner.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(deliverBuffer) // else it is a larger one
	}
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

// raw finds the TCP connection inside, between two of which the kernel copies by itself.
func raw(c net.Conn) net.Conn {
	if inside, ok := c.(interface{ NetConn() net.Conn }); ok {
		return inside.NetConn()
	}
	return c
}

// origin names who stands behind a connection to NATS, for the log.
func (f *front) origin(inner string) string {
	if f != nil {
		if from, known := f.from.Load(inner); known {
			return from.(string)
		}
	}
	return inner
}
