package event

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/bus/subject"
	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
)

// ErrRestored says that the streams hold more of an instance's lines than its outbox: it was
// restored from a backup. What it would sign now contradicts what it said after the backup, so
// nothing is said until its operator opens a new epoch (IssueEpoch).
var ErrRestored = errors.New("the streams hold events of this instance that its outbox does not " +
	"know: it was restored from a backup and needs a new epoch of its operator")

// Marks returns the newest places of an instance's lines in the stream of its service: those that
// the instance truly signed. Lines that it does not find have none.
func Marks(
	ctx context.Context, js jetstream.JetStream, of subject.Address,
) (map[Topic]Head, error) {
	marks := map[Topic]Head{}
	stream, err := js.Stream(ctx, StreamName(of.Service))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return marks, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open stream of %s: %w", of.Service, err)
	}
	for _, topic := range Topics() {
		m, err := stream.GetLastMsgForSubject(ctx, of.Event(string(topic), ">"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the newest of topic %s: %w", topic, err)
		}
		e, err := Decode(m.Data)
		if err != nil || e.Line() != (Line{of.Instance, topic}) ||
			!sig.Verify(of.Instance, e.preimage, e.signature) {
			continue // a broker's invention stops nobody
		}
		marks[topic] = Head{Epoch: e.Body.Epoch, Seq: e.Body.Seq, Hash: e.Hash}
	}
	return marks, nil
}

// behind reports whether the mark is of a history that a line at head does not have.
func (h Head) behind(mark Head) bool {
	switch {
	case mark.Epoch != h.Epoch:
		return mark.Epoch > h.Epoch
	case mark.Seq != h.Seq:
		return mark.Seq > h.Seq
	}
	return mark.Hash != h.Hash
}

// begin opens the new epoch, if the operator gave one, and makes sure that nothing signed from here
// on contradicts what was said before. Nobody else writes the outbox's lines meanwhile.
func (p *Publisher) begin(ctx context.Context) error {
	marks, err := Marks(ctx, p.cfg.JetStream, p.cfg.Signer.Address())
	if err != nil {
		return err
	}
	if len(p.cfg.Epoch) > 0 {
		// The word of an earlier restore opened that epoch already, with what is lost again: opening
		// it anew would sign its first place twice.
		opens, err := epochOpenedBy(p.cfg.Epoch)
		if err != nil {
			return err
		}
		if err := p.knows(ctx, marks, opens); err != nil {
			return err
		}
		if err := OpenEpoch(ctx, p.cfg.Queue, p.cfg.Signer, p.cfg.Epoch); err != nil {
			return err
		}
	}
	if err := p.knows(ctx, marks, 0); err != nil {
		return err
	}
	p.begun = true
	return nil
}

// knows holds that the outbox has what stands at the marks of an epoch and later ones.
func (p *Publisher) knows(ctx context.Context, marks map[Topic]Head, since uint64) error {
	pending, err := p.cfg.Queue.Pending(ctx)
	if err != nil {
		return fmt.Errorf("read outbox: %w", err)
	}
	for topic, mark := range marks {
		if mark.Epoch >= since && pending.Heads[topic].behind(mark) {
			return fmt.Errorf("%w: topic %s stands at %d of epoch %d there", ErrRestored, topic,
				mark.Seq, mark.Epoch)
		}
	}
	return nil
}

func epochOpenedBy(notice []byte) (uint64, error) {
	m := new(eventv1.EpochNotice)
	if err := canon.Unmarshal(notice, m); err != nil {
		return 0, fmt.Errorf("open epoch: %w: %w", ErrEpochInvalid, err)
	}
	return m.GetBody().GetEpoch(), nil
}
