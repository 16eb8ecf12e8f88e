package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	db "github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/errgroup"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/kit/submit"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	ledgerserver "github.com/united-containers/ucn/services/ledger/server"

	"github.com/united-containers/ucn/services/ledger/ledgertest"
	"github.com/united-containers/ucn/services/ledger/wire/wiretest"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/ledgerrpc"
	"github.com/united-containers/ucn/services/scheduler/pebble"
)

// Shape of the placing benchmark.
const (
	placeHosts  = 100
	placeOwners = 20
	placeJobs   = 20_000 // in all
	openAtOnce  = 100    // escrows in one transaction
)

// placing is a market of 100 executors that sign every lease, on a real ledger over loopback TCP
// and a real store on disk; only bus and containers are left out.
type placing struct {
	network *ledgertest.Network
	ledger  *wiretest.Service
	store   *db.DB
	jobs    *pebble.Store
	hosts   *signers
	close   []func() error
}

// placeRuns measures how many runs a second get from the queue to the confirmed delivery: matched,
// asked, lease signed and verified, written down, on the chain (durable, with state root), written
// down again and delivered.
func placeRuns(ctx context.Context, dir string) (_ []figure, err error) {
	p := &placing{}
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := p.prepare(ctx, dir); err != nil {
		return nil, err
	}
	perSecond, cpu, err := p.run(ctx)
	if err != nil {
		return nil, err
	}
	return []figure{
		{"scheduler.place_per_s", perSecond, "1/s"},
		{"scheduler.place_cpu_us", float64(cpu.Microseconds()) / placeJobs, "us"},
	}, nil
}

// stop lets go of all that was opened, the newest first.
func (p *placing) stop() (err error) {
	for i := len(p.close) - 1; i >= 0; i-- {
		err = errors.Join(err, p.close[i]())
	}
	return err
}

func (p *placing) prepare(ctx context.Context, dir string) (err error) {
	if p.network, err = ledgertest.NewNetwork(1, 1+placeOwners); err != nil {
		return err
	}
	c, err := wiretest.Config(p.network, dir)
	if err != nil {
		return err
	}
	if p.ledger, err = wiretest.Serve(p.network, c, nil); err != nil {
		return err
	}
	p.close = append(p.close, p.ledger.Stop)
	if p.store, err = openJobs(filepath.Join(dir, "jobs")); err != nil {
		return err
	}
	p.close = append(p.close, p.store.Close)
	p.jobs = pebble.New(p.store, nil)
	p.hosts = newSigners(p.network.Anchor)
	var group errgroup.Group
	for owner := range placeOwners {
		group.Go(func() error { return p.fund(ctx, 1+owner) })
	}
	return group.Wait()
}

// openJobs opens a store as the scheduler does.
func openJobs(dir string) (*db.DB, error) {
	cache := db.NewCache(8 << 20)
	defer cache.Unref()
	return db.Open(dir, &db.Options{
		Cache: cache, Logger: silent{}, FormatMajorVersion: db.FormatTableFormatV6,
	})
}

// silent keeps the store's chatter out of the figures.
type silent struct{}

func (silent) Infof(string, ...any)           {}
func (silent) Errorf(string, ...any)          {}
func (silent) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

// sender acts for one account of the network through a connection of its own.
func (p *placing) sender(account int) (*submit.Sender, ledgerv1.LedgerServiceClient, error) {
	conn, err := p.ledger.Dial(p.network.Keys[account], ledgerserver.Scope)
	if err != nil {
		return nil, nil, err
	}
	client := ledgerv1.NewLedgerServiceClient(conn)
	s := submit.New(submit.Config{
		Ledger: client, Key: p.network.Keys[account], Chain: block.Main, Anchor: p.network.Anchor,
		Now: time.Now,
	})
	p.hosts.mu.Lock() // several owners open theirs at the same time
	defer p.hosts.mu.Unlock()
	p.close = append(p.close, conn.Close, func() error { s.Close(); return nil })
	return s, client, nil
}

// fund opens the escrows of one owner's jobs and puts the jobs into the queue.
func (p *placing) fund(ctx context.Context, owner int) error {
	sender, _, err := p.sender(owner)
	if err != nil {
		return err
	}
	for first := 0; first < placeJobs/placeOwners; first += openAtOnce {
		var open []tx.Operation
		var ids []job.ID
		for i := range openAtOnce {
			id := job.ID(sha256.Sum256(fmt.Appendf(nil, "%d/%d", owner, first+i)))
			ids = append(ids, id)
			open = append(open, p.escrow(owner, id))
		}
		result, err := sender.Send(ctx, open...)
		if err != nil {
			return fmt.Errorf("open escrows: %w", err)
		}
		for i, id := range ids {
			j := waitingJob(id, p.network.Accounts[owner])
			j.Escrow = tx.EscrowIDOf(result.ID, uint32(i))
			if err := p.jobs.Save(ctx, scheduler.Change{Job: j, Look: j.Expires}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *placing) escrow(owner int, id job.ID) *tx.OpenEscrow {
	return &tx.OpenEscrow{
		Purpose: chainv1.Purpose_PURPOSE_JOB, Subject: id[:], Amount: 1_000_000,
		Terms: tx.Terms{
			MaxRate: 1 << 40, MaxTotal: 1_000_000, Trust: 1_000,
			AckKeys:  []sig.PublicKey{p.network.Keys[owner].Public()},
			Assigner: p.network.Accounts[0],
			Expires:  tx.Millis(time.Now().Add(72 * time.Hour).UnixMilli()),
			LeaseFee: scheduler.DefaultLeaseFee, LeaseFeeTotal: scheduler.DefaultLeaseFee,
		},
	}
}

// waitingJob is a job as it is after its submission, with a revision of usual size.
func waitingJob(id job.ID, owner sig.AccountID) *scheduler.Job {
	now := time.Now()
	j := &scheduler.Job{
		ID: id, Owner: owner, Revision: make([]byte, 600), Submitted: now,
		Delivery: scheduler.ByScheduler, Expires: now.Add(48 * time.Hour),
		Spec: scheduler.Spec{
			Name: "bench", Chain: block.Main, Platforms: []string{"linux/amd64"},
			Image:     "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
			Resources: price.Resources{CPUMilli: 100, Memory: 64 << 20},
			MaxTotal:  1_000_000, Trust: 1_000, RunTime: time.Hour,
		},
	}
	copy(j.Revision, id[:])
	run := scheduler.Run{State: scheduler.Pending, Reason: "waiting: just submitted", Created: now}
	copy(run.ID[:], id[:])
	j.Runs = []scheduler.Run{run}
	return j
}

// engine returns a scheduler's engine over the market.
func (p *placing) engine() (*scheduler.Engine, error) {
	sender, client, err := p.sender(0)
	if err != nil {
		return nil, err
	}
	ledger := ledgerrpc.New(client, sender, block.Main, p.network.Anchor)
	return scheduler.New(scheduler.DefaultPolicy(), scheduler.Deps{
		Store: p.jobs, Ledger: ledger, Hosts: p.hosts, Assigner: p.network.Accounts[0],
		VerifyLease: ledger.VerifyLease, Now: time.Now, Random: rand.Reader,
		Log: slog.New(slog.DiscardHandler),
		Trace: func(ctx context.Context, _, _ string) (context.Context, func(error)) {
			return ctx, func(error) {}
		},
	}), nil
}

// run lets the engine place everything and returns how many a second, and the process's CPU time.
func (p *placing) run(ctx context.Context) (float64, time.Duration, error) {
	engine, err := p.engine()
	if err != nil {
		return 0, 0, err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	ready := make(chan struct{})
	go func() { ended <- engine.Run(running, func() { close(ready) }) }()
	<-ready
	began, busy := time.Now(), cpuTime()
	p.hosts.post(engine)
	select {
	case <-p.hosts.all:
	case err := <-ended:
		return 0, 0, errors.Join(errors.New("the engine ended"), err)
	case <-time.After(2 * time.Minute):
		stop()
		return 0, 0, errors.Join(fmt.Errorf("%d of %d runs were delivered in two minutes",
			p.hosts.delivered.Load(), placeJobs), <-ended)
	}
	took, busy := time.Since(began), cpuTime()-busy
	stop()
	return placeJobs / took.Seconds(), busy, <-ended
}

// cpuTime is what this process has used of the processors; 0 when the system does not say.
func cpuTime() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// signers are executors that sign every lease they are asked for.
type signers struct {
	anchor    sig.Anchor
	delivered atomic.Int64
	all       chan struct{}

	mu     sync.Mutex
	keys   map[sig.PublicKey]sig.PrivateKey
	offers map[sig.PublicKey]*scheduler.Offer
}

var _ scheduler.Hosts = (*signers)(nil)

func newSigners(anchor sig.Anchor) *signers {
	s := &signers{
		anchor: anchor, all: make(chan struct{}), keys: map[sig.PublicKey]sig.PrivateKey{},
		offers: map[sig.PublicKey]*scheduler.Offer{},
	}
	for n := range placeHosts {
		var seed [32]byte
		binary.BigEndian.PutUint32(seed[:], uint32(n+1))
		key := sig.FromSeed(seed)
		s.keys[key.Public()] = key
		s.offers[key.Public()] = &scheduler.Offer{
			Host: scheduler.Host{
				Executor: key.Public(), Operator: sig.AccountOfKey(key.Public()),
				Name: fmt.Sprintf("host-%d", n), Subject: "ucn.v1.bench", Certificate: make([]byte, 400),
			},
			Payee: sig.AccountOfKey(key.Public()), Hash: [32]byte{1, byte(n)},
			Prices:    price.Prices{Model: price.Linear, CoreHour: 1_000_000 + uint64(n)},
			Free:      price.Resources{CPUMilli: 64_000, Memory: 1 << 40},
			Total:     price.Resources{CPUMilli: 64_000, Memory: 1 << 40},
			Platforms: []string{"linux/amd64"}, Standard: true, Chains: []string{block.Main},
		}
	}
	return s
}

// post brings the offers of all hosts.
func (s *signers) post(e *scheduler.Engine) {
	for _, o := range s.offers {
		o.Posted, o.Expires = time.Now(), time.Now().Add(5*time.Minute)
		e.Offer(o)
	}
}

// Ask implements scheduler.Hosts.
func (s *signers) Ask(
	_ context.Context, h scheduler.Host, a scheduler.Ask,
) (scheduler.SignedLease, error) {
	o, t := s.offers[h.Executor], a.Terms
	rate, _, err := price.SingleRun(o.Prices, a.Resources)
	if err != nil {
		return scheduler.SignedLease{}, err
	}
	l := tx.Lease{
		Escrow: t.Escrow, Subject: t.Subject[:], Slot: t.Slot, Epoch: t.Epoch, Payee: o.Payee,
		AgentKey: h.Executor, Rate: rate, Budget: tx.Grains(t.Budget), Trust: tx.Grains(t.Trust),
		AckKeys: t.AckKeys, ClaimWindow: tx.Millis(t.ClaimWindow.Milliseconds()),
		PriceHash: o.Prices.Hash(), OfferHash: o.Hash,
		PlaceBy: tx.Millis(t.PlaceBy.UnixMilli()), Until: tx.Millis(t.Until.UnixMilli()),
	}
	return scheduler.SignedLease{
		Lease: l, Signature: s.keys[h.Executor].Sign(l.Preimage(s.anchor)),
	}, nil
}

// Deliver implements scheduler.Hosts.
func (s *signers) Deliver(
	context.Context, scheduler.Host, scheduler.Task,
) (*scheduler.Report, error) {
	if s.delivered.Add(1) == placeJobs {
		close(s.all)
	}
	return nil, nil
}

// Stop implements scheduler.Hosts.
func (s *signers) Stop(context.Context, scheduler.Host, scheduler.Stop) error { return nil }
