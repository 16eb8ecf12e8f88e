package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/config"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/oci"
	"github.com/united-containers/ucn/services/executor/executortest"
	"github.com/united-containers/ucn/test/stage"
)

// patience bounds one body; on a quiet machine the longest takes some 20 s.
const patience = 2 * time.Minute

// envProgram names the binary that TestMain has built.
const envProgram = "UCN_E2E_PROGRAM"

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Getenv(envProgram) != "" { // a test that runs in a process of its own
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "ucn-e2e-")
	if err == nil {
		defer os.RemoveAll(dir)
		var program string
		if program, err = stage.Build(context.Background(), dir); err == nil {
			err = os.Setenv(envProgram, program)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// scene is a network and an image for its jobs.
type scene struct {
	*stage.Network
	image *executortest.Image
}

// allInOne brings up a network in this process for as long as the test runs.
func allInOne(t *testing.T) *scene {
	t.Helper()
	return newScene(t, func(ctx context.Context) (*stage.Network, error) {
		return stage.AllInOne(ctx, logs{t})
	})
}

// processes brings up a network of processes for as long as the test runs.
func processes(t *testing.T) *scene {
	t.Helper()
	return newScene(t, func(ctx context.Context) (*stage.Network, error) {
		return stage.Processes(ctx, os.Getenv(envProgram))
	})
}

func newScene(t *testing.T, bring func(context.Context) (*stage.Network, error)) *scene {
	t.Helper()
	s := &scene{image: executortest.GuestImage(t)}
	var err error
	if s.Network, err = bring(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, service := range s.Services {
				t.Logf("the end of %s's log:\n%s", service.Name, service.Log())
			}
		}
		if err := s.Close(); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
	})
	return s
}

// logs shows what services log when the test fails or is verbose.
type logs struct{ t *testing.T }

func (l logs) Write(p []byte) (int, error) {
	l.t.Log(string(bytes.TrimRight(p, "\n")))
	return len(p), nil
}

// user is an owner with money and the image.
type user struct {
	*stage.Owner
	t     *testing.T
	scene *scene
	ctx   context.Context
}

// user makes an owner who has pushed the image.
func (s *scene) user(t *testing.T) *user {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	const money = 50 * stage.UCN
	owner, err := s.Owner(ctx, money)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := owner.Close(); err != nil {
			t.Errorf("closing a session: %v", err)
		}
	})
	u := &user{Owner: owner, t: t, scene: s, ctx: ctx}
	u.push()
	return u
}

func (u *user) push() {
	u.t.Helper()
	path := filepath.Join(u.t.TempDir(), "guest.tar")
	if err := os.WriteFile(path, u.scene.image.Layout, 0o600); err != nil {
		u.t.Fatal(err)
	}
	image, err := oci.OpenArchive(u.ctx, path, oci.Options{})
	if err != nil {
		u.t.Fatal(err)
	}
	err = blob.New(u.Storage).Push(u.ctx, image, "guest", func(oci.Part, blob.Stored) {})
	if err != nil {
		u.t.Fatal(err)
	}
	if err := image.Close(); err != nil {
		u.t.Fatal(err)
	}
}

// job is a small job of the guest program.
func (u *user) job(args ...string) jobfile.File {
	f := jobfile.Default()
	f.Name, f.Image, f.Args = "e2e", string(u.scene.image.ID), args
	f.Resources.CPU, f.Resources.Memory, f.Resources.Disk = 250, 32*config.MiB, 16*config.MiB
	return f
}

// at places a job with one operator's hosts.
func (u *user) at(operator string, f jobfile.File) jobfile.File {
	account := sig.AccountOfKey(u.scene.Operators[operator].Public())
	f.Placement.OperatorsAllow = []string{id.Bech32(id.Account, account)}
	return f
}

// runner runs jobs for the user and keeps their outputs in memory.
func (u *user) runner() (jobrun.Runner, *view) {
	v := &view{more: make(chan struct{}), files: map[string]string{}}
	return jobrun.Runner{Session: u.Session, View: v, Save: func(
		ctx context.Context, text, path string,
	) error {
		content, err := u.read(ctx, text)
		v.mu.Lock()
		defer v.mu.Unlock()
		v.files[path] = content
		return err
	}}, v
}

func (u *user) read(ctx context.Context, text string) (string, error) {
	c, err := cid.Parse(text)
	if err != nil {
		return "", err
	}
	r, err := blob.New(u.Storage).Open(ctx, c)
	if err != nil {
		return "", err
	}
	defer r.Close()
	raw, err := io.ReadAll(r)
	return string(raw), err
}

// run runs a job to its end.
func (u *user) run(f jobfile.File) (*jobrun.Report, *view) {
	u.t.Helper()
	r, v := u.runner()
	report, err := r.Run(u.ctx, jobrun.Request{File: f})
	if err != nil {
		u.t.Fatalf("%v\n%s", err, v)
	}
	return report, v
}

// following is a job that runs while the test does something else.
type following struct {
	*view
	u      *user
	stop   context.CancelFunc
	result chan result
}

type result struct {
	report *jobrun.Report
	err    error
}

// start runs a job in the background; its end is to be awaited.
func (u *user) start(f jobfile.File) *following {
	r, v := u.runner()
	ctx, stop := context.WithCancel(u.ctx)
	u.t.Cleanup(stop)
	out := &following{view: v, u: u, stop: stop, result: make(chan result, 1)}
	go func() { // ends with the job; the test waits for it or ends its context
		report, err := r.Run(ctx, jobrun.Request{File: f})
		out.result <- result{report, err}
	}()
	return out
}

// end waits for the job's end.
func (f *following) end() *jobrun.Report {
	f.u.t.Helper()
	r := <-f.result
	if r.err != nil {
		f.u.t.Fatalf("%v\n%s", r.err, f.view)
	}
	return r.report
}

// running waits until the job's program has printed a line.
func (f *following) running(line string) {
	f.u.t.Helper()
	f.await(f.u.t, "the line "+line, func(e jobrun.Event) bool {
		return e.Kind == jobrun.KindLog && e.Text == line
	})
}

// closeEscrow checks that nothing but the deposit is left in a job's escrow, and that it comes back
// once the chain lets go of the leases.
func (u *user) closeEscrow(report *jobrun.Report) {
	u.t.Helper()
	b := report.Bill
	if b.Closed != (b.Locked == 0) || tx.Grains(b.Locked) > maxDeposit {
		u.t.Errorf("locked %s, closed %v: %+v", b.Locked, b.Closed, report.Warnings)
	}
	if b.Paid+b.Refunded+b.Locked == 0 || b.Paid+b.Refunded > 1e9 {
		u.t.Errorf("of the escrow %s were paid, %s came back, %s are locked", b.Paid, b.Refunded,
			b.Locked)
	}
}

// maxDeposit is the state deposit of an escrow on a local network.
const maxDeposit = stage.UCN / 1000

// view keeps what is shown.
type view struct {
	mu     sync.Mutex // guards what follows
	events []jobrun.Event
	files  map[string]string
	more   chan struct{} // closed when events has grown
}

// Event implements jobrun.View.
func (v *view) Event(e jobrun.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.events = append(v.events, e)
	close(v.more)
	v.more = make(chan struct{})
}

// await waits for an event, also one of the past.
func (v *view) await(t *testing.T, what string, is func(jobrun.Event) bool) jobrun.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for at := 0; ; {
		v.mu.Lock()
		list, more := v.events[at:], v.more
		v.mu.Unlock()
		for _, e := range list {
			if at++; is(e) {
				return e
			}
		}
		select {
		case <-more:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s\n%s", what, v)
		}
	}
}

// find returns the events of a kind.
func (v *view) find(kind jobrun.Kind) (list []jobrun.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range v.events {
		if e.Kind == kind {
			list = append(list, e)
		}
	}
	return list
}

// String is what was shown, for failures.
func (v *view) String() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out bytes.Buffer
	for _, e := range v.events {
		fmt.Fprintf(&out, "%s %-9s %s %s %s %s\n", e.Time.Format("05.000"), e.Kind, e.State, e.Host,
			e.Reason, e.Text)
	}
	return out.String()
}
