package ack_test

import (
	"errors"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli/ack"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

const begin = 1_800_000_000_000 // ms

func agentKey() sig.PrivateKey { return sig.FromSeed([32]byte{1}) }
func ownerKey() sig.PrivateKey { return sig.FromSeed([32]byte{2}) }

func agreement() ack.Agreement {
	prices := price.Prices{Model: price.Linear, CoreHour: 3_600_000_000, Run: 50}
	a := ack.Agreement{
		Anchor: sig.Anchor{9}, From: begin, Budget: 1_000_000_000, Prices: prices,
		Revision: tx.Hash{4}, Escrow: tx.EscrowID{5}, Job: [32]byte{6}, Key: ownerKey(),
	}
	a.Lease = tx.Lease{
		Escrow: a.Escrow, Subject: a.Job[:], Epoch: 1, Payee: sig.AccountID{7},
		AgentKey: agentKey().Public(), Upfront: 50, Rate: 3_600_000_000, Budget: 1_000_000_000,
		Trust: 60_000_000, AckKeys: []sig.PublicKey{ownerKey().Public()},
		ClaimWindow: 86_400_000, PriceHash: prices.Hash(), OfferHash: tx.Hash{8},
		PlaceBy: begin + 60_000, Until: begin + 3_600_000,
	}
	return a
}

// used is an honest usage after some seconds: one core all the time, 1,000 grains per ms.
func used(seconds uint64) price.Usage {
	return price.Usage{
		WallMS: seconds * 1_000, CPUNS: seconds * 1_000_000_000, MemoryKiBMS: seconds, Runs: 1,
	}
}

// asked is a note as an honest host signs it, after spoil had its way with it.
func asked(a *ack.Agreement, seconds uint64, spoil func(*tx.Note, *price.Usage)) *jobv1.SignedNote {
	usage := used(seconds)
	amount, err := price.Amount(a.Prices, usage)
	if err != nil {
		panic(err)
	}
	note := tx.Note{
		Lease: a.Lease.ID(a.Anchor), Revision: a.Revision, Cumulative: amount,
		Upto: begin + tx.Millis(seconds*1_000),
	}
	if spoil != nil {
		spoil(&note, &usage)
	}
	if note.UsageHash == (tx.Hash{}) {
		note.UsageHash = usage.Hash()
	}
	signature := agentKey().Sign(note.Preimage(a.Anchor))
	return &jobv1.SignedNote{
		Note: note.PB(), Signature: signature[:], Usage: usage.PB(), Prices: a.Prices.PB(),
	}
}

func clock(seconds int64) func() time.Time {
	return func() time.Time { return time.UnixMilli(begin + seconds*1_000) }
}

func TestHonestNotes(t *testing.T) {
	a := agreement()
	c, err := ack.New(a, clock(60))
	if err != nil {
		t.Fatal(err)
	}
	for _, seconds := range []uint64{0, 5, 5, 10, 60} {
		got, err := c.Check(asked(&a, seconds, nil))
		if err != nil {
			t.Fatalf("after %d s: %v", seconds, err)
		}
		if want := tx.Grains(50 + seconds*1_000_000); got.Amount != want {
			t.Errorf("after %d s: %d grains, want %d", seconds, got.Amount, want)
		}
		if !sig.Verify(ownerKey().Public(), got.Note.AckPreimage(a.Anchor),
			got.Countersignature.Signature) {
			t.Errorf("after %d s: the countersignature does not verify", seconds)
		}
	}
	less := asked(&a, 60, func(n *tx.Note, u *price.Usage) { u.CPUNS += 1; n.Upto += 1_000 })
	if got, err := c.Check(less); err != nil || got.Amount != 60_000_050 {
		t.Errorf("a host that asks for no more: %v", err)
	}
}

func TestNotesThatAreRefused(t *testing.T) {
	tests := map[string]struct {
		spoil func(*tx.Note, *price.Usage)
		after func(*jobv1.SignedNote)
		want  error
	}{
		"inflated amount": {func(n *tx.Note, _ *price.Usage) { n.Cumulative++ }, nil, ack.ErrAmount},
		"inflated usage": {
			func(n *tx.Note, u *price.Usage) { u.CPUNS *= 3; n.Cumulative = 60_000_050 },
			nil, ack.ErrRate,
		},
		"usage backwards": {
			func(n *tx.Note, u *price.Usage) { u.MemoryKiBMS = 1 }, nil, ack.ErrBackwards,
		},
		"amount backwards": {
			func(n *tx.Note, _ *price.Usage) { n.Cumulative = 9_000_000 }, nil, ack.ErrBackwards,
		},
		"time backwards": {
			func(n *tx.Note, _ *price.Usage) { n.Upto = begin + 9_000 }, nil, ack.ErrBackwards,
		},
		"future upto": {
			func(n *tx.Note, _ *price.Usage) { n.Upto = begin + 22_001 }, nil, ack.ErrFuture,
		},
		"more running than time": {
			func(n *tx.Note, u *price.Usage) { u.WallMS = 25_000 }, nil, ack.ErrUsage,
		},
		"many runs": {func(_ *tx.Note, u *price.Usage) { u.Runs = 2 }, nil, ack.ErrUsage},
		"other lease": {
			func(n *tx.Note, _ *price.Usage) { n.Lease[0] ^= 1 }, nil, ack.ErrOther,
		},
		"other revision": {
			func(n *tx.Note, _ *price.Usage) { n.Revision[0] ^= 1 }, nil, ack.ErrRevision,
		},
		"other usage than signed": {
			func(n *tx.Note, _ *price.Usage) { n.UsageHash = tx.Hash{1} }, nil, ack.ErrUsageHash,
		},
		"wrong prices": {
			nil, func(m *jobv1.SignedNote) { m.Prices.CoreHour *= 2 }, ack.ErrPrices,
		},
		"cheaper prices": {
			nil, func(m *jobv1.SignedNote) { m.Prices.CoreHour /= 2 }, ack.ErrPrices,
		},
		"not signed": {
			nil, func(m *jobv1.SignedNote) { m.Signature[3] ^= 1 }, ack.ErrSignature,
		},
		"no signature": {nil, func(m *jobv1.SignedNote) { m.Signature = nil }, ack.ErrSignature},
		"no note":      {nil, func(m *jobv1.SignedNote) { m.Note = nil }, ack.ErrMalformed},
		"short lease":  {nil, func(m *jobv1.SignedNote) { m.Note.Lease = []byte{1} }, ack.ErrMalformed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := agreement()
			c, err := ack.New(a, clock(20))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Check(asked(&a, 10, nil)); err != nil {
				t.Fatal(err)
			}
			bad := asked(&a, 20, test.spoil)
			if test.after != nil {
				test.after(bad)
			}
			got, err := c.Check(bad)
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if !got.Countersignature.IsZero() {
				t.Error("it was countersigned")
			}
			if _, err := c.Check(asked(&a, 20, nil)); err != nil {
				t.Errorf("the honest note after it: %v", err)
			}
		})
	}
}

// TestRepeated: the same note again is answered with the same countersignature, because the first
// may have been lost; anything that only looks like it is refused.
func TestRepeated(t *testing.T) {
	a := agreement()
	c, err := ack.New(a, clock(20))
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.Check(asked(&a, 10, nil))
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Check(asked(&a, 10, nil))
	if err != nil || !again.Repeated || first.Repeated ||
		again.Countersignature != first.Countersignature {
		t.Errorf("the same again: %+v, %v", again, err)
	}
	if _, err := c.Check(asked(&a, 20, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Check(asked(&a, 10, nil)); !errors.Is(err, ack.ErrBackwards) {
		t.Errorf("an older one: %v", err)
	}
}

func TestNothingAfterTheFinalNote(t *testing.T) {
	a := agreement()
	c, err := ack.New(a, clock(30))
	if err != nil {
		t.Fatal(err)
	}
	last := asked(&a, 10, nil)
	last.Final = true
	if _, err := c.Check(last); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Check(asked(&a, 20, nil)); !errors.Is(err, ack.ErrBackwards) {
		t.Errorf("got %v", err)
	}
}

func TestBudgetBounds(t *testing.T) {
	a := agreement()
	a.Lease.Budget, a.Budget = 5_000_000, 5_000_000
	c, err := ack.New(a, clock(30))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Check(asked(&a, 10, nil)); !errors.Is(err, ack.ErrRate) {
		t.Errorf("beyond the budget: %v", err)
	}
}

func TestLeasesThatAreRefused(t *testing.T) {
	tests := map[string]struct {
		spoil func(*ack.Agreement)
		want  error
	}{
		"another escrow": {func(a *ack.Agreement) { a.Lease.Escrow[0] ^= 1 }, ack.ErrLease},
		"another job":    {func(a *ack.Agreement) { a.Lease.Subject = []byte{1} }, ack.ErrLease},
		"other prices":   {func(a *ack.Agreement) { a.Prices.CoreHour++ }, ack.ErrLease},
		"no ack key":     {func(a *ack.Agreement) { a.Lease.AckKeys = nil }, ack.ErrLease},
		"above the cap": {
			func(a *ack.Agreement) { a.Cap = &price.Prices{CoreHour: 3_599_999_999, Run: 50} },
			price.ErrAboveCap,
		},
		"no model": {func(a *ack.Agreement) {
			a.Prices = price.Prices{}
			a.Lease.PriceHash = a.Prices.Hash()
		}, ack.ErrLease},
	}
	for name, test := range tests {
		a := agreement()
		test.spoil(&a)
		if _, err := ack.New(a, clock(0)); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}
