package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/united-containers/ucn/kit/network"
	"github.com/united-containers/ucn/test/stage"
)

// relay stands between commands and a service. It lets a number of bytes pass and then none, until
// it is cut: then every connection breaks, and later ones work.
type relay struct {
	listener net.Listener
	to       string
	held     chan struct{} // closed when nothing passes any more
	wait     sync.WaitGroup

	mu    sync.Mutex // guards what follows
	left  int64
	free  chan struct{} // closed by cut
	conns []net.Conn
}

func newRelay(t *testing.T, to string, bytes int64) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: listener, to: to, left: bytes, held: make(chan struct{}),
		free: make(chan struct{})}
	r.wait.Go(r.accept)
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		r.cut()
		r.wait.Wait()
	})
	return r
}

func (r *relay) accept() {
	for {
		near, err := r.listener.Accept()
		if err != nil {
			return // it was closed
		}
		far, err := net.Dial("tcp", r.to)
		if err != nil {
			_ = near.Close() // what a service that is away looks like
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, near, far)
		r.mu.Unlock()
		r.wait.Go(func() { r.copy(near, far) })
		r.wait.Go(func() { r.copy(far, near) })
	}
}

// copy passes bytes on until either side ends, which ends both.
func (r *relay) copy(from, to net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			r.pass(int64(n))
			_, wrote := to.Write(buf[:n])
			err = errors.Join(err, wrote)
		}
		if err != nil {
			_ = errors.Join(from.Close(), to.Close()) // twice is harmless
			return
		}
	}
}

// pass counts bytes, and waits when they were enough.
func (r *relay) pass(n int64) {
	r.mu.Lock()
	before := r.left
	r.left -= n
	free := r.free
	if before > 0 && r.left <= 0 {
		close(r.held)
	}
	r.mu.Unlock()
	if before-n <= 0 {
		<-free
	}
}

// cut breaks what there is; from now on everything passes.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range r.conns {
		_ = conn.Close() // twice is harmless
	}
	if r.conns = nil; r.left < math.MaxInt64/2 {
		r.left = math.MaxInt64
		close(r.free)
	}
}

// moving is a command on its way through a relay.
type moving struct {
	*exec.Cmd
	out, bad bytes.Buffer
}

func (u *user) begin(args ...string) *moving {
	u.t.Helper()
	m := &moving{Cmd: u.ucn(args...)}
	m.Stdout, m.Stderr = &m.out, &m.bad
	if err := m.Start(); err != nil {
		u.t.Fatal(err)
	}
	return m
}

// through has the user's commands reach storage through a new relay.
func (u *user) through(bytes int64) *relay {
	u.t.Helper()
	file := u.scene.File
	r := newRelay(u.t, file.Services["storage"], bytes)
	services := map[string]string{}
	for name, address := range file.Services {
		services[name] = address
	}
	services["storage"] = r.listener.Addr().String()
	file.Services = services
	if err := network.Save(network.Path(u.Dir), file); err != nil {
		u.t.Fatal(err)
	}
	return r
}

// moved is what file put and file get print.
type moved struct {
	CID     string
	Resumed int64
}

func movedOf(t *testing.T, out string) (m moved) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &m); err != nil || m.CID == "" {
		t.Fatalf("it printed %q: %v", out, err)
	}
	return m
}

const transferSize = 48 << 20

// scenery writes a file that no other test stores.
func scenery(t *testing.T, seed byte) (path string, content []byte) {
	t.Helper()
	content = make([]byte, transferSize)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(content) // never fails
	path = filepath.Join(t.TempDir(), "scenery")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// TestTransfersGoOn: a put and a get whose command is killed with -9 half-way go on where they
// were; those whose connection breaks, or whose storage is killed, go on by themselves.
func TestTransfersGoOn(t *testing.T) {
	t.Parallel()
	s := processes(t)
	u := s.user(t)
	t.Run("command killed", func(t *testing.T) { killTransfers(t, u) })
	t.Run("connection broken", func(t *testing.T) {
		breakTransfers(t, u, 2, func(r *relay) { r.cut() })
	})
	t.Run("storage killed", func(t *testing.T) {
		breakTransfers(t, u, 3, func(r *relay) { restart(t, s, stage.Storage); r.cut() })
	})
}

func killTransfers(t *testing.T, u *user) {
	path, content := scenery(t, 1)
	half := func(args ...string) {
		t.Helper()
		r := u.through(transferSize / 2)
		cmd := u.begin(args...)
		<-r.held
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		r.cut()
		if cmd.out.Len() > 0 {
			t.Errorf("%v: killed half-way it printed %q", args, cmd.out.String())
		}
	}
	half("file", "put", path, "--json")
	put := movedOf(t, u.must("file", "put", path, "--json"))
	if put.Resumed < transferSize/8 {
		t.Errorf("put: %d bytes of %d were there", put.Resumed, transferSize/2)
	}
	to := filepath.Join(t.TempDir(), "scenery")
	half("file", "get", put.CID, "-o", to, "--json")
	if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half of a file stands under its name: %v", err)
	}
	got := movedOf(t, u.must("file", "get", put.CID, "-o", to, "--json"))
	if got.Resumed < transferSize/8 {
		t.Errorf("get: %d bytes of %d were here", got.Resumed, transferSize/2)
	}
	same(t, to, content)
}

func breakTransfers(t *testing.T, u *user, seed byte, harm func(*relay)) {
	path, content := scenery(t, seed)
	run := func(args ...string) moved {
		t.Helper()
		r := u.through(transferSize / 2)
		cmd := u.begin(args...)
		<-r.held
		harm(r)
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, cmd.bad.String())
		}
		return movedOf(t, cmd.out.String())
	}
	put := run("file", "put", path, "--json")
	to := filepath.Join(t.TempDir(), "scenery")
	run("file", "get", put.CID, "-o", to, "--json")
	same(t, to, content)
	u.through(math.MaxInt64)
	piped := u.ucn("file", "get", put.CID, "-o", "-")
	out, err := piped.Output()
	if err != nil || !bytes.Equal(out, content) {
		t.Errorf("to standard output: %d bytes, %v", len(out), err)
	}
}

// same tells whether a file holds this and nothing lies beside it.
func same(t *testing.T, path string, content []byte) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(file)
	if err = errors.Join(err, file.Close()); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v, not the %d that were put", len(got), err, len(content))
	}
	left, err := os.ReadDir(filepath.Dir(path))
	names := []string{}
	for _, d := range left {
		names = append(names, d.Name())
	}
	if err != nil || len(names) != 1 {
		t.Errorf("beside it: %s, %v", strings.Join(names, " "), err)
	}
}
