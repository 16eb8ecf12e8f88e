package event

import (
	"context"

	"github.com/united-containers/ucn/kit/cert"
)

// found is a fork met in a batch, to be written down once the batch has taken effect.
type found struct {
	fork *ForkError
	item item
}

// forked stops the line for the rest of the batch and remembers to write the fork down.
func (in *intake[Tx]) forked(ctx context.Context, it item, fork *ForkError) {
	line := it.in.Line()
	cursor, err := in.cursor(ctx, line)
	if err != nil {
		in.giveBack(it.msg)
		return
	}
	cursor.Fork = []byte{0} // stands for the proof that follows
	in.ahead[line] = cursor
	in.forks = append(in.forks, found{fork, it})
}

// record writes forks down: proof, and the event that tells of it, in one transaction. It happens
// once per line and epoch, since a line with a proof is not followed.
func (in *intake[Tx]) record(ctx context.Context) {
	for _, f := range in.forks {
		if !in.persist(ctx, func() error { return in.recordOne(ctx, f) }) {
			in.giveBack(f.item.msg)
			continue
		}
		if f.item.msg != nil {
			in.drop(ctx, f.item.msg, f.fork)
		}
		if in.cfg.OnFork != nil {
			in.cfg.OnFork(ctx, f.fork)
		}
	}
	in.forks = nil
}

func (in *intake[Tx]) recordOne(ctx context.Context, f found) error {
	line := f.item.in.Line()
	cursor, err := in.committed(ctx, line)
	if err != nil || len(cursor.Fork) > 0 || max(cursor.Epoch, FirstEpoch) != f.item.in.Body.Epoch {
		return err
	}
	named := cert.ID(f.item.in.Body.CertificateId)
	proof, err := f.fork.Proof(in.cfg.Verifier.cfg.Certificates.Bytes(named))
	if err != nil {
		return err
	}
	f.fork.Evidence = proof
	say, err := noticeOf(f.fork, proof, in.cfg.Verifier.cfg.Clock())
	if err != nil {
		return err
	}
	cursor.Fork = proof
	if err := in.move(ctx, line, cursor, &say); err != nil {
		return err
	}
	in.cfg.Log.ErrorContext(ctx, "an instance signed two histories: it is followed no more until "+
		"its operator opens a new epoch", "line", line, "epoch", cursor.Epoch,
		"seq", f.item.in.Body.Seq)
	return nil
}
