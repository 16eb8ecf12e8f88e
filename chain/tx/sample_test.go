package tx_test

import (
	"math/rand/v2"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// sampler draws values of which about half the fields are set. Equal seeds draw equal values.
type sampler struct{ *rand.Rand }

func newSampler(seed uint64) sampler { return sampler{rand.New(rand.NewPCG(seed, 1))} }

func (s sampler) bytes32() (out [32]byte) {
	for i := range out {
		out[i] = byte(s.Uint32())
	}
	out[0] |= 1
	return out
}

func (s sampler) signature() (out sig.Signature) {
	a, b := s.bytes32(), s.bytes32()
	copy(out[:], a[:])
	copy(out[32:], b[:])
	return out
}

func (s sampler) some() bool { return s.IntN(2) == 0 }

// number draws numbers of every length, often 0.
func (s sampler) number() uint64 {
	if s.some() {
		return 0
	}
	return s.Uint64() >> s.IntN(64)
}

func (s sampler) maybe() (out [32]byte) {
	if s.some() {
		out = s.bytes32()
	}
	return out
}

func list[T ~[32]byte](s sampler, least int) (out []T) {
	for range least + s.IntN(4) {
		out = append(out, T(s.bytes32()))
	}
	return out
}

func (s sampler) subject() []byte {
	if s.some() {
		return nil
	}
	b := s.bytes32()
	return b[:1+s.IntN(32)]
}

func (s sampler) keySet() sig.KeySet {
	return sig.KeySet{Keys: list[sig.PublicKey](s, 1), Threshold: s.Uint32N(3)}
}

func (s sampler) terms() tx.Terms {
	return tx.Terms{
		MaxRate: tx.GrainsPerHour(s.number()), MaxTotal: tx.Grains(s.number()),
		Trust: tx.Grains(s.number()), AckKeys: list[sig.PublicKey](s, 0),
		Assigner: s.maybe(), Floor: tx.Grains(s.number()), Expires: tx.Millis(s.number()),
		LeaseFee: tx.Grains(s.number()), LeaseFeeTotal: tx.Grains(s.number()),
	}
}

func (s sampler) lease() tx.Lease {
	return tx.Lease{
		Escrow: s.bytes32(), Subject: s.subject(), Slot: uint32(s.number()), Epoch: s.number(),
		Payee: s.bytes32(), AgentKey: s.bytes32(), Upfront: tx.Grains(s.number()),
		Rate: tx.GrainsPerHour(s.number()), Budget: tx.Grains(s.number()),
		Trust: tx.Grains(s.number()), Holdback: tx.Grains(s.number()),
		Notice: tx.Millis(s.number()), AckKeys: list[sig.PublicKey](s, 0),
		ClaimWindow: tx.Millis(s.number()), PriceHash: s.maybe(), OfferHash: s.maybe(),
		PlaceBy: tx.Millis(s.number()), Until: tx.Millis(s.number()), SessionKey: s.maybe(),
	}
}

func (s sampler) note() tx.Note {
	return tx.Note{
		Lease: s.bytes32(), Revision: s.maybe(), Upto: tx.Millis(s.number()),
		Cumulative: tx.Grains(s.number()), UsageHash: s.maybe(),
	}
}

func (s sampler) countersignature() tx.Countersignature {
	if s.some() {
		return tx.Countersignature{}
	}
	return tx.Countersignature{Index: s.Uint32N(4), Signature: s.signature()}
}

// operation draws one of the kind.
func (s sampler) operation(kind tx.Kind) tx.Operation {
	amount := tx.Grains(s.number())
	switch kind {
	case tx.KindTransfer:
		return &tx.Transfer{To: s.bytes32(), Amount: amount}
	case tx.KindSetKeys:
		return &tx.SetKeys{Keys: s.keySet()}
	case tx.KindOpenEscrow:
		return &tx.OpenEscrow{
			Purpose: chainv1.Purpose(s.IntN(9)), Subject: s.subject(), Amount: amount,
			Terms: s.terms(), Payees: list[sig.AccountID](s, 0), PayeeRoot: s.maybe(),
			Renew: s.some(), BurnRate: tx.GrainsPerHour(s.number()),
			Unbond: tx.Millis(s.number()),
		}
	case tx.KindTopUp:
		return &tx.TopUp{Escrow: s.bytes32(), Amount: amount}
	case tx.KindWithdraw:
		return &tx.Withdraw{Escrow: s.bytes32(), Amount: amount}
	case tx.KindSetTerms:
		return &tx.SetTerms{Escrow: s.bytes32(), Terms: s.terms()}
	case tx.KindCloseEscrow:
		return &tx.CloseEscrow{Escrow: s.bytes32()}
	case tx.KindPlaceLease:
		return &tx.PlaceLease{Lease: s.lease(), Signature: s.signature(), Fee: amount}
	case tx.KindExtend:
		return &tx.Extend{Lease: s.bytes32(), Budget: amount, Until: tx.Millis(s.number())}
	case tx.KindCharge:
		return &tx.Charge{
			Note: s.note(), Signature: s.signature(), Countersignature: s.countersignature(),
			Final: s.some(),
		}
	case tx.KindEnd:
		return &tx.End{Lease: s.bytes32()}
	case tx.KindSettle:
		return &tx.Settle{Leases: list[tx.LeaseID](s, 1)}
	case tx.KindNotice:
		return &tx.Notice{Escrow: s.bytes32(), Amount: amount}
	case tx.KindSetDelegate:
		return &tx.SetDelegate{Number: uint32(s.number()), Key: s.bytes32(), Bounds: s.bounds()}
	case tx.KindRemoveDelegate:
		return &tx.RemoveDelegate{Number: uint32(s.number())}
	case tx.KindSetRecovery:
		return &tx.SetRecovery{Keys: s.keySet(), Delay: tx.Millis(s.number())}
	case tx.KindRecover:
		return &tx.Recover{Intent: s.intent(), Signatures: s.signatures()}
	case tx.KindFinishRecovery:
		return &tx.FinishRecovery{Account: s.bytes32()}
	case tx.KindCancelRecovery:
		return &tx.CancelRecovery{}
	case tx.KindSpend:
		return &tx.Spend{Order: s.order(), Signature: s.signature()}
	case tx.KindAccept:
		return &tx.Accept{Lease: s.bytes32(), Countersignature: s.countersignature()}
	}
	return &tx.Reject{
		Lease: s.bytes32(), Evidence: s.maybe(), Countersignature: s.countersignature(),
	}
}

// transaction draws a transaction of count operations whose signatures are random.
func (s sampler) transaction(count int) (tx.Body, sig.AccountSignature) {
	body := tx.Body{
		Chain: "main", Account: s.bytes32(), Signer: uint32(s.number()), Nonce: s.number(),
		Fee: tx.Grains(s.number()), ValidUntil: tx.Millis(s.number()), Memo: s.subject(),
	}
	for range count {
		kind := tx.Kind(1 + s.IntN(int(tx.KindSpend)))
		body.Operations = append(body.Operations, s.operation(kind))
	}
	var signature sig.AccountSignature
	if s.some() {
		signature.Keys = s.keySet()
	}
	signature.Signatures = s.signatures()
	return body, signature
}

func (s sampler) signatures() (list []sig.IndexedSignature) {
	for i := range 1 + s.IntN(3) {
		list = append(list, sig.IndexedSignature{Index: uint32(i), Signature: s.signature()})
	}
	return list
}

func (s sampler) order() tx.SpendOrder {
	return tx.SpendOrder{Escrow: s.bytes32(), Lease: s.bytes32(), To: s.bytes32(),
		Amount: tx.Grains(s.number()), Sequence: s.number()}
}

func (s sampler) intent() tx.RecoveryIntent {
	return tx.RecoveryIntent{Account: s.bytes32(), Keys: s.keySet(), Counter: s.number()}
}

func (s sampler) account() tx.Account {
	return tx.Account{
		Balance: tx.Grains(s.number()), Lock: tx.Grains(s.number()), Nonce: s.number(),
		Keys: s.keySet(),
	}
}

func (s sampler) bounds() tx.Bounds {
	return tx.Bounds{
		Operations: tx.Operations(s.number()), Limit: tx.Grains(s.number()),
		Period: tx.Millis(s.number()), Until: tx.Millis(s.number()),
	}
}

func (s sampler) signers() tx.AccountSigners {
	a := tx.AccountSigners{Last: 1 + uint32(s.number())>>1}
	for range s.IntN(4) {
		a.Delegates = append(a.Delegates, tx.Delegate{
			Number: uint32(s.number()), Key: s.bytes32(), Bounds: s.bounds(), Nonce: s.number(),
			Window: tx.Millis(s.number()), Spent: tx.Grains(s.number()),
		})
	}
	if s.some() {
		a.Recovery = tx.Recovery{Keys: s.keySet(), Delay: tx.Millis(s.number()),
			Counter: s.number(), Pending: s.keySet(), Due: tx.Millis(s.number())}
	}
	return a
}

func (s sampler) escrow() tx.Escrow {
	return tx.Escrow{
		Owner: s.bytes32(), Purpose: chainv1.Purpose_PURPOSE_JOB, Subject: s.subject(),
		Balance: tx.Grains(s.number()), Lock: tx.Grains(s.number()), Terms: s.terms(),
		Payees: list[sig.AccountID](s, 0), PayeeRoot: s.maybe(), Renew: s.some(),
		BurnRate: tx.GrainsPerHour(s.number()), Unbond: tx.Millis(s.number()),
		Opened: tx.Millis(s.number()), Burned: tx.Grains(s.number()),
		BurnRemainder: s.number(), Reserved: tx.Grains(s.number()),
		Rate: tx.GrainsPerHour(s.number()), Risk: tx.Grains(s.number()),
		Live: uint32(s.number()), Paid: tx.Grains(s.number()),
		Noticed: tx.Grains(s.number()), NoticeDue: tx.Millis(s.number()),
	}
}

func (s sampler) leaseState() tx.LeaseState {
	return tx.LeaseState{
		Lease: s.lease(), From: tx.Millis(s.number()), AccrualFrom: tx.Millis(s.number()),
		Budget: tx.Grains(s.number()), Until: tx.Millis(s.number()),
		End: tx.Millis(s.number()), NoticeDue: tx.Grains(s.number()),
		Paid: tx.Grains(s.number()), Countersigned: tx.Grains(s.number()),
		Upto: tx.Millis(s.number()), RateFreed: s.some(), Settled: s.some(),
		Holdback: chainv1.Holdback(s.IntN(3)), Withheld: tx.Grains(s.number()), Spends: s.number(),
	}
}

func (s sampler) receipt() tx.Receipt {
	out := tx.Receipt{
		Transaction: s.bytes32(), Status: chainv1.Status(s.IntN(3)),
		FailedOperation: uint32(s.number()), Reason: chainv1.Reason(s.IntN(41)),
		Fee: tx.Grains(s.number()),
	}
	for range s.IntN(4) {
		outcome := tx.Outcome{
			Created: s.maybe(), Amount: tx.Grains(s.number()),
			Bound: chainv1.Bound(s.IntN(11)), Unpaid: tx.Grains(s.number()),
			Delegate: uint32(s.number()),
		}
		for range s.IntN(3) {
			outcome.Settled = append(outcome.Settled,
				tx.SettleOutcome{RateFreed: s.some(), RestFreed: s.some(), Deleted: s.some()})
		}
		out.Outcomes = append(out.Outcomes, outcome)
	}
	return out
}
