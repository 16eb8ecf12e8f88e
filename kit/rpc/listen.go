package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/test/bufconn"
)

// listen opens the address of a configuration.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	var config net.ListenConfig
	path, isUnix := strings.CutPrefix(addr, "unix:")
	if !isUnix {
		config.Control = endStalled
		return config.Listen(ctx, "tcp", addr)
	}
	if err := removeStaleSocket(path); err != nil {
		return nil, err
	}
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	const ownerOnly = 0o600
	if err := os.Chmod(path, ownerOnly); err != nil {
		return nil, errors.Join(fmt.Errorf("protect socket: %w", err), listener.Close())
	}
	return listener, nil
}

// removeStaleSocket removes the socket a killed process left behind. It refuses to take the place
// of a living server or of a file that is no socket.
func removeStaleSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	const patience = time.Second
	conn, err := net.DialTimeout("unix", path, patience)
	if err == nil {
		return errors.Join(fmt.Errorf("another server listens on %s", path), conn.Close())
	}
	return os.Remove(path)
}

// Pipe is a network inside one process: names instead of addresses, buffers instead of sockets.
// Servers listen on it and dialers dial it; everything above is the same as with TCP. The zero
// value is an empty network. It starts no goroutines.
type Pipe struct {
	mu        sync.Mutex // guards listeners
	listeners map[string]*pipeListener
}

// ErrNameTaken is wrapped by Listen when another server listens under the name.
var ErrNameTaken = errors.New("name is taken")

// Listen opens a listener under a name. Closing it frees the name.
func (p *Pipe) Listen(name string) (net.Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, taken := p.listeners[name]; taken {
		return nil, fmt.Errorf("listen on pipe %q: %w", name, ErrNameTaken)
	}
	if p.listeners == nil {
		p.listeners = map[string]*pipeListener{}
	}
	l := &pipeListener{Listener: bufconn.Listen(pipeBuffer), pipe: p, name: name}
	p.listeners[name] = l
	return l, nil
}

// DialContext connects to the listener of that name. It fails at once if there is none: gRPC tries
// again by itself.
func (p *Pipe) DialContext(ctx context.Context, name string) (net.Conn, error) {
	p.mu.Lock()
	l := p.listeners[name]
	p.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("nobody listens on pipe %q", name)
	}
	return l.DialContext(ctx)
}

type pipeListener struct {
	*bufconn.Listener
	pipe *Pipe
	name string
	once sync.Once
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr(l.name) }

func (l *pipeListener) Close() error {
	l.once.Do(func() {
		l.pipe.mu.Lock()
		defer l.pipe.mu.Unlock()
		delete(l.pipe.listeners, l.name)
	})
	return l.Listener.Close()
}

// pipeAddr is the name of a listener as a net.Addr.
type pipeAddr string

func (a pipeAddr) Network() string { return "pipe" }
func (a pipeAddr) String() string  { return "pipe:" + string(a) }

// certificate serves a key pair from files and reads them again when the certificate file changes.
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
