package broker_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/united-containers/ucn/kit/broker"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/bus/subject"
)

// dial opens a connection that never logs in, and returns the server's first word.
func dial(t *testing.T, b *broker.Broker) (net.Conn, string) {
	t.Helper()
	conn, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	word := make([]byte, 4)
	n, _ := io.ReadFull(conn, word)
	return conn, string(word[:n])
}

// TestIdleStrangers take all connections of the listener: more are closed at once, and own services
// come in all the same.
func TestIdleStrangers(t *testing.T) {
	cfg := config(t)
	cfg.Connections = 12
	b := start(t, cfg, broker.Deps{})
	for n := range cfg.Connections {
		if _, word := dial(t, b); word != "INFO" {
			t.Fatalf("stranger %d hears %q", n, word)
		}
	}
	if _, word := dial(t, b); word != "" {
		t.Errorf("one too many hears %q", word)
	}
	own, err := b.Connect("own")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if err := own.FlushTimeout(10 * time.Second); err != nil {
		t.Errorf("an own service: %v", err)
	}
}

// TestLeaversMakeRoom for others.
func TestLeaversMakeRoom(t *testing.T) {
	cfg := config(t)
	cfg.Connections = 2
	b := start(t, cfg, broker.Deps{Tokens: tokens{
		"good": {Scopes: []string{"bus"}, NotAfter: time.Now().Add(time.Hour)},
	}})
	enter := func() *nats.Conn {
		return connect(t, b, bus.TokenLogin(func() string { return "good" }))
	}
	first, second := enter(), enter()
	if err := second.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, word := dial(t, b); word != "" {
		t.Errorf("one too many hears %q", word)
	}
	first.Close()
	for deadline := time.Now().Add(10 * time.Second); ; {
		if _, word := dial(t, b); word == "INFO" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody comes in after one has left")
		}
	}
}

// TestBehindTheFront: messages of full size pass, and the log names who was turned away.
func TestBehindTheFront(t *testing.T) {
	var words lockedBuffer
	known := tokens{"good": {Scopes: []string{"bus"}, NotAfter: time.Now().Add(time.Hour)}}
	b := start(t, config(t), broker.Deps{
		Tokens: known, Log: slog.New(slog.NewTextHandler(&words, nil)),
	})
	conn, err := nats.Connect(b.URL(), nats.Token("good"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
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
	sent := bytes.Repeat([]byte("x"), 1<<20)
	if err := conn.Publish(subject.Address{Service: "ledger"}.RPC(), sent); err != nil {
		t.Fatal(err)
	}
	if m, err := heard.NextMsg(10 * time.Second); err != nil || !bytes.Equal(m.Data, sent) {
		t.Errorf("a message of %d bytes: %v", len(sent), err)
	}
	var local string
	_, err = nats.Connect(b.URL(), nats.MaxReconnects(0), nats.SetCustomDialer(remembers{&local}))
	if err == nil {
		t.Fatal("let in without a login")
	}
	if text := words.String(); !strings.Contains(text, "from="+local) {
		t.Errorf("turned away from %s, the log says\n%s", local, text)
	}
}

// remembers keeps the own address of the last connection.
type remembers struct{ local *string }

// Dial implements nats.CustomDialer.
func (r remembers) Dial(network, address string) (net.Conn, error) {
	conn, err := net.Dial(network, address)
	if err == nil {
		*r.local = conn.LocalAddr().String()
	}
	return conn, err
}

// lockedBuffer is written by many goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
