package ledger

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/chain/sig"
)

// rush is an ingress with one worker, and what waits for it. It runs in a bubble.
type rush struct {
	t       *testing.T
	in      *ingress
	waiting sync.WaitGroup
	peers   int
}

func newRush(t *testing.T) *rush {
	return &rush{t: t, in: newIngress(0, newDebts(), time.Now)}
}

// peer makes another peer.
func (r *rush) peer() debtor {
	r.peers++
	return debtor{id: Hash{byte(r.peers)}, kind: byPeer}
}

// submit lets a peer have n claims verified, some of them bad, and waits until they wait.
func (r *rush) submit(from debtor, n, bad int) []claim {
	key := sig.FromSeed([32]byte(from.id))
	claims := make([]claim, n)
	for i := range claims {
		preimage := binary.BigEndian.AppendUint64(nil, uint64(i))
		signature := key.Sign(preimage)
		if i < bad {
			signature[3]++
		}
		claims[i] = claim{key: key.Public(), preimage: preimage, signature: signature}
	}
	r.waiting.Go(func() {
		if err := r.in.verify(r.t.Context(), claims, &from); err != nil {
			r.t.Error(err)
		}
		for i := range claims {
			if claims[i].judged && claims[i].good != (i >= bad) {
				r.t.Errorf("claim %d of %d, of which %d are bad, is judged good: %v", i, n, bad,
					claims[i].good)
			}
		}
	})
	synctest.Wait()
	return claims
}

// judge lets one worker judge all that waits.
func (r *rush) judge() {
	ctx, cancel := context.WithCancel(r.t.Context())
	var worker sync.WaitGroup
	worker.Go(func() { r.in.work(ctx) })
	r.waiting.Wait()
	cancel()
	worker.Wait()
}

// owed is a peer's debt in units.
func (r *rush) owed(who debtor) int {
	r.in.waste.mu.Lock()
	defer r.in.waste.mu.Unlock()
	return int(max(0, time.Until(r.in.waste.of[who].until)) / wastePause)
}

func (r *rush) suspect(who debtor) bool { return r.in.suspect(&who, time.Now()) }

// TestWhoSpoilsABatchAnswersForAllOfIt: one bad signature has everybody's be verified one by one.
// Those who were in the batch with it owe nothing.
func TestWhoSpoilsABatchAnswersForAllOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRush(t)
		honest, spoiler, second := r.peer(), r.peer(), r.peer()
		r.submit(honest, 300, 0)
		r.submit(spoiler, 1, 1)
		r.submit(second, 2, 1)
		r.submit(honest, 97, 0)
		r.judge()
		for who, want := range map[debtor]int{honest: 0, spoiler: 400, second: 400} {
			if got := r.owed(who); got != want || r.suspect(who) != (want > 0) {
				t.Errorf("peer %d owes %d, want %d, suspect: %v", who.id[0], got, want,
					r.suspect(who))
			}
		}
		time.Sleep(59 * time.Second) // its debt has long passed
		r.submit(honest, 300, 0)
		r.submit(spoiler, 5, 1)
		r.judge()
		if got := r.owed(spoiler); got != 5 {
			t.Errorf("a suspect owes %d, it spoiled 5 of its own", got)
		}
		time.Sleep(suspectFor + time.Second)
		if r.suspect(spoiler) {
			t.Error("a suspect stays one for ever")
		}
	})
}

// TestStrangersSpoilOneBatchTogether: an address of their own each does not give strangers a batch
// to spoil each, and whoever has an account is verified with the others still.
func TestStrangersSpoilOneBatchTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRush(t)
		honest := r.peer()
		const addresses = 7
		for n := range byte(addresses) {
			r.submit(debtor{id: Hash{n}, kind: byAddress}, 1, 1)
			r.submit(honest, verifyBatch-1, 0)
		}
		r.judge()
		owed := time.Until(r.in.waste.of[strangers].until) / wasteAllPause
		if most := verifyBatch + addresses; owed < verifyBatch || int(owed) > most {
			t.Errorf("%d signatures were verified one by one, the bound is %d", owed, most)
		}
		if r.suspect(honest) || !r.suspect(debtor{id: Hash{77}, kind: byAddress}) {
			t.Error("strangers are verified with the others, or the others with them")
		}
	})
}

// TestOnePeerSpoilsOneBatchAtATime: what a peer submits at the same moment is not all let through
// because none of it was judged yet.
func TestOnePeerSpoilsOneBatchAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRush(t)
		honest, spoiler := r.peer(), r.peer()
		const times = 20
		for range times { // enough for a batch each
			r.submit(spoiler, 1, 1)
			r.submit(honest, verifyBatch-1, 0)
		}
		r.judge()
		if got, most := r.owed(spoiler), verifyBatch+times; got < verifyBatch || got > most {
			t.Errorf("%d signatures were verified one by one, the bound is %d", got, most)
		}
	})
}

// TestSpentPeersAreNotVerified: once a peer owes too much, what it submitted before is passed over
// too, good or bad.
func TestSpentPeersAreNotVerified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRush(t)
		spoiler, honest := r.peer(), r.peer()
		var all [][]claim
		for range 8 {
			all = append(all, r.submit(spoiler, verifyBatch, verifyBatch/2))
		}
		good := r.submit(honest, 10, 0)
		r.judge()
		judged := 0
		for _, claims := range all {
			if claims[0].judged {
				judged++
			}
		}
		if judged != wasteRoom/verifyBatch+1 {
			t.Errorf("%d of 8 submissions were verified, with a room of %d", judged, wasteRoom)
		}
		if !good[9].judged {
			t.Error("the honest peer's were not")
		}
	})
}
