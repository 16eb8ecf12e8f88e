package event

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Bounds of fetching.
const (
	maxFetching = 16               // gaps that are asked about at once
	maxFetchOf  = 2                // of one operator: the others' gaps do not wait for its answers
	fetchTime   = 20 * time.Second // for one gap's answer; it may be a part of what is missing

)

// answer is what a gap hook returned, or what was found at the place of a rival.
type answer struct {
	gap      *GapError
	rival    *rivalry // else gap is set
	operator [32]byte
	envs     []Received
	err      error
}

// fetcher asks owners for what is missing, beside the work on what has come: an owner that does
// not answer holds up its own line alone.
type fetcher struct {
	hook    func(ctx context.Context, gap *GapError) ([]Received, error)
	answers chan answer
	running sync.WaitGroup
	// Used by the consumer's goroutine only.
	asking    map[Line]bool
	comparing map[Line]bool // true where the rival is sure to be one
	byOwner   map[[32]byte]int
}

func newFetcher(hook func(context.Context, *GapError) ([]Received, error)) *fetcher {
	return &fetcher{
		hook: hook, answers: make(chan answer, maxFetching),
		asking: map[Line]bool{}, comparing: map[Line]bool{}, byOwner: map[[32]byte]int{},
	}
}

// ask begins to ask for a gap, unless that is under way or too much is.
func (f *fetcher) ask(ctx context.Context, gap *GapError, operator [32]byte) {
	if f.hook == nil || f.asking[gap.Line] || !f.admits(operator) {
		return
	}
	f.asking[gap.Line] = true
	f.byOwner[operator]++
	f.running.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, fetchTime)
		defer cancel()
		envs, err := f.hook(ctx, gap)
		// There is room for each that is asked.
		f.answers <- answer{gap: gap, operator: operator, envs: envs, err: err}
	})
}

// admits tells whether something more may be asked about.
func (f *fetcher) admits(operator [32]byte) bool {
	return len(f.asking)+len(f.comparing) < maxFetching && f.byOwner[operator] < maxFetchOf
}

// done forgets that the answer's question was asked.
func (f *fetcher) done(a answer) {
	if a.rival != nil {
		delete(f.comparing, a.rival.item.in.Line())
	} else {
		delete(f.asking, a.gap.Line)
	}
	if f.byOwner[a.operator]--; f.byOwner[a.operator] == 0 {
		delete(f.byOwner, a.operator)
	}
}

// fetched takes what an owner answered; what waited behind the gap is taken with it.
func (c *Consumer[Tx]) fetched(ctx context.Context, a answer) {
	c.fetcher.done(a)
	in := &intake[Tx]{Consumer: c, ahead: map[Line]Cursor{}, asked: map[Line]bool{}}
	if a.rival != nil {
		in.compared(ctx, a)
	} else if err := in.answered(ctx, a); err != nil {
		c.cfg.Log.InfoContext(ctx, "a gap in events stays open", "error", err)
	}
	in.apply(ctx)
}

func (in *intake[Tx]) answered(ctx context.Context, a answer) error {
	var lost *LostError
	if errors.As(a.err, &lost) {
		return in.resync(ctx, lost)
	}
	if a.err != nil {
		return fmt.Errorf("%w; fetch what is missing: %v", a.gap, a.err)
	}
	for _, v := range in.cfg.Verifier.Verify(ctx, a.envs[:min(len(a.envs), MaxRefetched)]) {
		if err := in.placeFetched(ctx, a.gap, v); err != nil {
			return err
		}
	}
	in.takeParked(ctx, a.gap.Line)
	return nil
}

// resync goes on at the oldest that the owner keeps: it says itself that the rest is lost.
func (in *intake[Tx]) resync(ctx context.Context, lost *LostError) error {
	gap := lost.Gap
	cursor, err := in.cursor(ctx, gap.Line)
	if err != nil {
		return err
	}
	if max(cursor.Epoch, FirstEpoch) != gap.Epoch || cursor.Seq+1 != gap.Want ||
		lost.Oldest <= gap.Want || lost.Oldest > gap.Got || len(cursor.Fork) > 0 {
		return fmt.Errorf("%w: that fits not where the line stands now", lost)
	}
	in.cfg.Log.WarnContext(ctx, "events are lost: their owner does not keep them any more",
		"line", gap.Line, "epoch", gap.Epoch, "from", gap.Want, "to", lost.Oldest-1)
	if in.cfg.OnLost != nil {
		in.cfg.OnLost(ctx, lost)
	}
	moved := Cursor{Head: Head{Epoch: gap.Epoch, Seq: lost.Oldest - 1}}
	if !in.persist(ctx, func() error { return in.move(ctx, gap.Line, moved, nil) }) {
		return ctx.Err()
	}
	delete(in.stuck, gap.Line)
	in.ahead[gap.Line] = moved
	in.takeParked(ctx, gap.Line)
	return nil
}

// move sets the cursor of a line in a transaction of its own, and says what is to be said with it.
func (in *intake[Tx]) move(ctx context.Context, line Line, to Cursor, say *Event) error {
	err := in.cfg.Cursors.Transact(ctx, func(tx Tx) error {
		if say != nil && in.cfg.Outbox != nil {
			if err := in.cfg.Outbox.Append(tx, *say); err != nil {
				return fmt.Errorf("say it: %w", err)
			}
		}
		return in.cfg.Cursors.SetCursor(tx, line, to)
	})
	if err != nil {
		delete(in.cursors, line) // it may have happened: the store knows
		return err
	}
	in.cursors[line] = to
	return nil
}
