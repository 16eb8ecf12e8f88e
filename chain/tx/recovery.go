package tx

import (
	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

// Recovery is who may replace an account's key set after a delay, and what is under way.
type Recovery struct {
	// Zero = nobody, or nobody any more.
	Keys sig.KeySet
	// On the accrual clock.
	Delay Millis
	// What the next intent must name; it never falls.
	Counter uint64
	// Zero = no recovery is pending; Due, by the accrual clock, is 0 then.
	Pending sig.KeySet
	Due     Millis
}

// SetRecovery names the set that may replace the sender's key set, or without keys ends it.
type SetRecovery struct {
	Keys  sig.KeySet
	Delay Millis
}

// RecoveryIntent is what a recovery set signs.
type RecoveryIntent struct {
	Account sig.AccountID
	// The set that shall be in force. Its shape is not judged by Decode.
	Keys    sig.KeySet
	Counter uint64
}

// Recover begins a recovery; anyone may submit it.
type Recover struct {
	Intent RecoveryIntent
	// Of Intent.Preimage, by the recovery set.
	Signatures []sig.IndexedSignature
}

// FinishRecovery puts the pending key set of an account in force; anyone may.
type FinishRecovery struct {
	Account sig.AccountID
}

// CancelRecovery takes the sender's pending recovery back.
type CancelRecovery struct{}

// Kind implements Operation.
func (*SetRecovery) Kind() Kind { return KindSetRecovery }

// Kind implements Operation.
func (*Recover) Kind() Kind { return KindRecover }

// Kind implements Operation.
func (*FinishRecovery) Kind() Kind { return KindFinishRecovery }

// Kind implements Operation.
func (*CancelRecovery) Kind() Kind { return KindCancelRecovery }

// DecodeIntent reads the canonical bytes of a RecoveryIntent.
func DecodeIntent(raw []byte) (RecoveryIntent, error) {
	r := canon.NewReader(raw)
	var i RecoveryIntent
	i.readFrom(&r)
	if err := r.Err(); err != nil {
		return RecoveryIntent{}, malformed("recovery intent", err, &chainv1.RecoveryIntent{})
	}
	return i, nil
}

// Preimage returns the bytes that the recovery set signs.
func (i *RecoveryIntent) Preimage(anchor sig.Anchor) []byte {
	return sig.Preimage(sig.DomainRecovery, anchor[:], i.Append(nil))
}

// Append appends the canonical bytes of the intent.
func (i *RecoveryIntent) Append(dst []byte) []byte {
	dst = appendID(dst, 1, i.Account)
	dst = appendKeySet(dst, 2, i.Keys)
	return canon.AppendUint(dst, 3, i.Counter)
}

func (i *RecoveryIntent) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			i.Account = readID[sig.AccountID](r)
		case 2:
			i.Keys = readKeySet(r, "keys", MaxSignatures)
		case 3:
			i.Counter = r.Uint64()
		default:
			r.Unknown()
		}
	}
	need(r, 1, !i.Account.IsZero())
}

func (v *Recovery) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			v.Keys = readKeySet(r, "keys", sig.MaxKeys)
		case 2:
			v.Delay = Millis(r.Uint64())
		case 3:
			v.Counter = r.Uint64()
		case 4:
			v.Pending = readKeySet(r, "pending", sig.MaxKeys)
		case 5:
			v.Due = Millis(r.Uint64())
		default:
			r.Unknown()
		}
	}
}

func (v *Recovery) appendTo(dst []byte) []byte {
	dst = appendKeySet(dst, 1, v.Keys)
	dst = canon.AppendUint(dst, 2, uint64(v.Delay))
	dst = canon.AppendUint(dst, 3, v.Counter)
	dst = appendKeySet(dst, 4, v.Pending)
	return canon.AppendUint(dst, 5, uint64(v.Due))
}

func (o *SetRecovery) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			o.Keys = readKeySet(r, "keys", MaxSignatures)
		case 2:
			o.Delay = Millis(r.Uint64())
		default:
			r.Unknown()
		}
	}
}

func (o *SetRecovery) appendTo(dst []byte) []byte {
	return canon.AppendUint(appendKeySet(dst, 1, o.Keys), 2, uint64(o.Delay))
}

func (o *Recover) readFrom(r *canon.Reader) {
	for r.Next() {
		switch r.Field() {
		case 1:
			frame := r.Open("intent")
			o.Intent.readFrom(r)
			r.Close(frame)
		case 2:
			if len(o.Signatures) >= MaxSignatures {
				r.Fail(ErrSignatures)
				return
			}
			frame := r.OpenElement("signatures")
			o.Signatures = append(o.Signatures, readIndexed(r))
			r.Close(frame)
		default:
			r.Unknown()
		}
	}
	need(r, 1, !o.Intent.Account.IsZero())
	if len(o.Signatures) == 0 {
		r.FailField(2, ErrSignatures)
	}
}

func (o *Recover) appendTo(dst []byte) []byte {
	dst, mark := canon.Begin(dst, 1)
	dst = canon.End(o.Intent.Append(dst), mark)
	return appendIndexed(dst, 2, o.Signatures)
}

func (o *FinishRecovery) readFrom(r *canon.Reader) { o.Account = readOnlyID[sig.AccountID](r) }
func (o *FinishRecovery) appendTo(dst []byte) []byte {
	return appendID(dst, 1, o.Account)
}

func (o *CancelRecovery) readFrom(r *canon.Reader) {
	for r.Next() {
		r.Unknown()
	}
}
func (o *CancelRecovery) appendTo(dst []byte) []byte { return dst }
