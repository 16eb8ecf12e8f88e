// Package ack decides whether an owner countersigns a note of usage. It is the owner's last line:
// what is countersigned here is paid.
//
// A Checker belongs to one lease. It is made from what the owner itself knows: the revision it
// signed, the escrow it opened, the price it accepts, the lease as the chain holds it. It then
// recomputes every note from usage and prices and refuses whatever does not follow, with a reason a
// person can read. It never trusts the host's clock further than MaxSkew beyond its own.
//
// It does not know whether the usage itself is true: nobody but the host measures it. What it holds
// a host to is that usage never falls, that no more time was used than has passed, and that the
// amount stays within rate and budget of the lease.
package ack

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

// MaxSkew is how far a note's time may be ahead of the owner's clock: clocks differ.
const MaxSkew = 2 * time.Second

// wallSlack is how much longer than the lease stands a program may have run by the host's count:
// block times lag behind.
const wallSlack = tx.Millis(2_000)

// Why a lease or a note is refused. Errors wrap one of these.
var (
	ErrLease     = errors.New("the lease is not the one that was agreed")
	ErrMalformed = errors.New("the note is malformed")
	ErrSignature = errors.New("the note is not signed by the lease's agent")
	ErrOther     = errors.New("the note is of another lease")
	ErrRevision  = errors.New("the note is about another revision of the job")
	ErrPrices    = errors.New("the note uses other prices than the lease")
	ErrUsageHash = errors.New("the note's usage is not the one it is signed for")
	ErrBackwards = errors.New("usage or amount went backwards")
	ErrFuture    = errors.New("the note counts time that has not passed")
	ErrAmount    = errors.New("the amount is more than usage and prices come to")
	ErrRate      = errors.New("the amount is more than the lease allows for the time")
	ErrUsage     = errors.New("the usage cannot be")
)

// Agreement is what notes are held against.
type Agreement struct {
	Anchor sig.Anchor
	// Lease as the chain holds it, and when it was placed by the chain's clock.
	Lease tx.Lease
	From  tx.Millis
	// Budget in force; extensions raise the lease's.
	Budget tx.Grains
	// Prices that the lease was made for.
	Prices price.Prices
	// Revision is the hash of the one the owner signed; Escrow and Job are the owner's own.
	Revision tx.Hash
	Escrow   tx.EscrowID
	Job      [32]byte
	// Cap of prices the owner accepts; nil is any.
	Cap *price.Prices
	// Key countersigns; its public key is one of the lease's ack keys.
	Key sig.PrivateKey
}

// Checked is a note that was found good.
type Checked struct {
	Note   tx.Note
	Usage  price.Usage
	Amount tx.Grains // same as Note.Cumulative
	Final  bool
	// Repeated says that it is the very note that was found good last: the countersignature that
	// was sent may have been lost, and sending it again changes nothing.
	Repeated bool
	// Countersignature is the owner's.
	Countersignature tx.Countersignature
}

// Checker checks the notes of one lease in the order they come. It is not safe for concurrent use.
type Checker struct {
	is    Agreement
	id    tx.LeaseID
	index uint32
	now   func() time.Time
	last  *Checked
}

// New checks the lease against the owner's side of the agreement. Errors wrap ErrLease or
// price.ErrAboveCap.
func New(is Agreement, now func() time.Time) (*Checker, error) {
	l := &is.Lease
	index := -1
	for i, key := range l.AckKeys {
		if key == is.Key.Public() {
			index = i
		}
	}
	wrong := ""
	switch {
	case l.Escrow != is.Escrow:
		wrong = "it charges another escrow"
	case !bytes.Equal(l.Subject, is.Job[:]):
		wrong = "it is for another job"
	case index < 0:
		wrong = "it does not name this wallet as ack key"
	case l.PriceHash != is.Prices.Hash():
		wrong = "it was made for other prices"
	case is.Prices.Validate() != nil:
		wrong = "its prices make no sense"
	}
	if wrong != "" {
		return nil, fmt.Errorf("%w: %s", ErrLease, wrong)
	}
	if is.Cap != nil {
		if err := is.Prices.CheckCap(*is.Cap); err != nil {
			return nil, fmt.Errorf("the lease's prices: %w", err)
		}
	}
	return &Checker{is: is, id: l.ID(is.Anchor), index: uint32(index), now: now}, nil
}

// Check judges a note and countersigns it if it is good. A note that is refused changes nothing.
func (c *Checker) Check(m *jobv1.SignedNote) (Checked, error) {
	note, err := tx.NoteFromPB(m.GetNote())
	if err != nil {
		return Checked{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := c.checkNames(&note, m); err != nil {
		return Checked{}, err
	}
	usage := price.UsageFromPB(m.GetUsage())
	if usage.Hash() != note.UsageHash {
		return Checked{}, ErrUsageHash
	}
	checked := Checked{Note: note, Usage: usage, Amount: note.Cumulative, Final: m.GetFinal()}
	if c.last != nil && c.last.Note == note {
		repeated := *c.last
		repeated.Repeated, repeated.Final = true, repeated.Final || m.GetFinal()
		return repeated, nil
	}
	for _, check := range []func(*Checked) error{c.checkOrder, c.checkTime, c.checkMoney} {
		if err := check(&checked); err != nil {
			return Checked{}, err
		}
	}
	checked.Countersignature = tx.Countersignature{
		Index: c.index, Signature: c.is.Key.Sign(note.AckPreimage(c.is.Anchor)),
	}
	c.last = &checked
	return checked, nil
}

// Last returns the last note that was found good, nil before the first.
func (c *Checker) Last() *Checked { return c.last }

// checkNames checks whose note it is and what it is about.
func (c *Checker) checkNames(note *tx.Note, m *jobv1.SignedNote) error {
	switch {
	case note.Lease != c.id:
		return fmt.Errorf("%w: %x", ErrOther, note.Lease[:8])
	case note.Revision != c.is.Revision:
		return fmt.Errorf("%w: %x", ErrRevision, note.Revision[:8])
	case price.PricesFromPB(m.GetPrices()) != c.is.Prices:
		return ErrPrices
	}
	signature, err := sig.ParseSignature(m.GetSignature())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if !sig.Verify(c.is.Lease.AgentKey, note.Preimage(c.is.Anchor), signature) {
		return ErrSignature
	}
	return nil
}

// checkOrder compares with the last good note: nothing falls.
func (c *Checker) checkOrder(n *Checked) error {
	if c.last == nil {
		return nil
	}
	last := c.last
	switch {
	case last.Final:
		return fmt.Errorf("%w: the last note was final", ErrBackwards)
	case n.Note.Upto < last.Note.Upto:
		return fmt.Errorf("%w: time by %d ms", ErrBackwards, last.Note.Upto-n.Note.Upto)
	case n.Note.Cumulative < last.Note.Cumulative:
		return fmt.Errorf("%w: the amount by %d grains", ErrBackwards,
			last.Note.Cumulative-n.Note.Cumulative)
	}
	for _, f := range counters(n.Usage, last.Usage) {
		if f.now < f.before {
			return fmt.Errorf("%w: %s from %d to %d", ErrBackwards, f.name, f.before, f.now)
		}
	}
	return nil
}

type counter struct {
	name        string
	now, before uint64
}

func counters(now, before price.Usage) []counter {
	return []counter{
		{"wall_ms", now.WallMS, before.WallMS}, {"cpu_ns", now.CPUNS, before.CPUNS},
		{"memory_kib_ms", now.MemoryKiBMS, before.MemoryKiBMS},
		{"bytes_in", now.BytesIn, before.BytesIn}, {"bytes_out", now.BytesOut, before.BytesOut},
		{"disk_kib_ms", now.DiskKiBMS, before.DiskKiBMS}, {"runs", now.Runs, before.Runs},
	}
}

// checkTime holds the note against the owner's own clock and the lease's beginning and end.
func (c *Checker) checkTime(n *Checked) error {
	latest := tx.Millis(max(c.now().Add(MaxSkew).UnixMilli(), 0))
	switch {
	case n.Note.Upto > latest:
		return fmt.Errorf("%w: %d ms", ErrFuture, n.Note.Upto-latest)
	case n.Note.Upto < c.is.From:
		return fmt.Errorf("%w: it ends before the lease began", ErrUsage)
	case tx.Millis(n.Usage.WallMS) > n.Note.Upto-c.is.From+wallSlack:
		return fmt.Errorf("%w: %d ms of running within %d ms of the lease", ErrUsage,
			n.Usage.WallMS, n.Note.Upto-c.is.From)
	case n.Usage.Runs > 1:
		return fmt.Errorf("%w: %d runs of one attempt", ErrUsage, n.Usage.Runs)
	}
	return nil
}

// checkMoney recomputes the amount. A host may ask for less than it could, never for more.
func (c *Checker) checkMoney(n *Checked) error {
	amount, err := price.Amount(c.is.Prices, n.Usage)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	if n.Note.Cumulative > amount {
		return fmt.Errorf("%w: %d grains asked, %d computed", ErrAmount, n.Note.Cumulative, amount)
	}
	l := &c.is.Lease
	accrued, err := price.Accrued(l.Rate, n.Note.Upto-c.is.From)
	if err != nil || l.Upfront+accrued < accrued {
		return fmt.Errorf("%w: it has no number", ErrRate)
	}
	if most := min(l.Upfront+accrued, max(c.is.Budget, l.Budget)); n.Note.Cumulative > most {
		return fmt.Errorf("%w: %d grains asked, %d allowed", ErrRate, n.Note.Cumulative, most)
	}
	return nil
}
