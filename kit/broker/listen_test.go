package broker_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/bus/subject"
	"github.com/united-containers/ucn/kit/kittest"
)

// listeners counts the TCP sockets on which this process listens.
func listeners(t *testing.T) (n int) {
	t.Helper()
	own := map[string]bool{}
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(links) == 0 {
		t.Fatalf("no files of this process: %v", err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil { // else it is closed by now
			own[to] = true
		}
	}
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		raw, err := os.ReadFile(table)
		if os.IsNotExist(err) {
			continue // without IPv6
		}
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(raw)) {
			const state, listens, inode = 3, "0A", 9
			f := strings.Fields(line)
			if len(f) > inode && f[state] == listens && own[fmt.Sprintf("socket:[%s]", f[inode])] {
				n++
			}
		}
	}
	return n
}

// TestNoOtherListener: there is no way around the bounds of the listener, and without one there is
// none at all.
func TestNoOtherListener(t *testing.T) {
	for name, tt := range map[string]struct {
		listen string
		want   int
	}{"listens": {"127.0.0.1:0", 1}, "does not": {"", 0}} {
		t.Run(name, func(t *testing.T) {
			cfg, before := config(t), listeners(t)
			cfg.Listen = tt.listen
			b := start(t, cfg, broker.Deps{})
			own, err := b.Connect("own")
			if err != nil {
				t.Fatal(err)
			}
			defer own.Close()
			if err := own.FlushTimeout(10 * time.Second); err != nil {
				t.Fatal(err)
			}
			if got := listeners(t) - before; got != tt.want {
				t.Errorf("%d listeners, want %d", got, tt.want)
			}
		})
	}
}

// TestTLS: clients come in with TLS alone, also those that learn only here that it is required.
func TestTLS(t *testing.T) {
	certFile, keyFile := kittest.TLS(t)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, config(t), broker.Deps{
		Tokens: tokens{"good": {Scopes: []string{"bus"}, NotAfter: time.Now().Add(time.Hour)}},
		TLS:    &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}},
	})
	own, err := b.Connect("own")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	heard, err := own.SubscribeSync("ucn.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := own.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{b.URL(), "nats://" + b.Addr().String()} {
		conn, err := nats.Connect(url, nats.Token("good"), nats.RootCAs(certFile))
		if err != nil {
			t.Fatal(err)
		}
		sent := bytes.Repeat([]byte("x"), 1<<20)
		if err := conn.Publish(subject.Address{Service: "ledger"}.RPC(), sent); err != nil {
			t.Fatal(err)
		}
		m, err := heard.NextMsg(10 * time.Second)
		if err != nil || !bytes.Equal(m.Data, sent) {
			t.Errorf("%s: a message of %d bytes: %v", url, len(sent), err)
		}
		conn.Close()
	}
	plain, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = plain.Close() }()
	if err := plain.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	from := bufio.NewReader(plain)
	info, err := from.ReadString('\n')
	if err != nil || !strings.Contains(info, `"tls_required":true`) {
		t.Errorf("its first word is %q, %v", info, err)
	}
	if _, err := plain.Write([]byte("CONNECT {\"auth_token\":\"good\"}\r\nPING\r\n")); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(from)
	if errors.Is(err, os.ErrDeadlineExceeded) || bytes.Contains(rest, []byte("PONG")) {
		t.Errorf("in the clear it hears %q, %v", rest, err)
	}
}
