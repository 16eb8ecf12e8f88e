package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/united-containers/ucn/kit/fault"
)

const (
	maxImageName = 512     // bytes of the name of a local image
	maxComplaint = 4 << 10 // bytes kept of what podman or docker says when it fails
)

// Open opens the image that ref means: an OCI layout directory, an OCI or docker archive, or, when
// no such file is there, an image of the local podman or docker. Every blob is verified before it
// returns. Faults: ReasonBadArchive, ReasonNotImage, ReasonPlatform, ReasonAmbiguous,
// ReasonNoImage, and cid.ReasonMismatch for bytes that are not what their digest says.
func Open(ctx context.Context, ref string, o Options) (*Image, error) {
	info, err := os.Stat(ref)
	switch {
	case err == nil && info.IsDir():
		return OpenLayout(ctx, ref, o)
	case err == nil:
		return OpenArchive(ctx, ref, o)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("look at %s: %w", ref, err)
	case strings.HasPrefix(ref, "/") || strings.HasPrefix(ref, ".") || strings.HasSuffix(ref, ".tar"):
		return nil, noImage("there is no file %s", ref)
	}
	return OpenLocal(ctx, ref, o)
}

func noImage(format string, args ...any) error {
	return fault.New(fault.NotFound, ReasonNoImage, format, args...)
}

// OpenLayout opens an OCI layout directory.
func OpenLayout(ctx context.Context, dir string, o Options) (*Image, error) {
	from, err := openDirectory(dir)
	if err != nil {
		return nil, fmt.Errorf("open image layout: %w", err)
	}
	if !has(from, indexFile) {
		return nil, errors.Join(badArchive("%s has no %s, so it is no OCI layout", dir, indexFile),
			from.close())
	}
	return finish(openLayout(ctx, from, o.withDefaults()))(from)
}

// OpenArchive opens an OCI archive or a docker archive, told apart by what is in it.
func OpenArchive(ctx context.Context, name string, o Options) (*Image, error) {
	o = o.withDefaults()
	from, err := openArchive(name, o.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("open image archive: %w", err)
	}
	return openEither(ctx, from, o)
}

func openEither(ctx context.Context, from *archive, o Options) (*Image, error) {
	switch {
	case has(from, layoutFile) && has(from, indexFile):
		return finish(openLayout(ctx, from, o))(from)
	case has(from, dockerFile):
		return finish(openDocker(ctx, from, o))(from)
	}
	return nil, errors.Join(badArchive("it holds neither %s (OCI) nor %s (docker save)", indexFile,
		dockerFile), from.close())
}

// finish closes the files of an image that could not be opened.
func finish(i *Image, err error) func(files) (*Image, error) {
	return func(from files) (*Image, error) {
		if err != nil {
			return nil, errors.Join(err, from.close())
		}
		return i, nil
	}
}

// OpenLocal saves an image of the local podman, or else docker, to a temporary archive and opens
// that. Neither having it is ReasonNoImage with what each said.
func OpenLocal(ctx context.Context, name string, o Options) (*Image, error) {
	o = o.withDefaults()
	if name == "" || len(name) > maxImageName || strings.HasPrefix(name, "-") {
		return nil, noImage("%.80q is no name of an image", name)
	}
	dir, err := os.MkdirTemp(o.TempDir, "ucn-image-*")
	if err != nil {
		return nil, fmt.Errorf("make room for image %s: %w", name, err)
	}
	saved := filepath.Join(dir, "image.tar")
	if err := save(ctx, name, saved, o); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	from, err := openArchive(saved, o.MaxSize)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open saved image: %w", err), os.RemoveAll(dir))
	}
	from.temporary = dir
	o.Name = "" // it was picked already
	return openEither(ctx, from, o)
}

func save(ctx context.Context, name, to string, o Options) error {
	engines := []struct {
		program   string
		has, save []string
	}{
		{o.Podman, []string{"image", "exists", name},
			[]string{"save", "--quiet", "--format", "oci-archive", "--output", to, name}},
		{o.Docker, []string{"image", "inspect", "--format", "found", name},
			[]string{"save", "--output", to, name}},
	}
	var tried []string
	for _, e := range engines {
		if _, err := exec.LookPath(e.program); err != nil {
			tried = append(tried, e.program+" is not installed")
			continue
		}
		if err := run(ctx, e.program, e.has); err != nil {
			tried = append(tried, e.program+" has no such image")
			continue
		}
		if err := run(ctx, e.program, e.save); err != nil {
			return fmt.Errorf("save image %s: %w", name, err)
		}
		return nil
	}
	return noImage("there is no file and no local image %s: %s", name, strings.Join(tried, ", "))
}

func run(ctx context.Context, program string, args []string) error {
	var complaint tail
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stderr = &complaint
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s %s: %w: %s", program, args[0], err, bytes.TrimSpace(complaint.kept))
	}
	return nil
}

// tail keeps the last maxComplaint bytes written.
type tail struct{ kept []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p[max(0, len(p)-maxComplaint):]...)
	t.kept = t.kept[max(0, len(t.kept)-maxComplaint):]
	return len(p), nil
}
