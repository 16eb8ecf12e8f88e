package fake

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/united-containers/ucn/services/executor"
)

var _ executor.Driver = (*Driver)(nil)

// Driver is one life of an executor on a host.
type Driver struct {
	h    *Host
	name string
	done chan struct{}
	once sync.Once
}

// Close implements executor.Driver.
func (d *Driver) Close() error {
	d.once.Do(func() { close(d.done) })
	return nil
}

func (d *Driver) call(ctx context.Context, method string, id executor.AttemptID, do func() error,
) error {
	select {
	case <-d.done:
		return executor.ErrClosed
	default:
	}
	return d.h.call(ctx, Call{Executor: d.name, Method: method, Attempt: id}, do)
}

// Probe implements executor.Driver.
func (d *Driver) Probe(ctx context.Context) (a executor.Abilities, err error) {
	err = d.call(ctx, "Probe", "", func() error {
		a = d.h.opts.Abilities
		return nil
	})
	return a, err
}

// HasImage implements executor.Images.
func (d *Driver) HasImage(ctx context.Context, id executor.ImageID) (held bool, err error) {
	err = d.call(ctx, "HasImage", "", func() error {
		d.h.mu.Lock()
		defer d.h.mu.Unlock()
		var img executor.Image
		if img, held = d.h.images[id]; held {
			img.Used = time.Now()
			d.h.images[id] = img
		}
		held = held || d.h.opts.AnyImage
		return nil
	})
	return held, err
}

// LoadImage implements executor.Images.
func (d *Driver) LoadImage(
	ctx context.Context, id executor.ImageID, source string, open executor.OpenLayout,
) (img executor.Image, err error) {
	err = d.call(ctx, "LoadImage", "", func() error {
		img, err = d.load(ctx, id, source, open)
		return err
	})
	return img, err
}

func (d *Driver) load(
	ctx context.Context, id executor.ImageID, source string, open executor.OpenLayout,
) (executor.Image, error) {
	got := d.h.loading.DoChan(string(id)+" "+source, func() (any, error) {
		return d.loadOnce(context.WithoutCancel(ctx), id, open)
	})
	select {
	case <-ctx.Done():
		return executor.Image{}, ctx.Err()
	case res := <-got:
		img, _ := res.Val.(executor.Image)
		return img, res.Err
	}
}

func (d *Driver) loadOnce(ctx context.Context, id executor.ImageID, open executor.OpenLayout,
) (executor.Image, error) {
	d.h.mu.Lock()
	img, ok := d.h.images[id]
	d.h.mu.Unlock()
	if ok || d.h.opts.AnyImage {
		img.ID = id
		return img, nil
	}
	r, err := open(ctx)
	if err != nil {
		return executor.Image{}, fmt.Errorf("opening image %s: %w", id, err)
	}
	img, err = readLayout(r, id)
	if err = errors.Join(err, r.Close()); err != nil {
		return executor.Image{}, err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	img.Used = time.Now()
	d.h.images[id] = img
	return img, nil
}

// readLayout checks every blob of a layout and finds the image's config.
func readLayout(r io.Reader, id executor.ImageID) (executor.Image, error) {
	want, err := id.Digest()
	if err != nil {
		return executor.Image{}, err
	}
	img := executor.Image{ID: id}
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		var data []byte
		if err == nil {
			data, err = io.ReadAll(in)
		}
		if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
			return img, fmt.Errorf("%w: %w", executor.ErrImageMismatch, err)
		}
		if err != nil {
			return img, fmt.Errorf("reading the image layout: %w", err)
		}
		sum, blob := strings.CutPrefix(h.Name, "blobs/sha256/")
		if !blob {
			continue
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(data)); got != sum {
			return img, fmt.Errorf("%w: blob %s hashes to %s", executor.ErrImageMismatch, sum, got)
		}
		img.Bytes += uint64(len(data))
		if "sha256:"+sum == want {
			img.Config = configOf(data)
		}
	}
	if img.Config == "" {
		return img, fmt.Errorf("%w: no manifest %s in it", executor.ErrImageMismatch, want)
	}
	return img, nil
}

func configOf(manifest []byte) string {
	var m struct{ Config struct{ Digest string } }
	if json.Unmarshal(manifest, &m) != nil {
		return ""
	}
	return m.Config.Digest
}

// ListImages implements executor.Images.
func (d *Driver) ListImages(ctx context.Context) (list []executor.Image, err error) {
	err = d.call(ctx, "ListImages", "", func() error {
		d.h.mu.Lock()
		defer d.h.mu.Unlock()
		for _, i := range d.h.images {
			list = append(list, i)
		}
		return nil
	})
	return list, err
}

// RemoveImage implements executor.Images.
func (d *Driver) RemoveImage(ctx context.Context, id executor.ImageID) error {
	return d.call(ctx, "RemoveImage", "", func() error {
		d.h.mu.Lock()
		defer d.h.mu.Unlock()
		for _, c := range d.h.containers {
			if c.spec.Image == id {
				return fmt.Errorf("%w: %s", executor.ErrImageInUse, id)
			}
		}
		delete(d.h.images, id)
		return nil
	})
}

// Create implements executor.Driver.
func (d *Driver) Create(ctx context.Context, spec executor.ContainerSpec) (executor.Container,
	error,
) {
	var made *container
	err := d.call(ctx, "Create", spec.Attempt, func() error {
		var err error
		made, err = d.create(&spec)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &handle{d: d, c: made}, nil
}

func (d *Driver) create(spec *executor.ContainerSpec) (*container, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if p := d.h.opts.Abilities.Platform; spec.Platform != "" && spec.Platform != p {
		return nil, fmt.Errorf("%w: platform %q", executor.ErrUnsupported, spec.Platform)
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	k := key{d.name, spec.Attempt}
	if c, ok := d.h.containers[k]; ok {
		if !reflect.DeepEqual(c.spec, *spec) {
			return nil, fmt.Errorf("%w: %s", executor.ErrExists, spec.Attempt)
		}
		return c, nil
	}
	if _, ok := d.h.images[spec.Image]; !ok && !d.h.opts.AnyImage {
		return nil, fmt.Errorf("%w: %s", executor.ErrNoImage, spec.Image)
	}
	for _, m := range spec.Mounts {
		if m.Kind != executor.MountInput {
			continue
		}
		if _, err := os.Stat(m.Source); err != nil {
			return nil, fmt.Errorf("%w: input %s: %w", executor.ErrInvalid, m.Path, err)
		}
	}
	c := newContainer(d.h, k, spec)
	d.h.containers[k] = c
	return c, nil
}

// List implements executor.Driver.
func (d *Driver) List(ctx context.Context) (list []executor.Container, err error) {
	err = d.call(ctx, "List", "", func() error {
		d.h.mu.Lock()
		defer d.h.mu.Unlock()
		for k, c := range d.h.containers {
			if k.executor == d.name {
				list = append(list, &handle{d: d, c: c})
			}
		}
		return nil
	})
	return list, err
}
