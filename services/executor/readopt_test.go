package executor_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	meternoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/chain/sig"
	events "github.com/united-containers/ucn/kit/event/pebble"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/agenttest"
	"github.com/united-containers/ucn/services/executor/executortest"
	"github.com/united-containers/ucn/services/executor/journal"
	"github.com/united-containers/ucn/services/executor/podman"
	"github.com/united-containers/ucn/services/executor/podman/cgroup"
	"github.com/united-containers/ucn/services/executor/server"
)

// childEnv makes the test binary an executor in the directory it names.
const childEnv = "UCN_TEST_EXECUTOR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(dir); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// outside is what stays when an executor is killed: the chain and the storage.
type outside struct {
	ledger *agenttest.Ledger
	files  *agenttest.Files
}

// The methods of outside are called over net/rpc. Absent things are told by Found, since named
// errors do not cross it.
type (
	Found[T any] struct {
		Found bool
		Value T
	}
	Placed struct {
		Lease  executor.SignedLease
		Escrow executor.Escrow
	}
	ChargedAll struct{ Results []executor.Charged }
)

func (o *outside) Place(p Placed, _ *int) error {
	o.ledger.Open(p.Lease.Lease.Escrow, p.Escrow)
	return o.ledger.Place(p.Lease)
}

func (o *outside) Lease(id executor.LeaseID, out *Found[executor.LeaseState]) (err error) {
	out.Value, err = o.ledger.Lease(context.Background(), "main", id)
	out.Found = err == nil
	return nil
}

func (o *outside) Escrow(id executor.EscrowID, out *Found[executor.Escrow]) (err error) {
	out.Value, err = o.ledger.Escrow(context.Background(), "main", id)
	out.Found = err == nil
	return nil
}

func (o *outside) Charge(list []executor.Charge, out *ChargedAll) (err error) {
	out.Results, err = o.ledger.Charge(context.Background(), "main", list)
	return err
}

func (o *outside) Put(body []byte, out *executor.StoredFile) (err error) {
	*out, err = o.files.Put(context.Background(), executor.FileAccess{}, "", strings.NewReader(
		string(body)))
	return err
}

// remote is outside as the executor sees it.
type remote struct {
	rpc   *rpc.Client
	image string // path of the layout
}

func (r *remote) Lease(_ context.Context, _ string, id executor.LeaseID) (
	executor.LeaseState, error,
) {
	var out Found[executor.LeaseState]
	err := r.rpc.Call("outside.Lease", id, &out)
	if err == nil && !out.Found {
		err = executor.ErrNoLease
	}
	return out.Value, err
}

func (r *remote) Escrow(_ context.Context, _ string, id executor.EscrowID) (
	executor.Escrow, error,
) {
	var out Found[executor.Escrow]
	err := r.rpc.Call("outside.Escrow", id, &out)
	if err == nil && !out.Found {
		err = executor.ErrNoEscrow
	}
	return out.Value, err
}

func (r *remote) Time(context.Context, string) (executor.ChainTime, error) {
	return executor.ChainTime{Block: time.Now(), Accrual: time.Now()}, nil
}

func (r *remote) AccountOf(
	context.Context, string, sig.AccountID,
) (executor.AccountState, error) {
	return executor.AccountState{Exists: true, Balance: ucn}, nil
}

func (r *remote) Charge(_ context.Context, _ string, list []executor.Charge) (
	[]executor.Charged, error,
) {
	var out ChargedAll
	return out.Results, errors.Join(r.rpc.Call("outside.Charge", list, &out))
}

func (r *remote) Settle(context.Context, string, []executor.LeaseID) error {
	return errors.New("nothing is held back here")
}

func (r *remote) Source(executor.FetchImage) (string, error) { return "", nil }

func (r *remote) OpenImage(context.Context, executor.FileAccess, executor.FetchImage) (
	io.ReadCloser, error,
) {
	return os.Open(r.image)
}

func (r *remote) CheckImage(context.Context, executor.FileAccess, executor.FetchImage) error {
	return nil
}

func (r *remote) FetchInput(context.Context, executor.FileAccess, executor.FetchInput) (
	string, error,
) {
	return "", executor.ErrNoFile
}

func (r *remote) DropInputs(context.Context, executor.AttemptID) error { return nil }

func (r *remote) Put(_ context.Context, _ executor.FileAccess, _ string, body io.Reader) (
	executor.StoredFile, error,
) {
	raw, err := io.ReadAll(body)
	if err != nil {
		return executor.StoredFile{}, err
	}
	var out executor.StoredFile
	err = r.rpc.Call("outside.Put", raw, &out)
	return out, err
}

// plan is what the parent tells its child.
type plan struct {
	Image  executor.ImageID
	Socket string
	Args   []string
}

func engineConfig(dir string) podman.Config {
	return podman.Config{
		Dir: filepath.Join(dir, "engine"), RunDir: filepath.Join(dir, "r"),
		Cgroup: "/" + filepath.Base(dir),
	}
}

// child is one life of an executor with the real engine. It asks itself for the planned job if its
// journal does not hold it yet, follows it to its end, and tells the outcome.
func child(dir string) error {
	var p plan
	raw, err := os.ReadFile(filepath.Join(dir, "plan.json"))
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err != nil {
		return err
	}
	conn, err := rpc.Dial("unix", p.Socket)
	if err != nil {
		return err
	}
	engine, err := podman.Open(engineConfig(dir))
	if err != nil {
		return err
	}
	driver, err := engine.Driver("e")
	if err != nil {
		return err
	}
	j, err := journal.Open(filepath.Join(dir, "journal"), journal.Options{},
		func(db *pebble.DB) (journal.Outbox, error) { return events.NewOutbox(db, "out/") })
	if err != nil {
		return err
	}
	encoder, err := server.NewEncoder(nil)
	if err != nil {
		return err
	}
	r := &remote{rpc: conn, image: filepath.Join(dir, "image.tar")}
	who := executor.Identity{Key: key(4), Anchors: map[string]sig.Anchor{"main": {7}}}
	who.Payee, who.Operator = sig.AccountID{5}, sig.AccountID{4}
	cfg := executor.DefaultConfig()
	cfg.NoteEvery = time.Second
	agent, err := executor.New(cfg, who, executor.Deps{
		Driver: driver, Journal: j, Ledger: r, Files: r, Encoder: encoder,
		Log:     slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Tracers: tracenoop.NewTracerProvider(), Meters: meternoop.NewMeterProvider(),
		Now: time.Now,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- agent.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		return err
	}
	err = live(ctx, agent, j, r, p)
	cancel()
	return errors.Join(err, <-done, driver.Close(), engine.Close(), j.Close())
}

const readopted = executor.AttemptID("0a")

func live(
	ctx context.Context, agent *executor.Agent, j *journal.Journal, r *remote, p plan,
) error {
	record, err := j.Get(ctx, readopted)
	if errors.Is(err, executor.ErrNoAttempt) {
		record.Ask, record.Lease, err = lease(ctx, agent, r, p)
	}
	if err != nil {
		return err
	}
	ask := record.Ask
	task := executor.Task{
		From: executor.Peer{Account: ask.Spec.Owner}, Job: ask.Job, Revision: ask.Revision,
		Run: ask.Run, Attempt: ask.Attempt, Lease: record.Lease.ID, StorageToken: "token",
	}
	err = agent.Task(ctx, task, func(u executor.Update) error {
		switch {
		case u.Note != nil:
			n := u.Note.Note.Note
			fmt.Printf("{\"Amount\":%d}\n", n.Cumulative)
			preimage := n.TX().AckPreimage(sig.Anchor{7})
			return agent.Acknowledge(ctx, task.Lease, executor.Ack{
				Note: n, Signature: key(3).Sign(preimage),
			})
		case u.Status != nil:
			raw, err := json.Marshal(u.Status)
			fmt.Printf("%s\n", raw)
			return err
		}
		return nil
	})
	for ; err == nil && record.Phase != executor.PhaseClosed; record, err = j.Get(ctx, readopted) {
		select { // the last charge comes after the end is told
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return err
}

func lease(ctx context.Context, agent *executor.Agent, r *remote, p plan) (
	executor.Ask, executor.SignedLease, error,
) {
	owner := sig.AccountOfKey(key(1).Public())
	now := time.Now()
	encoder, err := server.NewEncoder(nil)
	if err != nil {
		return executor.Ask{}, executor.SignedLease{}, err
	}
	for agent.Offer().Host == "" && agent.Offer().Expires.IsZero() && ctx.Err() == nil {
		<-time.After(5 * time.Millisecond) // the first offer comes right after the start
	}
	_, hash, err := encoder.Offer(agent.Offer())
	if err != nil {
		return executor.Ask{}, executor.SignedLease{}, err
	}
	ask := executor.Ask{
		From: executor.Peer{Instance: key(2).Public()}, Job: executor.JobID{1}, Run: "01",
		Attempt: readopted, Offer: hash,
		Spec: executor.JobSpec{
			Owner: owner, Chain: "main", Image: p.Image, Args: p.Args, Outputs: []string{"/out"},
			Isolation: executor.IsolationStandard,
			Resources: executor.Resources{CPUMilli: 1000, Memory: 64 << 20, Disk: 64 << 20},
		},
		Terms: executor.Terms{
			Escrow: executor.EscrowID{1}, Subject: executor.JobID{1}, Epoch: 1, Budget: ucn,
			AckKeys: []sig.PublicKey{key(3).Public()},
			PlaceBy: uint64(now.Add(time.Minute).UnixMilli()),
			Until:   uint64(now.Add(time.Hour).UnixMilli()),
		},
	}
	answer, err := agent.Ask(ctx, ask)
	if err == nil && answer.Lease == nil {
		err = fmt.Errorf("declined: %+v", *answer.Declined)
	}
	if err != nil {
		return ask, executor.SignedLease{}, err
	}
	return ask, *answer.Lease, r.rpc.Call("outside.Place", Placed{
		Lease: *answer.Lease, Escrow: readoptEscrow(),
	}, new(int))
}

// readoptEscrow backs the question of the life that is killed.
func readoptEscrow() executor.Escrow {
	return executor.Escrow{
		Job: executor.JobID{1}, Owner: sig.AccountOfKey(key(1).Public()), Free: ucn,
		Assigner: sig.AccountOfKey(key(2).Public()),
	}
}

// TestReadoptAfterKill kills an executor with -9 while its container runs in the real engine. The
// container goes on; the next life adopts it, finishes the job, and it is paid once.
func TestReadoptAfterKill(t *testing.T) {
	dir, err := os.MkdirTemp("", "ucnr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { wipe(t, dir) })
	image := executortest.GuestImage(t)
	o := &outside{
		ledger: agenttest.NewLedger(sig.Anchor{7}, time.Now), files: agenttest.NewFiles(),
	}
	o.ledger.Open(executor.EscrowID{1}, readoptEscrow())
	serve(t, o, dir, plan{Image: image.ID, Socket: filepath.Join(dir, "s"),
		Args: []string{"out", "begun", "spin", "300ms", "sleep", "4s", "write", "/out/a.txt", "abc"}})
	if err := os.WriteFile(filepath.Join(dir, "image.tar"), image.Layout, 0o600); err != nil {
		t.Fatal(err)
	}
	first, told := spawn(t, dir)
	notes := 0
	for status := range told {
		if status.State == "" {
			notes++
		}
		if notes == 2 { // one more than the first: there is something to double or to lose
			break
		}
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for range told { // until its output ends
	}
	_ = first.Wait() // it was killed
	second, told := spawn(t, dir)
	var last executor.Status
	for status := range told {
		last = status
	}
	if err := second.Wait(); err != nil {
		t.Fatalf("the second life: %v", err)
	}
	checkReadopted(t, o, last)
}

func checkReadopted(t *testing.T, o *outside, last executor.Status) {
	t.Helper()
	if last.State != executor.AttemptEnded || last.Outcome == nil {
		t.Fatalf("the last status is %+v", last)
	}
	got := last.Outcome
	if got.Reason != executor.EndCompleted || len(got.Outputs) != 1 ||
		string(o.files.Stored()[got.Outputs[0].CID]) != "abc" {
		t.Errorf("outcome %+v", got)
	}
	if got.Usage.WallMS < 4200 || got.Usage.WallMS > 8000 || got.Usage.Runs != 1 {
		t.Errorf("usage %+v, want one run of a little more than 4.3 s", got.Usage)
	}
	if cpu := time.Duration(got.Usage.CPUNS); cpu < 250*time.Millisecond || cpu > time.Second {
		t.Errorf("%v of CPU, want about 300 ms, counted once", cpu)
	}
	paid := o.ledger.Read(last.Lease)
	if paid.Paid != got.Amount || got.Amount == 0 || !paid.Settled {
		t.Errorf("paid %d, settled %v, want %d once", paid.Paid, paid.Settled, got.Amount)
	}
	if lines := strings.Count(string(o.files.Stored()[got.LogCID]), "begun"); lines != 1 {
		t.Errorf("the log tells of %d beginnings", lines)
	}
}

func serve(t *testing.T, o *outside, dir string, p plan) {
	t.Helper()
	raw, err := json.Marshal(p)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "plan.json"), raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := rpc.NewServer()
	if err := s.RegisterName("outside", o); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", p.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() }) // the folder goes too
	go s.Accept(listener)
}

// spawn starts a life; the channel gives what it tells and is closed at its end.
func spawn(t *testing.T, dir string) (*exec.Cmd, <-chan executor.Status) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // usually over by then
	told := make(chan executor.Status, 64)
	go func() {
		defer close(told)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var s executor.Status
			if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
				t.Errorf("the executor says %q", lines.Text())
				return
			}
			told <- s
		}
	}()
	return cmd, told
}

// wipe leaves nothing behind: containers, mounts, control groups, files.
func wipe(t *testing.T, dir string) {
	t.Helper()
	var errs []error
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if engine, err := podman.Open(engineConfig(dir)); err == nil {
		driver, err := engine.Driver("e")
		errs = append(errs, err)
		if err == nil {
			list, err := driver.List(ctx)
			errs = append(errs, err)
			for _, c := range list {
				errs = append(errs, c.Remove(ctx))
			}
		}
		errs = append(errs, engine.Close())
	}
	if groups, err := cgroup.Detect(cgroup.DefaultMount); err == nil {
		name := "/" + filepath.Base(dir)
		errs = append(errs, groups.Kill(ctx, name), groups.Remove(name))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	errs = append(errs, err)
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			_ = unix.Unmount(f[4], unix.MNT_DETACH) // what lies below another is gone with it
		}
	}
	if err := errors.Join(append(errs, os.RemoveAll(dir))...); err != nil {
		t.Errorf("cleaning up: %v", err)
	}
}
