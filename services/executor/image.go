package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/united-containers/ucn/kit/fault"
)

// fetchImage makes sure that the image is here and that its source would give it to this owner.
func (t *attempt) fetchImage(ctx context.Context, as FileAccess, v *view) error {
	id := t.ask.Spec.Image
	want := FetchImage{ID: id, Reference: t.ask.Spec.Reference, Credentials: v.registry}
	source, err := t.agent.deps.Files.Source(want)
	if err != nil {
		return err
	}
	from := origin{id, source}
	want.Turn = func(ctx context.Context, open OpenLayout) (io.ReadCloser, error) {
		return t.agent.pulls.open(ctx, from, open)
	}
	t.agent.wanted(id)
	held, err := t.agent.deps.Driver.HasImage(ctx, id)
	if err != nil {
		return err
	}
	if held {
		return t.checkImage(ctx, as, from, want)
	}
	if err := t.agent.evict(ctx); err != nil {
		t.agent.deps.Log.WarnContext(ctx, "cannot make room for images", "error", err)
	}
	var mine atomic.Bool
	open := func(ctx context.Context) (io.ReadCloser, error) {
		mine.Store(true)
		return t.agent.pulls.open(ctx, from, func(ctx context.Context) (io.ReadCloser, error) {
			return t.agent.deps.Files.OpenImage(ctx, as, want)
		})
	}
	if err := t.loadImage(ctx, from, open); err != nil {
		if none := (*NoRoomError)(nil); errors.As(err, &none) { // whoever asked
			return t.agent.yield(ctx, none)
		}
		if !mine.Load() { // another's load failed, with another's token: try with ours
			return fmt.Errorf("wait for image %s: %v", id, err)
		}
		return fmt.Errorf("fetch image %s: %w", id, err)
	}
	t.agent.offerChanged()
	if !mine.Load() { // it came with another's right
		return t.checkImage(ctx, as, from, want)
	}
	return nil
}

// loadImage loads the image, alone or with others that want it of the same source, and tells the
// owner while it waits for its turn.
func (t *attempt) loadImage(ctx context.Context, from origin, open OpenLayout) error {
	return t.inTurn(ctx, from, func() error {
		_, err := t.agent.deps.Driver.LoadImage(ctx, from.image, from.source, open)
		return err
	})
}

// checkImage asks the source of an image that is held here. A registry that did not serve it to
// this host yet must serve all of it, which takes a turn like any image that comes.
func (t *attempt) checkImage(ctx context.Context, as FileAccess, from origin, want FetchImage,
) error {
	return t.inTurn(ctx, from, func() error { return t.agent.deps.Files.CheckImage(ctx, as, want) })
}

// inTurn does what may wait for a turn of the image, and tells the owner while it waits.
func (t *attempt) inTurn(ctx context.Context, from origin, do func() error) error {
	defer t.agent.pulls.want(from, t.ask.Spec.Owner)()
	over := make(chan struct{})
	var show sync.WaitGroup
	show.Go(func() { t.showTurn(ctx, from, over) })
	err := do()
	close(over)
	show.Wait()
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errImageLate
	}
	return err
}

var errImageLate = fault.New(fault.Unavailable, "IMAGE_LATE", "its image was still on its way")

// showTurn tells that the image waits for its turn, and that it does no more, until over is closed.
func (t *attempt) showTurn(ctx context.Context, from origin, over <-chan struct{}) {
	tick := time.NewTicker(showLook)
	defer tick.Stop()
	for told := t.view().rec.Waiting != ""; ; {
		select {
		case <-over:
			return
		case <-tick.C:
		}
		waits, under, queued := t.agent.pulls.waiting(from)
		if waits == told {
			continue
		}
		text := ""
		if waits {
			text = fmt.Sprintf("its image waits for its turn: %d images are being fetched here, "+
				"%d wait", under, queued)
		}
		err := t.update(context.WithoutCancel(ctx), "", func(r *Record) {
			if r.Phase == PhaseTaken {
				r.Waiting = text
			}
		})
		if err != nil { // tried again at the next look
			t.agent.deps.Log.WarnContext(ctx, "cannot tell that an image waits", "error", err)
			continue
		}
		told = waits
	}
}
