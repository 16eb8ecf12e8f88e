package server

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// bounded is a listener that accepts no more connections than it has slots. It waits for one to
// be closed before it accepts the next.
type bounded struct {
	net.Listener
	slots slots
}

// Accept implements net.Listener. Closing the listener ends it once a slot is free; the server
// closes its connections when it stops, so one will be.
func (b *bounded) Accept() (net.Conn, error) {
	b.slots <- struct{}{}
	conn, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
		return nil, err
	}
	return &slotConn{Conn: conn, free: sync.OnceFunc(func() { <-b.slots })}, nil
}

type slotConn struct {
	net.Conn
	free func()
}

// Close implements net.Conn.
func (c *slotConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}

// certificate serves a key pair from files and reads them again when the certificate changes.
type certificate struct {
	certFile, keyFile string

	mu      sync.Mutex // guards both, which belong together
	changed time.Time
	pair    *tls.Certificate
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(c.certFile)
	if err == nil && info.ModTime().Equal(c.changed) {
		return c.pair, nil
	}
	if err == nil {
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(c.certFile, c.keyFile); err == nil {
			c.pair, c.changed = &pair, info.ModTime()
		}
	}
	if c.pair == nil {
		return nil, fmt.Errorf("load TLS certificate: %w", err)
	}
	return c.pair, nil // a renewal caught half-way: the old pair still serves
}
