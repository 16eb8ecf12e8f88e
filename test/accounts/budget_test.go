package accounts

import (
	"strings"
	"testing"
	"time"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/kit/id"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// agentKey is the host's; jobKey is the session key that it made for the job it runs.
func agentKey() sig.PrivateKey { return sig.FromSeed([32]byte{0xa9}) }
func jobKey() sig.PrivateKey   { return sig.FromSeed([32]byte{0x5e}) }

func jobID() [32]byte { return [32]byte{7, 31: 7} }

const coin tx.Grains = 1_000_000_000

// opened is what opening an escrow prints.
type opened struct{ Escrow string }

// lease places a lease for the job's run, with the session key, and returns its id.
func (w *world) lease() tx.LeaseID {
	w.t.Helper()
	at, job := tx.Millis(time.Now().UnixMilli()), jobID()
	w.do(&tx.OpenEscrow{
		Purpose: chainv1.Purpose_PURPOSE_JOB, Subject: job[:], Amount: coin,
		Terms: tx.Terms{
			MaxRate: tx.GrainsPerHour(coin), MaxTotal: coin, Trust: coin / 10,
			AckKeys: []sig.PublicKey{w.n.Keys[owner].Public()},
			Expires: at + tx.Millis((60 * 24 * time.Hour).Milliseconds()),
		},
	})
	list := parsed[[]opened](w, "escrow", "ls", "--job", id.Bech32(id.Job, jobID()))
	if len(list) != 1 {
		w.t.Fatalf("the job's escrows are %+v", list)
	}
	escrow := w.opened(list[0])
	l := tx.Lease{
		Escrow: escrow, Subject: job[:], Epoch: 1, Payee: w.n.Accounts[host],
		AgentKey: agentKey().Public(), SessionKey: jobKey().Public(), Rate: 1000, Budget: coin / 100,
		AckKeys:     []sig.PublicKey{w.n.Keys[owner].Public()},
		ClaimWindow: tx.Millis((24 * time.Hour).Milliseconds()), PriceHash: tx.Hash{1},
		OfferHash: tx.Hash{2}, PlaceBy: at + 5*60*1000,
		Until: at + tx.Millis((4 * time.Hour).Milliseconds()),
	}
	w.do(&tx.PlaceLease{Lease: l, Signature: agentKey().Sign(l.Preimage(w.n.Anchor))})
	return l.ID(w.n.Anchor)
}

func (w *world) opened(o opened) tx.EscrowID {
	w.t.Helper()
	raw, err := id.ParseBech32(id.Escrow, o.Escrow)
	if err != nil {
		w.t.Fatal(err)
	}
	w.escrows = append(w.escrows, raw)
	return raw
}

// TestAJobSpendsItsBudget: an order of the session key is paid, by whomever it is submitted, at
// most as fast and as far as the owner said, to whom he said, once each, and no more once the lease
// has ended.
func TestAJobSpendsItsBudget(t *testing.T) {
	play(t, func(w *world) {
		lease := w.lease()
		budget := w.opened(parsed[opened](w, "escrow", "budget", id.Bech32(id.Job, jobID()), "4",
			"--max-rate", "0.5", "--max-total", "3", "--payee", w.account(ann), "--for", "48h"))
		order := func(to int, sequence uint64, sum tx.Grains, by sig.PrivateKey) *tx.Spend {
			o := tx.SpendOrder{Escrow: budget, Lease: lease, To: w.n.Accounts[to], Amount: sum,
				Sequence: sequence}
			return &tx.Spend{Order: o, Signature: by.Sign(o.Preimage(w.n.Anchor))}
		}
		before := w.balance(ann)
		w.do(order(ann, 0, coin/2, jobKey())) // an hour of it at once
		w.fails("spend-sequence", order(ann, 0, coin/2, jobKey()))
		w.fails("spend-too-fast", order(ann, 1, coin/2, jobKey()))
		w.fails("payee-not-allowed", order(bob, 1, 1, jobKey()))
		w.pass(2 * time.Hour) // blocks come: the lease is not settled
		w.fails("spend-signature", order(ann, 1, 1, agentKey()))
		w.do(order(ann, 1, coin/2, jobKey()), order(ann, 2, coin/2, jobKey()))
		w.fails("spend-too-fast", order(ann, 3, coin/10, jobKey()))
		if got := w.balance(ann) - before; got != 3*coin/2 {
			t.Errorf("%d were spent, 3 times %d were ordered", got, coin/2)
		}
		shown := w.must("escrow", "get", id.Bech32(id.Escrow, budget), "--proof")
		for _, said := range []string{"budget", "1.5 UCN of at most 3", w.account(ann)} {
			if !strings.Contains(shown, said) {
				t.Errorf("the budget is shown without %q: %s", said, shown)
			}
		}
		story := w.must("escrow", "story", id.Bech32(id.Escrow, budget))
		if strings.Count(story, "0.5 UCN spent") != 3 {
			t.Errorf("its life is %s", story)
		}
		w.pass(2*time.Hour + time.Minute)
		w.fails("lease-ended", order(ann, 3, 1, jobKey()))
		w.must("escrow", "close", id.Bech32(id.Escrow, budget))
		if out, _, code := w.run("", "escrow", "get", id.Bech32(id.Escrow, budget)); code ==
			cli.ExitOK {
			t.Errorf("it is still there: %s", out)
		}
	})
}
