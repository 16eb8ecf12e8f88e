package rpc_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/kittest"
	"github.com/united-containers/ucn/kit/rpc"
)

// sized answers with as many KiB as it was asked for.
func sized(_ context.Context, kib string) (string, error) {
	n, err := strconv.Atoi(kib)
	return strings.Repeat("x", n<<10), err
}

// market is a server with room for answers, whose clients have addresses of their own.
type market struct {
	t    *testing.T
	addr string
}

func newMarket(t *testing.T, room config.Size) market {
	t.Helper()
	cfg := rpc.DefaultServer()
	cfg.MaxMessage, cfg.MaxAnswers, cfg.AnswerTime = 512<<10, room, time.Hour
	server := build(t, &echo{call: sized}, cfg, rpc.ServerDeps{Auth: anyone{}})
	kittest.Run(t, server)
	return market{t, server.Addr().String()}
}

// from is a connection of a loopback address.
func (m market) from(host int) *grpc.ClientConn {
	m.t.Helper()
	const window = 64 << 10 // one that does not grow
	local := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(host))}}
	conn, err := grpc.NewClient("passthrough:"+m.addr, grpc.WithInitialWindowSize(window),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return local.DialContext(ctx, "tcp", addr)
		}))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// hoard asks for an answer and takes none of it.
func (m market) hoard(host, kib int) {
	m.t.Helper()
	unreadOf(m.t, m.from(host), strconv.Itoa(kib))
}

func (m market) ask(conn *grpc.ClientConn, kib int) error {
	ctx := metadata.AppendToOutgoingContext(m.t.Context(), "authorization", "Bearer t")
	_, err := call(ctx, conn, echoCall, strconv.Itoa(kib))
	return rpc.Error("echo", err)
}

// refused asks for more than there is room for, and than anybody ends for.
func (m market) refused(conn *grpc.ClientConn, kib int) {
	m.t.Helper()
	if err := m.ask(conn, kib); !errors.Is(err, rpc.ReasonAnswers) || fault.From(err).Retry() == 0 {
		m.t.Errorf("an answer of %d KiB: %v", kib, err)
	}
}

// soon asks until there is an answer.
func (m market) soon(conn *grpc.ClientConn, kib int) {
	m.t.Helper()
	began := time.Now()
	for err := m.ask(conn, kib); err != nil; err = m.ask(conn, kib) {
		if !errors.Is(err, rpc.ReasonAnswers) || time.Since(began) > 20*time.Second {
			m.t.Fatal(err)
		}
	}
}

// TestWhoHoldsMostGivesWay to who needs less than half of that, long before AnswerTime is over.
func TestWhoHoldsMostGivesWay(t *testing.T) {
	m := newMarket(t, 1<<20)
	for host := range 3 {
		m.hoard(2+host, 300)
	}
	honest := m.from(200)
	m.refused(honest, 200)
	m.soon(honest, 140)
	m.hoard(100, 300) // takes the place of who gave way
	m.refused(honest, 200)
	m.soon(honest, 140)
}

// TestRoomForSmallAnswers is kept for who holds none.
func TestRoomForSmallAnswers(t *testing.T) {
	m := newMarket(t, 2<<20)
	for host := range 10 {
		m.hoard(2+host, 190) // 148 KiB are left, of which 128 are kept
	}
	honest := m.from(200)
	m.refused(honest, 100)
	if err := m.ask(honest, 60); err != nil {
		t.Errorf("a small answer: %v", err)
	}
}
