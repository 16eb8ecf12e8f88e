package event

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/keys"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
)

// TypeEpochOpened is the first envelope of a line's new epoch and carries an EpochNotice.
const TypeEpochOpened = "epoch.opened"

// maxEpochNotice bounds the canonical bytes of an EpochNotice.
const maxEpochNotice = 8 << 10

// Epoch is an operator's word that an instance was restored from a backup: its lines go on in a new
// epoch, and what it said after the backup is no fraud.
type Epoch struct {
	Operator sig.AccountID
	Chain    string // that judges the operator's key set
	Instance sig.PublicKey
	Number   uint64         // of the new epoch, at least 2
	Marks    map[Topic]Head // how far peers had followed the lines
	Time     time.Time
}

// IssueEpoch signs the word with the operator's keys and returns the canonical bytes of the
// EpochNotice. Operator is set by the signer. Errors wrap ErrEpochInvalid.
func IssueEpoch(signer keys.Signer, e Epoch) ([]byte, error) {
	body := &eventv1.EpochBody{
		Operator: signer.Account[:], Chain: e.Chain, InstanceKey: e.Instance[:], Epoch: e.Number,
		Time: uint64(e.Time.UnixMilli()),
	}
	for _, topic := range Topics() {
		if mark, ok := e.Marks[topic]; ok {
			body.Marks = append(body.Marks, &eventv1.Mark{
				Topic: string(topic), Epoch: mark.Epoch, Seq: mark.Seq, Hash: mark.Hash[:],
			})
		}
	}
	if _, err := epochOf(body); err != nil || len(e.Marks) != len(body.Marks) {
		return nil, fmt.Errorf("%w: its fields: %w", ErrEpochInvalid, errors.Join(err))
	}
	raw, err := canon.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEpochInvalid, err)
	}
	signature, err := signer.Sign(sig.DomainBackup, raw)
	if err != nil {
		return nil, fmt.Errorf("sign new epoch: %w", err)
	}
	notice, err := canon.Marshal(&eventv1.EpochNotice{Body: body, Signature: signature.PB()})
	if err != nil {
		return nil, fmt.Errorf("encode new epoch: %w", err)
	}
	return notice, nil
}

// VerifyEpoch judges the canonical bytes of an EpochNotice. nil sets believe the operator's first
// key set. Errors wrap ErrEpochInvalid, or keys.ErrLookup when the keys cannot be known now.
func VerifyEpoch(ctx context.Context, raw []byte, sets keys.Sets) (Epoch, error) {
	m := new(eventv1.EpochNotice)
	if len(raw) > maxEpochNotice {
		return Epoch{}, fmt.Errorf("%w: %d bytes", ErrEpochInvalid, len(raw))
	}
	if err := canon.Unmarshal(raw, m); err != nil {
		return Epoch{}, fmt.Errorf("%w: %w", ErrEpochInvalid, err)
	}
	e, err := epochOf(m.GetBody())
	if err != nil {
		return Epoch{}, fmt.Errorf("%w: %w", ErrEpochInvalid, err)
	}
	signature, err := sig.ParseAccountSignature(m.GetSignature())
	if err != nil {
		return Epoch{}, fmt.Errorf("%w: %w", ErrEpochInvalid, err)
	}
	body, err := canon.Marshal(m.Body)
	if err != nil {
		return Epoch{}, fmt.Errorf("%w: %w", ErrEpochInvalid, err)
	}
	err = keys.Signed{
		Chain: e.Chain, Account: e.Operator, Domain: sig.DomainBackup,
		Body: body, Signature: signature,
	}.Verify(ctx, sets)
	if errors.Is(err, keys.ErrLookup) {
		return Epoch{}, fmt.Errorf("verify new epoch: %w", err)
	}
	if err != nil {
		return Epoch{}, fmt.Errorf("%w: %w", ErrEpochInvalid, err)
	}
	return e, nil
}

func epochOf(b *eventv1.EpochBody) (Epoch, error) {
	switch {
	case len(b.GetOperator()) != 32 || len(b.GetInstanceKey()) != 32:
		return Epoch{}, errors.New("operator and instance have 32 bytes")
	case len(b.Chain) == 0 || len(b.Chain) > MaxChain:
		return Epoch{}, fmt.Errorf("chain must have 1 to %d bytes", MaxChain)
	case b.Epoch <= FirstEpoch || b.Time == 0 || b.Time >= 1<<53:
		return Epoch{}, errors.New("epoch must be at least 2, and time be set")
	}
	e := Epoch{
		Operator: sig.AccountID(b.Operator), Chain: b.Chain,
		Instance: sig.PublicKey(b.InstanceKey), Number: b.Epoch,
		Marks: map[Topic]Head{}, Time: time.UnixMilli(int64(b.Time)),
	}
	for _, m := range b.Marks {
		topic := Topic(m.GetTopic())
		_, twice := e.Marks[topic]
		if !topic.Valid() || twice || len(m.Hash) != 32 || m.Epoch == 0 || m.Epoch >= b.Epoch {
			return Epoch{}, fmt.Errorf("mark of topic %.20q is wrong", m.GetTopic())
		}
		e.Marks[topic] = Head{Epoch: m.Epoch, Seq: m.Seq, Hash: [32]byte(m.Hash)}
	}
	return e, nil
}

// opens judges a verified envelope that stands first in a new epoch.
func (v *Verifier) opens(ctx context.Context, e *Envelope, operator [32]byte) (Epoch, error) {
	if e.Type() != TypeEpochOpened || e.Body.Seq != 1 {
		return Epoch{}, fmt.Errorf("%s: %w: nothing opened it", e.Line(), ErrEpochInvalid)
	}
	epoch, err := VerifyEpoch(ctx, e.Body.Payload, v.cfg.Sets)
	if err != nil {
		return Epoch{}, fmt.Errorf("%s: %w", e.Line(), err)
	}
	mark := epoch.Marks[e.Topic()].Hash
	switch {
	case epoch.Operator != operator, epoch.Instance != e.Line().Instance,
		epoch.Number != e.Body.Epoch, !bytes.Equal(mark[:], e.Body.Prev):
		return Epoch{}, fmt.Errorf("%s: %w: it is for another place", e.Line(), ErrEpochInvalid)
	}
	return epoch, nil
}

// OpenEpoch puts the new epoch's first envelope into every line of an outbox that stands in an
// older one; it changes nothing the next time. A Publisher that is given the notice does it. The
// notice is judged by form and place only: receivers judge the signature.
func OpenEpoch(ctx context.Context, q Queue, s *Signer, notice []byte) error {
	m := new(eventv1.EpochNotice)
	if err := canon.Unmarshal(notice, m); err != nil {
		return fmt.Errorf("open epoch: %w: %w", ErrEpochInvalid, err)
	}
	epoch, err := epochOf(m.GetBody())
	if err != nil {
		return fmt.Errorf("open epoch: %w: %w", ErrEpochInvalid, err)
	}
	if epoch.Instance != s.address.Instance || epoch.Operator != s.address.Operator {
		return fmt.Errorf("open epoch: %w: it is of another instance", ErrEpochInvalid)
	}
	pending, err := q.Pending(ctx)
	if err != nil {
		return fmt.Errorf("open epoch: read outbox: %w", err)
	}
	var sealed []Sealed
	for _, topic := range Topics() {
		if pending.Heads[topic].Epoch >= epoch.Number {
			continue
		}
		e, err := s.Sign(
			Event{Topic: topic, Type: TypeEpochOpened, Time: epoch.Time, Payload: notice},
			Head{Epoch: epoch.Number, Hash: epoch.Marks[topic].Hash})
		if err != nil {
			return fmt.Errorf("open epoch: %w", err)
		}
		sealed = append(sealed, Sealed{Envelope: e})
	}
	if len(sealed) == 0 {
		return nil
	}
	if err := q.Seal(ctx, sealed); err != nil {
		return fmt.Errorf("open epoch: write envelopes: %w", err)
	}
	return nil
}
