package server_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	db "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/fault"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	schedulerv1 "github.com/united-containers/ucn/proto/ucn/scheduler/v1"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/pebble"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
	"github.com/united-containers/ucn/services/scheduler/server"
)

// crowd fills a store with n jobs of an owner whose escrows are open.
func crowd(t *testing.T, store scheduler.Store, owner sig.AccountID, n int) {
	t.Helper()
	const savers = 8
	first := time.Now().Add(-time.Hour)
	var group errgroup.Group
	for saver := range savers {
		group.Go(func() error {
			for i := saver; i < n; i += savers {
				j := oneOfCrowd(owner, i, first.Add(time.Duration(i)*time.Millisecond))
				if err := store.Save(t.Context(), scheduler.Change{Job: j}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

func oneOfCrowd(owner sig.AccountID, i int, at time.Time) *scheduler.Job {
	j := schedulertest.NewJob(1, 0)
	j.ID = job.ID{0xcc}
	binary.BigEndian.PutUint32(j.ID[1:], uint32(i))
	copy(j.Runs[0].ID[:], j.ID[:])
	j.Owner, j.Escrow = owner, [32]byte(j.ID)
	j.Spec.Resources = price.Resources{CPUMilli: 1000, Memory: 64 << 20}
	j.Submitted, j.Runs[0].Created, j.Expires = at, at, at.Add(25*time.Hour)
	return j
}

func openStore(t *testing.T) scheduler.Store {
	t.Helper()
	d, err := db.Open("jobs", &db.Options{
		FS: vfs.NewMem(), Logger: quiet{t}, MemTableSize: 128 << 20, // a crowd fits, for speed
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return pebble.New(d, nil)
}

// quiet keeps the store's chatter out of the test's output.
type quiet struct{ t *testing.T }

func (quiet) Infof(string, ...any)             {}
func (q quiet) Errorf(format string, a ...any) { q.t.Logf(format, a...) }
func (q quiet) Fatalf(format string, a ...any) { q.t.Fatalf(format, a...) }

// crowded is how many jobs one owner has submitted before another submits one.
const crowded = 100_000

// TestOneOwnersCrowdStarvesNobody: however many runs of one owner wait on a market with little
// room, what another owner submits is the next or the one after it.
func TestOneOwnersCrowdStarvesNobody(t *testing.T) {
	store := openStore(t)
	alice := sig.AccountOfKey(sig.FromSeed([32]byte{1}).Public())
	crowd(t, store, alice, crowded)
	m := newMarketOn(t, store, server.Default())
	for i := range 100 { // those that come up in this test
		var id job.ID
		id[0] = 0xcc
		binary.BigEndian.PutUint32(id[1:], uint32(i))
		m.ledger.Fund(&scheduler.Job{ID: id, Owner: alice})
	}
	h := m.host(7)
	offer := m.offer(h, 1000)
	m.post(h, offer) // four cores
	m.awaitPlaced(4)
	bob := m.user(2, "job")
	id := m.submit(bob, 1)
	j, err := bob.GetJob(t.Context(), &schedulerv1.GetJobRequest{Job: id})
	if err != nil || !strings.Contains(j.GetJob().GetReason(), "others wait too") {
		t.Errorf("while it waits: %v, %v, want to be told what waits", j.GetJob().GetReason(), err)
	}
	offer.Free = &jobv1.Resources{CpuMilli: 1000, Memory: 8 << 30, Disk: 1 << 40}
	// Whose lease is on the chain counts: the job's record follows a moment later.
	for placed := 5; !m.placedFor(id); placed++ {
		if placed > 6 {
			t.Fatalf("%d others came first", placed-5)
		}
		m.post(h, offer) // one core more
		m.awaitPlaced(placed)
	}
	market, err := bob.GetMarket(t.Context(), &schedulerv1.GetMarketRequest{})
	if err != nil || market.GetPending() < crowded-10 || market.GetPendingOwners() > 2 {
		t.Errorf("market %v, %v, want %d pending", market, err, crowded)
	}
}

// awaitPlaced waits until n leases are on the chain.
func (m *market) awaitPlaced(n int) {
	m.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for m.ledger.Placed() < n {
		select {
		case <-tick.C:
		case <-deadline:
			m.t.Fatalf("%d leases are placed, want %d", m.ledger.Placed(), n)
		}
	}
}

// placedFor tells whether a lease of the job is on the chain.
func (m *market) placedFor(id []byte) bool {
	return slices.ContainsFunc(m.ledger.Paid(), func(p schedulertest.Paid) bool {
		return bytes.Equal(p.Escrow[:], id) // as the fake chain names them
	})
}

// TestQueueIsBounded: an account, and all together, are refused once too much of theirs waits.
func TestQueueIsBounded(t *testing.T) {
	cfg := server.Default()
	cfg.MaxPending, cfg.MaxPendingOfOwner = 3, 2
	m := newMarketOn(t, openStore(t), cfg)
	alice, bob, carol := m.user(1, "job"), m.user(2, "job"), m.user(3, "job")
	submit := func(u user, n int) error {
		_, err := u.SubmitJob(t.Context(), m.request(u, u.spec(n)))
		return err
	}
	first := m.submit(alice, 1)
	m.submit(alice, 2)
	err := submit(alice, 3)
	if !errors.Is(err, server.ReasonOwnerFull) || fault.KindOf(err) != fault.ResourceExhausted {
		t.Errorf("a third job of one account: %v, want %s", err, server.ReasonOwnerFull)
	}
	if err := submit(alice, 1); err != nil {
		t.Errorf("the same job again: %v", err)
	}
	m.submit(bob, 1)
	err = submit(carol, 1)
	if !errors.Is(err, server.ReasonQueueFull) || fault.KindOf(err) != fault.ResourceExhausted {
		t.Errorf("a fourth job in all: %v, want %s", err, server.ReasonQueueFull)
	}
	if _, err := alice.CancelJob(t.Context(), &schedulerv1.CancelJobRequest{Job: first}); err != nil {
		t.Fatal(err)
	}
	if err := submit(carol, 1); err != nil {
		t.Errorf("once there is room: %v", err)
	}
}
