package podman

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/united-containers/ucn/services/executor"
)

var _ executor.Driver = (*Driver)(nil)

// Driver is one executor's view of an instance.
type Driver struct {
	i    *Instance
	name string
	done chan struct{} // closed by Close
	own  func() error  // closes the instance too, if the driver owns it

	mu     sync.Mutex // guards handles and closing
	byID   map[executor.AttemptID]*container
	closed bool
}

// New opens an instance for one executor alone. Closing the driver closes the instance.
func New(cfg Config, name string) (*Driver, error) {
	i, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	d, err := i.Driver(name)
	if err != nil {
		return nil, errors.Join(err, i.Close())
	}
	d.own = i.Close
	return d, nil
}

func newDriver(i *Instance, name string) (*Driver, error) {
	if err := os.MkdirAll(i.path("attempts", name), 0o711); err != nil {
		return nil, fmt.Errorf("making the executor's directory: %w", err)
	}
	return &Driver{
		i: i, name: name, done: make(chan struct{}),
		byID: make(map[executor.AttemptID]*container),
	}, nil
}

// Close implements executor.Driver.
func (d *Driver) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	close(d.done)
	var errs []error
	for _, c := range d.byID {
		errs = append(errs, c.closeMeter())
	}
	own := d.own
	d.mu.Unlock()
	d.i.forget(d)
	if own != nil {
		errs = append(errs, own())
	}
	return errors.Join(errs...)
}

// HasImage implements executor.Images.
func (d *Driver) HasImage(ctx context.Context, id executor.ImageID) (bool, error) {
	return d.i.hasImage(ctx, id)
}

// LoadImage implements executor.Images.
func (d *Driver) LoadImage(
	ctx context.Context, id executor.ImageID, source string, open executor.OpenLayout,
) (executor.Image, error) {
	return d.i.loadImage(ctx, id, source, open)
}

// ListImages implements executor.Images.
func (d *Driver) ListImages(ctx context.Context) ([]executor.Image, error) {
	return d.i.listImages(ctx)
}

// RemoveImage implements executor.Images.
func (d *Driver) RemoveImage(ctx context.Context, id executor.ImageID) error {
	return d.i.removeImage(ctx, id)
}

// Create implements executor.Driver.
func (d *Driver) Create(ctx context.Context, spec executor.ContainerSpec) (executor.Container,
	error,
) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	here := runtime.GOOS + "/" + runtime.GOARCH
	if spec.Platform != "" && spec.Platform != here {
		return nil, fmt.Errorf("%w: platform %q, this host is %s", executor.ErrUnsupported,
			spec.Platform, here)
	}
	hash, err := specHash(&spec)
	if err != nil {
		return nil, err
	}
	c, err := d.locked(spec.Attempt)
	if err != nil {
		return nil, err
	}
	defer c.life.Unlock()
	known, err := c.load()
	if err != nil {
		return nil, err
	}
	if known && c.record.Hash != hash {
		return nil, fmt.Errorf("%w: %s", executor.ErrExists, spec.Attempt)
	}
	if known {
		switch there, err := c.exists(ctx); {
		case err != nil:
			return nil, fmt.Errorf("creating %s: %w", spec.Attempt, err)
		case there:
			return c, nil
		}
	}
	if err := d.make(ctx, c, &spec, hash); err != nil {
		return nil, fmt.Errorf("creating %s: %w", spec.Attempt, err)
	}
	return c, nil
}

// make makes everything of a container. What a crash leaves half made is made up for by repeating
// it, or cleared away by List.
func (d *Driver) make(ctx context.Context, c *container, spec *executor.ContainerSpec, hash string,
) error {
	config, err := d.i.config(ctx, spec.Image)
	if err != nil {
		return err
	}
	for n := range spec.Mounts {
		if m := &spec.Mounts[n]; m.Kind == executor.MountInput && !exists(m.Source) {
			return fmt.Errorf("%w: input %s: %s does not exist", executor.ErrInvalid, m.Path, m.Source)
		}
	}
	if err := d.i.ready(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir.logDir(), 0o711); err != nil {
		return err
	}
	err = d.assemble(ctx, c, spec, hash, config)
	if err != nil && ctx.Err() == nil {
		// Nothing stays of a create that was refused.
		return errors.Join(err, c.clear(context.WithoutCancel(ctx)))
	}
	return err
}

func (d *Driver) assemble(ctx context.Context, c *container, spec *executor.ContainerSpec,
	hash, config string,
) error {
	first, err := d.i.ids.claim(string(c.dir))
	if err != nil {
		return err
	}
	r := &record{
		Executor: d.name, Spec: *spec, Hash: hash, FirstID: first, Created: time.Now().UTC(),
	}
	if err := c.dir.write("attempt.json", r); err != nil {
		return err
	}
	c.setRecord(r)
	if err := c.dir.makeVolumes(r); err != nil {
		return err
	}
	if err := d.i.groups.Create(c.group); err != nil {
		return err
	}
	own, err := d.i.service.limits()
	if err != nil {
		return err
	}
	g := d.i.generate(r, c.dir, config, own)
	err = d.create(ctx, c, g)
	if status(err) == http.StatusConflict || status(err) == http.StatusInternalServerError {
		// The name is taken by what a loss of power left without a record.
		if err2 := c.delete(ctx); err2 != nil {
			return errors.Join(err, err2)
		}
		err = d.create(ctx, c, g)
	}
	switch status(err) {
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", executor.ErrNoImage, err)
	case http.StatusBadRequest:
		return fmt.Errorf("%w: %w", executor.ErrInvalid, err)
	}
	return err
}

func (d *Driver) create(ctx context.Context, c *container, g *specgen) error {
	var made struct {
		ID string `json:"Id"`
	}
	err := d.i.api.call(ctx, post("/containers/create").within(createLimit), g, &made)
	if err == nil {
		c.setEngineID(made.ID)
	}
	return err
}

// locked returns the handle of the attempt with its life locked.
func (d *Driver) locked(id executor.AttemptID) (*container, error) {
	for {
		c, err := d.handle(id)
		if err != nil {
			return nil, err
		}
		c.life.Lock()
		if !c.dropped {
			return c, nil
		}
		c.life.Unlock() // removed while we waited: there may be a new one
	}
}

// handle returns the one handle of the attempt in this process.
func (d *Driver) handle(id executor.AttemptID) (*container, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, executor.ErrClosed
	}
	if c, ok := d.byID[id]; ok {
		return c, nil
	}
	c := &container{
		d: d, i: d.i, id: id, name: containerName(d.name, id),
		dir:   attempt(d.i.path("attempts", d.name, string(id))),
		group: d.i.group(d.name, string(id)),
	}
	d.byID[id] = c
	return c, nil
}

// forget drops the handle of a container that was removed. Its life is locked.
func (d *Driver) forget(c *container) {
	c.dropped = true
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byID[c.id] == c {
		delete(d.byID, c.id)
	}
}

// List implements executor.Driver. The engine's own list looks into every container, under its
// lock: it hangs over one of them. So each of our attempts is asked for, which needs no lock.
func (d *Driver) List(ctx context.Context) ([]executor.Container, error) {
	entries, err := os.ReadDir(d.i.path("attempts", d.name))
	if err != nil {
		return nil, fmt.Errorf("listing attempts: %w", err)
	}
	var list []executor.Container
	for _, e := range entries {
		id := executor.AttemptID(e.Name())
		if strings.HasPrefix(e.Name(), ".") || id.Validate() != nil {
			continue
		}
		c, err := d.adopt(ctx, id)
		if err != nil {
			return nil, err
		}
		if c != nil {
			list = append(list, c)
		}
	}
	return list, nil
}

// adopt returns the container of an attempt's directory, or clears away what is only half there.
func (d *Driver) adopt(ctx context.Context, id executor.AttemptID) (*container, error) {
	c, err := d.handle(id)
	if err != nil {
		return nil, err
	}
	there, err := c.exists(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	if !c.life.TryLock() {
		if _, known := c.recorded(); known && there {
			return c, nil
		}
		return nil, nil // being made or removed at this moment
	}
	defer c.life.Unlock()
	if c.dropped {
		return nil, nil
	}
	known, err := c.load()
	if err != nil {
		return nil, err
	}
	if known && !there { // it may have been made while we asked
		if there, err = c.exists(ctx); err != nil {
			return nil, fmt.Errorf("listing containers: %w", err)
		}
	}
	if known && there {
		return c, nil
	}
	if err := c.clear(ctx); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("clearing half-made %s: %w", id, err)
	}
	return nil, nil
}
