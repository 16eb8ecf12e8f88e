package rpc

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// bounded is a listener that lets in only so many connections, and only so many of one Origin, so
// that a stranger cannot make the server keep what it keeps per connection without end. What is too
// much is closed at once. Loopback addresses and others without a host share the first bound alone:
// all services of a machine come from there.
type bounded struct {
	net.Listener
	log            *slog.Logger
	most, mostOfIP int

	warn    rate.Sometimes
	refused int64 // since the last warning; one goroutine accepts

	mu   sync.Mutex // guards both
	open int
	of   map[string]int
}

// warnEvery is how often refused connections are logged: strangers make as many as they like.
const warnEvery = 10 * time.Second

// Bound returns a listener that has at most so many connections, and so many of one Origin.
func Bound(l net.Listener, most, perAddress int, log *slog.Logger) net.Listener {
	return &bounded{
		Listener: l, log: log, most: most, mostOfIP: perAddress,
		of: map[string]int{}, warn: rate.Sometimes{First: 1, Interval: warnEvery},
	}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		who := hostOf(conn.RemoteAddr())
		if b.take(who) {
			return &counted{Conn: conn, give: sync.OnceFunc(func() { b.give(who) })}, nil
		}
		b.refused++
		b.warn.Do(func() {
			b.log.LogAttrs(context.Background(), slog.LevelWarn, "too many connections",
				slog.String("from", conn.RemoteAddr().String()), slog.Int64("refused", b.refused))
			b.refused = 0
		})
		_ = conn.Close() // it was never used
	}
}

func (b *bounded) take(who string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open >= b.most || who != "" && b.of[who] >= b.mostOfIP {
		return false
	}
	b.open++
	if who != "" {
		b.of[who]++
	}
	return true
}

func (b *bounded) give(who string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open--
	if who == "" {
		return
	}
	if b.of[who]--; b.of[who] == 0 {
		delete(b.of, who)
	}
}

// hostOf is the address whose connections are counted together, "" for those that are not.
func hostOf(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || tcp.IP.IsLoopback() {
		return ""
	}
	return Origin(tcp.IP.String())
}

// counted is a connection that gives its place back.
type counted struct {
	net.Conn
	give func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.give()
	return c.Conn.Close()
}
