package event

import (
	"context"
	"fmt"

	"github.com/united-containers/ucn/kit/bus/subject"
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
		if err := in.prove(ctx, &f); err != nil {
			in.cfg.Log.WarnContext(ctx, "a fork waits for its proof",
				"line", f.item.in.Line(), "error", err)
			if f.item.msg != nil { // else the broker's copy comes again
				in.hold(ctx, f.item.msg, f.item.in.Line(), err)
			}
			continue
		}
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

// prove makes the evidence of a fork. The directory may have forgotten the certificate since the
// envelope was verified: it is looked up once more, and without it the fork waits. The line stands
// meanwhile, because the store's cursor does not move, and other lines go on. The envelope comes
// again, and to be verified then it needs the same certificate.
func (in *intake[Tx]) prove(ctx context.Context, f *found) error {
	certificates := in.cfg.Verifier.cfg.Certificates
	named := cert.ID(f.item.in.Body.CertificateId)
	raw := certificates.Bytes(named)
	if raw == nil {
		from := subject.Address{
			Operator: f.item.in.Operator, Service: f.item.in.Service,
			Instance: f.item.in.Line().Instance,
		}
		if _, err := certificates.Certificate(ctx, named, from); err != nil {
			return fmt.Errorf("prove a fork: %w", err)
		}
		if raw = certificates.Bytes(named); raw == nil {
			return fmt.Errorf("prove a fork: %w", ErrCertificateUnknown)
		}
	}
	proof, err := f.fork.Proof(raw)
	if err != nil {
		return err
	}
	f.fork.Evidence = proof
	return nil
}

func (in *intake[Tx]) recordOne(ctx context.Context, f found) error {
	line := f.item.in.Line()
	cursor, err := in.committed(ctx, line)
	if err != nil || len(cursor.Fork) > 0 || max(cursor.Epoch, FirstEpoch) != f.item.in.Body.Epoch {
		return err
	}
	proof := f.fork.Evidence
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
