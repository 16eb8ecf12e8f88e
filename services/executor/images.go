package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// images remembers when an image was last wanted, for those that this life has seen.
type images struct {
	at map[ImageID]time.Time // guarded by the agent's mutex; at most MaxOfferImages, then emptied
}

func (a *Agent) wanted(id ImageID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.images.at == nil || len(a.images.at) >= MaxOfferImages {
		a.images.at = map[ImageID]time.Time{}
	}
	a.images.at[id] = a.deps.Now()
}

// evict removes images that no attempt here needs, those first that were not wanted for longest,
// when they take more than the high mark, until they take no more than the low one: anybody may
// bring images, and the next one needs room, too.
func (a *Agent) evict(ctx context.Context) error {
	list, err := a.deps.Driver.ListImages(ctx)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	sum := uint64(0)
	for _, image := range list {
		sum = add(sum, image.Bytes)
	}
	high, low := a.imageMarks()
	if sum <= high {
		return nil
	}
	for _, image := range a.idle(list) {
		if sum <= low {
			return nil
		}
		err := a.deps.Driver.RemoveImage(ctx, image.ID)
		switch {
		case errors.Is(err, ErrImageInUse):
		case err != nil:
			return fmt.Errorf("remove image %s: %w", image.ID, err)
		default:
			sum -= min(image.Bytes, sum)
		}
	}
	return nil
}

// yield removes images that no attempt here needs, those first that were not wanted for longest,
// until an image that found no room has it: what is only kept for later jobs keeps none out. When
// they would not be enough, they stay. It returns what is to be done about the image that came.
func (a *Agent) yield(ctx context.Context, none *NoRoomError) error {
	list, err := a.deps.Driver.ListImages(ctx)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	list = a.idle(list)
	short, sum := none.Need-min(none.Need, none.Room), uint64(0)
	for _, image := range list {
		sum = add(sum, image.Bytes)
	}
	if sum < short || short == 0 {
		return none
	}
	sum = 0
	for _, image := range list {
		if sum >= short {
			break
		}
		err := a.deps.Driver.RemoveImage(ctx, image.ID)
		switch {
		case errors.Is(err, ErrImageInUse):
		case err != nil:
			return fmt.Errorf("remove image %s: %w", image.ID, err)
		default:
			sum = add(sum, image.Bytes)
		}
	}
	if sum < short {
		return none
	}
	return &NoRoomError{Need: none.Need, Room: none.Room} // it may try again
}

// imageMarks returns how many bytes images may take before some go, and how many are left then.
func (a *Agent) imageMarks() (high, low uint64) {
	high, low = a.cfg.ImageBytes, a.cfg.ImageBytesLow
	if high == 0 {
		high = a.Abilities().DiskBytes / 4
	}
	if low == 0 {
		low = high / 2
	}
	return high, min(low, high)
}

// idle returns the images that no attempt here runs or is about to run, longest unwanted first.
func (a *Agent) idle(list []Image) []Image {
	a.mu.Lock()
	defer a.mu.Unlock()
	needed := make(map[ImageID]bool, len(a.attempts))
	for _, t := range a.attempts {
		needed[t.ask.Spec.Image] = true
	}
	list = slices.DeleteFunc(slices.Clone(list), func(i Image) bool { return needed[i.ID] })
	slices.SortFunc(list, func(x, y Image) int { return a.lastWanted(x).Compare(a.lastWanted(y)) })
	return list
}

// lastWanted is when an image was wanted last, by this life or an earlier one. The caller holds the
// agent's mutex.
func (a *Agent) lastWanted(i Image) time.Time {
	if at := a.images.at[i.ID]; at.After(i.Used) {
		return at
	}
	return i.Used
}
