package ledgertest

import (
	"bytes"
	"time"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// StoryStep is the time between two steps of a Story: less than a heartbeat.
const StoryStep = 10 * time.Second

// StoryAccounts is how many accounts a network needs for a Story: owner, assigner, host, agent.
const StoryAccounts = 4

// Story is a life of two leases, with transfers in between, signed beforehand: each step is one
// transaction that must come after those before it, and at Begin and so many StorySteps.
type Story struct {
	Begin  time.Time
	Steps  [][]byte
	Escrow tx.EscrowID
	Leases []tx.LeaseID

	network *Network
	nonces  [StoryAccounts]uint64
}

const storyRate tx.Grains = 1000 // per second of either lease

// NewStory signs a story for a network of at least StoryAccounts.
func NewStory(n *Network) *Story {
	s := &Story{Begin: time.UnixMilli(int64(n.Genesis.Time)).Add(time.Second), network: n}
	s.add(0, s.transfer(1))
	s.add(0, s.open())
	s.place(0)
	s.add(1, s.transfer(2))
	s.charge(0, 5_000, false, false)
	s.charge(0, 20_000, true, false)
	s.place(1)
	s.add(0, s.transfer(2))
	s.add(0, &tx.TopUp{Escrow: s.Escrow, Amount: block.UCN / 100})
	s.charge(1, 10_000, false, false)
	s.charge(0, 60_000, true, false)
	s.charge(0, 60_000, true, false) // the same note once more pays nothing
	s.add(1, &tx.Extend{Lease: s.Leases[0], Budget: 3_700_000, Until: s.now(2 * time.Hour)})
	s.add(0, &tx.End{Lease: s.Leases[1]})
	s.charge(1, 50_000, true, true)
	s.add(3, s.transfer(0))
	s.charge(0, 90_000, true, false)
	s.add(0, &tx.End{Lease: s.Leases[0]})
	s.charge(0, 120_000, true, true)
	s.add(3, &tx.Settle{Leases: s.Leases})
	s.add(2, s.transfer(1))
	return s
}

// Due is what the story's charges pay in all.
func (s *Story) Due() tx.Grains { return 120_000 + 50_000 }

// Time is when a step happens.
func (s *Story) Time(step int) time.Time { return s.Begin.Add(time.Duration(step) * StoryStep) }

// now is the time of the step that is added next, and so much later.
func (s *Story) now(later time.Duration) tx.Millis {
	return tx.Millis(s.Time(len(s.Steps)).Add(later).UnixMilli())
}

// add signs a step and returns its transaction's id.
func (s *Story) add(from int, operation tx.Operation) tx.ID {
	n := s.network
	body := n.Body(from, s.nonces[from], operation)
	body.ValidUntil = s.now(time.Hour)
	s.nonces[from]++
	raw := n.Sign(from, body)
	t, err := tx.Decode(raw)
	if err != nil {
		panic("ledgertest: " + err.Error())
	}
	s.Steps = append(s.Steps, raw)
	return t.ID(n.Anchor)
}

func (s *Story) transfer(to int) tx.Operation {
	return &tx.Transfer{To: s.network.Accounts[to], Amount: tx.Grains(1000 + len(s.Steps))}
}

var storySubject = bytes.Repeat([]byte{7}, 32)

func (s *Story) open() tx.Operation {
	n := s.network
	o := &tx.OpenEscrow{
		Purpose: chainv1.Purpose_PURPOSE_JOB, Subject: storySubject, Amount: block.UCN,
		BurnRate: 3600,
		Terms: tx.Terms{
			MaxRate: tx.GrainsPerHour(10 * storyRate * 3600), MaxTotal: block.UCN,
			Trust: 200 * storyRate, AckKeys: []sig.PublicKey{n.Keys[0].Public()},
			Assigner: n.Accounts[1], Expires: s.now(60 * 24 * time.Hour),
		},
	}
	// The escrow's id is known only once the step is signed: sign it here for the id alone.
	body := n.Body(0, s.nonces[0], o)
	body.ValidUntil = s.now(time.Hour)
	t, err := tx.Decode(n.Sign(0, body))
	if err != nil {
		panic("ledgertest: " + err.Error())
	}
	s.Escrow = tx.EscrowIDOf(t.ID(n.Anchor), 0)
	return o
}

func (s *Story) place(slot uint32) {
	n := s.network
	l := tx.Lease{
		Escrow: s.Escrow, Subject: storySubject, Slot: slot, Epoch: 1, Payee: n.Accounts[2],
		AgentKey: n.Keys[3].Public(), Rate: tx.GrainsPerHour(storyRate * 3600),
		Budget: 3600 * storyRate, Trust: 60 * storyRate,
		AckKeys:     []sig.PublicKey{n.Keys[0].Public()},
		ClaimWindow: 24 * 3_600_000, PriceHash: tx.Hash{1}, OfferHash: tx.Hash{2},
		PlaceBy: s.now(time.Minute), Until: s.now(time.Hour),
	}
	s.Leases = append(s.Leases, l.ID(n.Anchor))
	s.add(1, &tx.PlaceLease{Lease: l, Signature: n.Keys[3].Sign(l.Preimage(n.Anchor))})
}

// charge is a note of the time it is charged at.
func (s *Story) charge(lease int, cumulative tx.Grains, acked, final bool) {
	n := s.network
	c := &tx.Charge{Final: final, Note: tx.Note{
		Lease: s.Leases[lease], Revision: tx.Hash{3}, Upto: s.now(0), Cumulative: cumulative,
		UsageHash: tx.Hash{4},
	}}
	c.Signature = n.Keys[3].Sign(c.Note.Preimage(n.Anchor))
	if acked {
		c.Countersignature.Signature = n.Keys[0].Sign(c.Note.AckPreimage(n.Anchor))
	}
	s.add(2, c)
}
