package podman

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/services/executor"
)

// repository is the name that images carry within the instance; the tag is the digest.
const repository = "localhost/ucn"

// heldImage is the record of an image that was checked and loaded, in images/<hex>.json.
type heldImage struct {
	ID     executor.ImageID `json:"id"`
	Config string           `json:"config"`
}

// engineImage is what the engine tells of an image.
type engineImage struct {
	ID   string `json:"Id"`
	Size uint64 `json:"Size"`
}

// config returns the config digest of an image that is held, else executor.ErrNoImage.
func (i *Instance) config(ctx context.Context, id executor.ImageID) (string, error) {
	i.mu.Lock()
	held, ok := i.held[id]
	i.mu.Unlock()
	if ok {
		return held.Config, nil
	}
	img, err := i.lookUp(ctx, id)
	return img.Config, err
}

// lookUp reads the record and asks the engine whether it still holds the image.
func (i *Instance) lookUp(ctx context.Context, id executor.ImageID) (executor.Image, error) {
	digest, err := id.Digest()
	if err != nil {
		return executor.Image{}, err
	}
	b, err := os.ReadFile(i.record(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return executor.Image{}, fmt.Errorf("%w: %s", executor.ErrNoImage, id)
	}
	if err != nil {
		return executor.Image{}, fmt.Errorf("reading the image record: %w", err)
	}
	var held heldImage
	if err := json.Unmarshal(b, &held); err != nil {
		return executor.Image{}, fmt.Errorf("reading the image record %s: %w", digest, err)
	}
	// By the name that admit gave it: another image can have the same config, and so the same ID.
	img, err := i.inspectImage(ctx, nameOf(digest), held.Config)
	if status(err) == http.StatusNotFound {
		return executor.Image{}, fmt.Errorf("%w: %s", executor.ErrNoImage, id)
	}
	if err != nil {
		return executor.Image{}, err
	}
	return i.keep(executor.Image{ID: id, Config: held.Config, Bytes: img.Size}), nil
}

// keep remembers an image that the engine holds, so that listing needs no engine.
func (i *Instance) keep(img executor.Image) executor.Image {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.held[img.ID] = img
	return img
}

func (i *Instance) record(digest string) string {
	return i.path("images", strings.TrimPrefix(digest, "sha256:")+".json")
}

// inspectImage looks up what the engine calls name, and makes sure that it has this config.
func (i *Instance) inspectImage(ctx context.Context, name, config string) (engineImage, error) {
	var img engineImage
	err := i.api.call(ctx, get("/images/"+name+"/json"), nil, &img)
	if hex := strings.TrimPrefix(config, "sha256:"); err == nil && img.ID != hex {
		err = fmt.Errorf("%w: podman answers %s for image %s", executor.ErrImageMismatch, img.ID, hex)
	}
	return img, err
}

// nameOf is what admit calls an image.
func nameOf(digest string) string {
	return repository + ":" + strings.TrimPrefix(digest, "sha256:")
}

// hasImage implements executor.Images.
func (i *Instance) hasImage(ctx context.Context, id executor.ImageID) (bool, error) {
	img, err := i.lookUp(ctx, id)
	if errors.Is(err, executor.ErrNoImage) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, i.touch(img.ID)
}

// touch dates the record of an image: it is wanted now. That outlives the executor.
func (i *Instance) touch(id executor.ImageID) error {
	digest, err := id.Digest()
	if err != nil {
		return err
	}
	now := time.Now()
	if err := os.Chtimes(i.record(digest), now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("dating the image record: %w", err)
	}
	return nil
}

// loadImage implements executor.Images. The load itself is bound to no caller, as others wait
// for it too; it ends when its source does, or with the instance. Another source's
// load of the same image goes on beside it, and the engine keeps what both made once.
func (i *Instance) loadImage(
	ctx context.Context, id executor.ImageID, source string, open executor.OpenLayout,
) (executor.Image, error) {
	got := i.loading.DoChan(string(id)+" "+source, func() (any, error) {
		i.mu.Lock()
		if i.closed {
			i.mu.Unlock()
			return executor.Image{}, executor.ErrClosed
		}
		i.loads.Add(1)
		i.mu.Unlock()
		defer i.loads.Done()
		work, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		defer context.AfterFunc(i.closing, cancel)()
		img, err := i.lookUp(work, id)
		switch {
		case err == nil:
			return img, i.touch(id)
		case !errors.Is(err, executor.ErrNoImage):
			return img, err
		}
		return i.load(work, id, open)
	})
	select {
	case <-ctx.Done():
		return executor.Image{}, ctx.Err()
	case res := <-got:
		img, _ := res.Val.(executor.Image)
		return img, res.Err
	}
}

func (i *Instance) load(ctx context.Context, id executor.ImageID, open executor.OpenLayout,
) (executor.Image, error) {
	digest, err := id.Digest()
	if err != nil {
		return executor.Image{}, err
	}
	if err := i.ready(ctx); err != nil {
		return executor.Image{}, err
	}
	if err := i.room.knock(id); err != nil {
		return executor.Image{}, fmt.Errorf("loading image %s: %w", id, err)
	}
	ctx, give := context.WithCancelCause(ctx)
	defer give(nil)
	src, err := open(ctx)
	if err != nil {
		return executor.Image{}, fmt.Errorf("opening image %s: %w", id, err)
	}
	a := i.room.enter(id, give)
	config, err := i.guarded(ctx, give, func() (string, error) {
		return i.transfer(ctx, src, digest, a)
	})
	err = errors.Join(err, src.Close())
	if diskFull(err) {
		err = errors.Join(&executor.NoRoomError{Need: a.all().bytes}, err)
	}
	a.leave()
	if err != nil {
		return executor.Image{}, fmt.Errorf("loading image %s: %w", id, err)
	}
	return i.admit(ctx, id, digest, config)
}

// loadLimit is how long an image may take, from its source and within the engine: more than a pull
// may. Then the engine hangs, and its service is ended.
const loadLimit = 90 * time.Minute

// guarded transfers an image within the limit, and watches the disk meanwhile: see room.
func (i *Instance) guarded(
	ctx context.Context, give context.CancelCauseFunc, transfer func() (string, error),
) (string, error) {
	over := make(chan struct{})
	var guard sync.WaitGroup
	guard.Go(func() {
		tick, late := time.NewTicker(diskLook), time.NewTimer(i.loadLimit)
		defer tick.Stop()
		defer late.Stop()
		for began := time.Now(); ; {
			select {
			case <-over:
				return
			case <-late.C:
				give(fmt.Errorf("%w: the image is not loaded after %s", errHung, i.loadLimit))
				i.service.unhang(began)
				return
			case <-tick.C:
			}
			i.makeRoom()
		}
	})
	config, err := transfer()
	close(over)
	guard.Wait()
	if err != nil {
		i.makeRoom() // the engine may have found the disk full before the guard did
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return "", cause
	}
	return config, err
}

// diskFull tells that the engine found no room for what it was doing: others were quicker than the
// guard. It answers in words alone.
func diskFull(err error) bool {
	var said *apiError
	return errors.As(err, &said) && strings.Contains(said.Message, unix.ENOSPC.Error())
}

// makeRoom ends the engine when what it unpacks takes what is left of the disk.
func (i *Instance) makeRoom() {
	if i.room.short() {
		i.service.abort()
		i.room.aborted()
	}
}

// transfer streams the checked layout into the engine. If the check fails, the stream breaks off
// and the engine keeps nothing: it unpacks only what has arrived whole, and has its room by then.
func (i *Instance) transfer(ctx context.Context, src io.Reader, digest string, a *arrival,
) (string, error) {
	r, w := io.Pipe()
	type outcome struct {
		config string
		err    error
	}
	checked := make(chan outcome, 1)
	go func() {
		config, err := filterLayout(&gate{ctx: ctx, a: a, to: w}, src, layoutLimits{
			want: digest, most: i.cfg.MaxUnpacked, comes: a.comes,
			room: func(disk, files uint64) error { return a.unpack(ctx, disk, files) },
		})
		_ = w.CloseWithError(err) // always nil
		checked <- outcome{config, err}
	}()
	err := i.api.upload(ctx, "/images/load", r, nil)
	_ = r.CloseWithError(io.ErrClosedPipe) // always nil
	got := <-checked
	if got.err != nil && !errors.Is(got.err, io.ErrClosedPipe) {
		return "", got.err
	}
	return got.config, err
}

// admit checks what the engine made of the image, names it so that it is kept, and records it.
func (i *Instance) admit(ctx context.Context, id executor.ImageID, digest, config string,
) (executor.Image, error) {
	img, err := i.inspectImage(ctx, strings.TrimPrefix(config, "sha256:"), config)
	if status(err) == http.StatusNotFound {
		return executor.Image{}, fmt.Errorf("%w: podman did not make config %s of it",
			executor.ErrImageMismatch, config)
	}
	if err != nil {
		return executor.Image{}, err
	}
	q := url.Values{"repo": {repository}, "tag": {strings.TrimPrefix(digest, "sha256:")}}
	if err := i.api.call(ctx, post("/images/"+img.ID+"/tag").with(q), nil, nil); err != nil {
		return executor.Image{}, fmt.Errorf("naming image %s: %w", id, err)
	}
	b, err := json.Marshal(heldImage{ID: id, Config: config})
	if err != nil {
		return executor.Image{}, fmt.Errorf("recording image %s: %w", id, err)
	}
	if err := writeWhole(i.record(digest), b, 0o600); err != nil {
		return executor.Image{}, fmt.Errorf("recording image %s: %w", id, err)
	}
	return i.keep(executor.Image{ID: id, Config: config, Bytes: img.Size}), nil
}

// listImages implements executor.Images. It asks the engine only for images that this life has not
// asked for yet: offers list them again and again, and the engine's service may sleep.
func (i *Instance) listImages(ctx context.Context) ([]executor.Image, error) {
	entries, err := os.ReadDir(i.path("images"))
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	var list []executor.Image
	for _, e := range entries {
		b, err := os.ReadFile(i.path("images", e.Name()))
		var held heldImage
		if err != nil || json.Unmarshal(b, &held) != nil {
			continue // removed meanwhile, or a temporary file
		}
		i.mu.Lock()
		img, known := i.held[held.ID]
		i.mu.Unlock()
		if !known {
			img, err = i.lookUp(ctx, held.ID)
		}
		if errors.Is(err, executor.ErrNoImage) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if info, err := e.Info(); err == nil { // else it was removed meanwhile
			img.Used = info.ModTime()
		}
		list = append(list, img)
	}
	return list, nil
}

// removeImage implements executor.Images.
func (i *Instance) removeImage(ctx context.Context, id executor.ImageID) error {
	digest, err := id.Digest()
	if err != nil {
		return err
	}
	i.mu.Lock()
	delete(i.held, id)
	i.mu.Unlock()
	err = i.api.call(ctx, remove("/images/"+nameOf(digest)), nil, nil)
	switch {
	case status(err) == http.StatusConflict:
		return fmt.Errorf("%w: %s", executor.ErrImageInUse, id)
	case err != nil && status(err) != http.StatusNotFound:
		return fmt.Errorf("removing image %s: %w", id, err)
	}
	if err := os.Remove(i.record(digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the record of image %s: %w", id, err)
	}
	return nil
}
