package rpc_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/rpc"
)

// TestTooManyConnections: those beyond the bound are closed at once, and a place that becomes free
// is given again.
func TestTooManyConnections(t *testing.T) {
	cfg := rpc.DefaultServer()
	cfg.MaxConnections = 2
	server := build(t, &echo{call: shout}, cfg, rpc.ServerDeps{Auth: anyone{}})
	kittest.Run(t, server)
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	greeted := func(conn net.Conn) bool { // an HTTP/2 server speaks first
		_, err := conn.Read(make([]byte, 1))
		return err == nil
	}
	first, second := dial(), dial()
	if !greeted(first) || !greeted(second) || greeted(dial()) {
		t.Fatal("two were not let in, or the third was")
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	for range 100 { // the server notices by itself
		if greeted(dial()) {
			return
		}
	}
	t.Error("the place was not given again")
}

// crowd is a listener whose connections come from addresses of the test's choice.
type crowd struct {
	net.Listener
	from chan net.Addr
}

type addressed struct {
	net.Conn
	addr   net.Addr
	closed bool
}

func (a *addressed) RemoteAddr() net.Addr { return a.addr }

func (a *addressed) Close() error {
	a.closed = true
	return nil
}

func (c *crowd) Accept() (net.Conn, error) {
	addr, ok := <-c.from
	if !ok {
		return nil, io.EOF
	}
	return &addressed{addr: addr}, nil
}

func TestConnectionsPerAddress(t *testing.T) {
	for _, tc := range []struct{ from, want []string }{
		{
			[]string{"10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2", "127.0.0.1", "127.0.0.1",
				"10.0.0.3"},
			[]string{"10.0.0.1", "10.0.0.1", "10.0.0.2", "127.0.0.1", "127.0.0.1"},
		},
		{ // a /64 is one client
			[]string{"2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:2:3::", "2001:db8:1:3::1"},
			[]string{"2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:3::1"},
		},
	} {
		letIn(t, tc.from, tc.want)
	}
}

func letIn(t *testing.T, from, want []string) {
	t.Helper()
	cfg := rpc.DefaultServer()
	cfg.MaxConnections, cfg.MaxPerAddress = 5, 2
	c := &crowd{from: make(chan net.Addr, 10)}
	l := rpc.Bound(c, cfg.MaxConnections, cfg.MaxPerAddress, slog.New(slog.DiscardHandler))
	for _, host := range from {
		c.from <- &net.TCPAddr{IP: net.ParseIP(host), Port: 1}
	}
	close(c.from)
	var got []net.Conn
	for {
		conn, err := l.Accept()
		if errors.Is(err, io.EOF) {
			break
		}
		got = append(got, conn)
	}
	var hosts []string
	for _, conn := range got {
		hosts = append(hosts, conn.RemoteAddr().(*net.TCPAddr).IP.String())
	}
	if len(hosts) != len(want) {
		t.Fatalf("let in %v", hosts)
	}
	for i := range want {
		if hosts[i] != want[i] {
			t.Errorf("let in %v, want %v", hosts, want)
		}
	}
}

// TestRefusalsDoNotFloodTheLog: strangers do not choose how much is logged.
func TestRefusalsDoNotFloodTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := rpc.DefaultServer()
		cfg.MaxConnections = 0
		c := &crowd{from: make(chan net.Addr)}
		var told bytes.Buffer
		log := slog.New(slog.NewTextHandler(&told, nil))
		l := rpc.Bound(c, cfg.MaxConnections, cfg.MaxPerAddress, log)
		go func() {
			defer close(c.from)
			for i := range 101 {
				if i == 100 {
					time.Sleep(time.Minute) // of the bubble: takes no time
				}
				c.from <- &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: i}
			}
		}()
		if _, err := l.Accept(); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if lines := strings.Count(told.String(), "\n"); lines != 2 ||
			!strings.Contains(told.String(), "refused=100") {
			t.Errorf("logged %d lines: %s", lines, told.String())
		}
	})
}
