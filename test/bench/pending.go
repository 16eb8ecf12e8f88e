package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/pebble"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// Shape of the benchmark of a long queue.
const (
	pendingRuns   = 1_000_000
	pendingOwners = 1_000
	// pendingShapes is how many different sizes jobs have.
	pendingShapes = 100
	pendingSavers = 64
	// pendingFor is how long the market is at work before its memory is read, on a market in which
	// nothing fits.
	pendingFor = 20 * time.Second
)

// pendingDir tells the process that it is the scheduler to be measured, and where its store is;
// pendingFill that it shall fill it first.
const (
	pendingDir  = "UCN_BENCH_PENDING_DIR"
	pendingFill = "UCN_BENCH_PENDING_FILL"
)

// longQueue measures the memory of a scheduler's engine and store in a process of its own while a
// million runs wait: once in the process that took them, once after a restart.
func longQueue(ctx context.Context, dir string) ([]figure, error) {
	filled, _, err := pendingChild(ctx, dir, true)
	if err != nil {
		return nil, err
	}
	again, restart, err := pendingChild(ctx, dir, false)
	if err != nil {
		return nil, err
	}
	return []figure{
		{"scheduler.pending1m_mib", max(filled, again), "MiB"},
		{"scheduler.pending1m_filled_mib", filled, "MiB"},
		{"scheduler.pending1m_restarted_mib", again, "MiB"},
		{"scheduler.pending1m_restart_s", restart, "s"},
	}, nil
}

// pendingChild runs this program as the scheduler and returns its memory and how long it took to
// be ready.
func pendingChild(ctx context.Context, dir string, fill bool) (mib, ready float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, 0, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), pendingDir+"="+dir)
	if fill {
		cmd.Env = append(cmd.Env, pendingFill+"=1")
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, 0, fmt.Errorf("the scheduler with a long queue: %w", err)
	}
	if _, err := fmt.Sscan(string(out), &mib, &ready); err != nil {
		return 0, 0, fmt.Errorf("read %q: %w", out, err)
	}
	return mib, ready, nil
}

// servePending is the scheduler that is measured.
func servePending(ctx context.Context, dir string, fill bool, out io.Writer) (err error) {
	began := time.Now()
	db, err := openJobs(filepath.Join(dir, "jobs"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	store := pebble.New(db, nil)
	if fill {
		if err := fillPending(ctx, store); err != nil {
			return err
		}
		began = time.Now()
	}
	ledger := schedulertest.NewLedger(time.Now)
	engine := scheduler.New(scheduler.DefaultPolicy(), scheduler.Deps{
		Store: store, Ledger: ledger, Hosts: &schedulertest.Hosts{},
		Assigner: schedulertest.Assigner(), VerifyLease: schedulertest.VerifyLease,
		Now: time.Now, Random: rand.Reader, Log: slog.New(slog.DiscardHandler),
		Trace: func(ctx context.Context, _, _ string) (context.Context, func(error)) {
			return ctx, func(error) {}
		},
	})
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	ready := make(chan struct{})
	go func() { ended <- engine.Run(running, func() { close(ready) }) }()
	<-ready
	took := time.Since(began)
	postOften(running, engine)
	mib, err := residentMiB()
	stop()
	if err := errors.Join(err, <-ended); err != nil {
		return err
	}
	count, err := store.Count(ctx)
	if err != nil || count.Runs != pendingRuns {
		return errors.Join(fmt.Errorf("%d runs wait, not %d", count.Runs, pendingRuns), err)
	}
	_, err = fmt.Fprintln(out, mib, took.Seconds())
	return err
}

// postOften brings an offer in which nothing fits, again and again, so that the queue is looked
// through all the while.
func postOften(ctx context.Context, e *scheduler.Engine) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	over := time.After(pendingFor)
	for {
		o := schedulertest.NewOffer(1, 1000, time.Now())
		o.Free.CPUMilli = 0
		e.Offer(o)
		select {
		case <-tick.C:
		case <-over:
			return
		case <-ctx.Done():
			return
		}
	}
}

func fillPending(ctx context.Context, store *pebble.Store) error {
	var group errgroup.Group
	for saver := range pendingSavers {
		group.Go(func() error {
			for n := saver; n < pendingRuns; n += pendingSavers {
				id := job.ID(sha256.Sum256(strconv.AppendInt(nil, int64(n), 10)))
				owner := n % pendingOwners
				j := waitingJob(id, sig.AccountID{1, byte(owner), byte(owner >> 8)})
				j.Escrow = tx.EscrowID(id)
				j.Spec.Resources.CPUMilli += uint32(n % pendingShapes)
				if err := store.Save(ctx, scheduler.Change{Job: j, Look: j.Expires}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// residentMiB is this process's resident memory, as the kernel counts it.
func residentMiB() (float64, error) {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("/proc/self/status tells no VmRSS")
}
