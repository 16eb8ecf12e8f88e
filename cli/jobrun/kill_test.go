package jobrun_test

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/cli/clitest"
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/cli/jobrun"
	"github.com/united-containers/ucn/cli/session"
	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/submit"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

const (
	image    = "bafkreihddrhfp65j3gyy2qtc4rs4kfb5ciydggfcobmq5clojg72eb2qiu"
	runPrice = 1_000_000 // grains of one run at clitest.Prices
)

// errDead is what a killed command hears; it gives up at once and does nothing more.
var errDead = fault.New(fault.PermissionDenied, "DEAD", "this command was killed")

// life is one command: it dies at its k-th effect, before or after it happened.
type life struct {
	mu      sync.Mutex
	effects int
	killAt  int // 0: never
	dead    bool
	onDeath []func()
}

// effect counts an effect and says whether the command is dead.
func (l *life) effect() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return errDead
	}
	l.effects++
	if l.effects != l.killAt {
		return nil
	}
	l.dead = true
	for _, f := range l.onDeath {
		f()
	}
	return errDead
}

// atDeath has f called when the command dies.
func (l *life) atDeath(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.onDeath = append(l.onDeath, f)
}

// fate says whether the command is dead, without an effect.
func (l *life) fate() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return errDead
	}
	return nil
}

// mortal is a connection of a command that may be killed around each message.
type mortal struct {
	*grpc.ClientConn
	l *life
}

func (m mortal) Invoke(
	ctx context.Context, method string, in, out any, opts ...grpc.CallOption,
) error {
	if err := m.l.effect(); err != nil {
		return err
	}
	if err := m.ClientConn.Invoke(ctx, method, in, out, opts...); err != nil {
		return err
	}
	return m.l.effect()
}

func (m mortal) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	if err := m.l.effect(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	m.l.atDeath(cancel)
	s, err := m.ClientConn.NewStream(ctx, desc, method, opts...)
	return mortalStream{s, m.l}, err
}

type mortalStream struct {
	grpc.ClientStream
	l *life
}

func (s mortalStream) SendMsg(m any) error {
	if err := s.l.effect(); err != nil {
		return err
	}
	return s.ClientStream.SendMsg(m)
}

func (s mortalStream) RecvMsg(m any) error {
	if err := s.ClientStream.RecvMsg(m); err != nil {
		return cmp.Or(s.l.fate(), err)
	}
	return s.l.effect()
}

// errands are a folder that dies with the command.
type errands struct {
	jobrun.Folder
	l *life
}

func (e errands) Keep(k jobrun.Kept) error {
	if err := e.l.effect(); err != nil {
		return err
	}
	return errors.Join(e.Folder.Keep(k), e.l.effect())
}

func (e errands) Hold(id job.ID) (func(), error) {
	if err := e.l.effect(); err != nil {
		return nil, err
	}
	return e.Folder.Hold(id)
}

func (e errands) Drop(id job.ID) error {
	if err := e.l.effect(); err != nil {
		return err
	}
	return errors.Join(e.Folder.Drop(id), e.l.effect())
}

// recording keeps the connections that a session dials.
type recording struct {
	rpc.Dialer
	conns map[string]*grpc.ClientConn
}

func (r recording) Dial(ctx context.Context, service string) (*grpc.ClientConn, error) {
	conn, err := r.Dialer.Dial(ctx, service)
	r.conns[service] = conn
	return conn, err
}

// runner begins a life at a network.
func runner(t *testing.T, n *clitest.Network, folder jobrun.Folder, l *life) *jobrun.Runner {
	t.Helper()
	conns := map[string]*grpc.ClientConn{}
	cfg := n.Attach(session.Config{Network: n.File(), Key: ownerKey(), Now: time.Now})
	dial, broker := cfg.Dial, cfg.Broker
	cfg.Dial = func(deps rpc.ClientDeps) (rpc.Dialer, error) {
		d, err := dial(deps)
		return recording{d, conns}, err
	}
	cfg.Broker = func(login bus.Login) (*nats.Conn, error) {
		conn, err := broker(login)
		if err == nil {
			l.atDeath(conn.Close)
		}
		return conn, err
	}
	s, err := session.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	s.Sender.Close()
	s.Ledger = ledgerv1.NewLedgerServiceClient(mortal{conns["ledger"], l})
	s.Scheduler = schedulerv1.NewSchedulerServiceClient(mortal{conns["scheduler"], l})
	s.Storage = storagev1.NewStorageServiceClient(mortal{conns["storage"], l})
	s.Sender = submit.New(submit.Config{
		Ledger: s.Ledger, Key: ownerKey(), Chain: s.Chain, Anchor: s.Anchor, Now: time.Now,
	})
	return &jobrun.Runner{
		Session: s, View: silent{}, Errands: errands{folder, l}, Poll: 5 * time.Millisecond,
		Grace: 300 * time.Millisecond, Settle: 5 * time.Second,
	}
}

type silent struct{}

func (silent) Event(jobrun.Event) {}

func ownerKey() sig.PrivateKey { return sig.FromSeed([32]byte{1}) }

// host runs the program once, whoever looks and how often.
func host() clitest.Script {
	var once sync.Once
	usage := price.Usage{Runs: 1}
	return func(v *clitest.Visit) *jobv1.Outcome {
		once.Do(func() {
			v.Running()
			v.Charge(v.Note(usage, runPrice, true), nil, true)
		})
		return &jobv1.Outcome{
			Reason: jobv1.EndReason_END_REASON_COMPLETED, Amount: runPrice, Usage: usage.PB(),
		}
	}
}

func request(t *testing.T) jobrun.Request {
	file := jobfile.Default()
	file.Image = image
	return jobrun.Request{File: file, Dir: t.TempDir()}
}

// TestKilledAnywhere kills the command that runs a job at each of its effects in turn, and goes on
// with it in another. The job runs once, is paid once, and no money is left behind.
func TestKilledAnywhere(t *testing.T) {
	whole := &life{}
	if err := play(t, whole); err != nil {
		t.Fatal(err)
	}
	if whole.effects < 20 {
		t.Fatalf("a run has %d effects", whole.effects)
	}
	for k := 1; k <= whole.effects; k++ {
		t.Run(strconv.Itoa(k), func(t *testing.T) {
			t.Parallel()
			if err := play(t, &life{killAt: k}); err != nil {
				t.Errorf("killed at effect %d of %d: %v", k, whole.effects, err)
			}
		})
	}
}

// play runs a job in a life, and if that ended early goes on with it in another.
func play(t *testing.T, l *life) error {
	t.Helper()
	n := clitest.Start(t, ownerKey(), host())
	operator := n.Ledger.Balance(n.Operator())
	folder := jobrun.Folder(t.TempDir())
	first := runner(t, n, folder, l)
	l.atDeath(func() { go first.Session.Sender.Close() }) // it would try again
	_, _ = first.Run(t.Context(), request(t))             // see below what came of it
	again := runner(t, n, folder, &life{})
	list, _, err := folder.List()
	if err != nil || len(list) > 1 {
		return errors.Join(errors.New("what is kept"), err)
	}
	for range 2 { // after the first, an escrow of the killed command might still have come
		left, _, err := folder.List()
		if err != nil {
			return err
		}
		for _, k := range left {
			if r, err := again.Resume(t.Context(), k, jobrun.Request{}); err != nil {
				return err
			} else if !r.Completed() {
				return errors.New("it ended " + r.Result + ": " + r.Reason)
			}
		}
	}
	jobs := n.Market.Jobs()
	if l.killAt > 0 && len(list) == 0 && jobs == 0 { // nothing had moved
		if spent := operator - n.Ledger.Balance(n.Operator()); spent != 0 || n.Ledger.Escrows() != 0 {
			return errors.New("money moved for a job that nobody knows")
		}
		return nil
	}
	if jobs != 1 {
		return errors.New("not one job was queued")
	}
	got := n.Ledger.Balance(n.Operator()) - operator
	const fees = block.UCN / 1000
	if got < runPrice || got > runPrice+fees {
		return errors.New("the host was not paid once")
	}
	if open := n.Ledger.Escrows(); open != 0 {
		return errors.New("an escrow is left behind")
	}
	if left, _, err := folder.List(); err != nil || len(left) != 0 {
		return errors.Join(errors.New("it is still kept"), err)
	}
	return nil
}
