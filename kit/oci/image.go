package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
)

const (
	// MaxImage is the default bound on all bytes of an image.
	MaxImage = 16 << 30

	platformOS = "linux"
)

// Options says what to look for. The zero value is this machine's architecture and the defaults.
type Options struct {
	// Arch is the wanted architecture in Go's spelling ("amd64", "arm64"); "" is this machine's.
	// The operating system is always linux.
	Arch string
	// Name picks one image of an archive that holds several.
	Name string
	// MaxSize bounds the bytes of the image, and of the archive it comes from. 0 is MaxImage.
	MaxSize int64
	// TempDir is where an image of podman or docker is saved meanwhile; "" is the system's.
	TempDir string
	// Podman and Docker are the programs asked for local images; "" is their usual names.
	Podman, Docker string
}

func (o Options) withDefaults() Options {
	set := func(s *string, to string) {
		if *s == "" {
			*s = to
		}
	}
	set(&o.Arch, runtime.GOARCH)
	set(&o.Podman, "podman")
	set(&o.Docker, "docker")
	if o.MaxSize == 0 {
		o.MaxSize = MaxImage
	}
	return o
}

// Image is one image for one platform, ready to push. Close it.
type Image struct {
	// Manifest is the parsed manifest; its CID names the image.
	Manifest Manifest
	// Arch is the architecture the image's config states.
	Arch string

	raw    []byte
	layers map[cid.CID]file
	config []byte
	files  files
}

// Blobs lists everything to push in an order in which nothing refers to what is not there yet:
// layers and config each once, the manifest last.
func (i *Image) Blobs() []Part {
	return append(i.Manifest.Parts(), Part{CID: i.Manifest.CID,
		MediaType: v1.MediaTypeImageManifest, Size: int64(len(i.raw))})
}

// Open returns the bytes of one of Blobs. They were verified when the image was opened; a file
// that changed since is ReasonMismatch at its end.
func (i *Image) Open(_ context.Context, c cid.CID) (io.ReadCloser, error) {
	switch c {
	case i.Manifest.CID:
		return io.NopCloser(bytes.NewReader(i.raw)), nil
	case i.Manifest.Config.CID:
		return io.NopCloser(bytes.NewReader(i.config)), nil
	}
	layer, ok := i.layers[c]
	if !ok {
		return nil, fmt.Errorf("%s is no blob of image %s", c, i.Manifest.CID)
	}
	r, err := i.files.open(layer)
	if err != nil {
		return nil, fmt.Errorf("open layer %s: %w", c, err)
	}
	return verified{cid.NewReader(r, c, layer.size), r}, nil
}

// Close releases the archive, and removes it when it was a temporary one.
func (i *Image) Close() error { return i.files.close() }

type verified struct {
	io.Reader
	io.Closer
}

// check verifies every blob, and that the config belongs to the layers and the platform.
func (i *Image) check(ctx context.Context, o Options) error {
	if i.Manifest.Size > o.MaxSize {
		return badArchive("the image has %d bytes, at most %d", i.Manifest.Size, o.MaxSize)
	}
	var config v1.Image
	if err := decodeOne(i.config, &config); err != nil {
		return NotImage("config: %v", err)
	}
	if config.OS != platformOS || config.Architecture != o.Arch {
		return fault.New(fault.FailedPrecondition, ReasonPlatform,
			"the image is for %.40s/%.40s, wanted is %s/%s", config.OS, config.Architecture,
			platformOS, o.Arch)
	}
	i.Arch = config.Architecture
	if len(config.RootFS.DiffIDs) != len(i.Manifest.Layers) {
		return NotImage("its config lists %d layers, the manifest %d",
			len(config.RootFS.DiffIDs), len(i.Manifest.Layers))
	}
	for n, layer := range i.Manifest.Layers {
		diff := string(config.RootFS.DiffIDs[n])
		if layer.MediaType == v1.MediaTypeImageLayer && layer.CID.Digest() != diff {
			return NotImage("layer %d is %s, its config says %.80s", n, layer.CID.Digest(), diff)
		}
	}
	for _, part := range i.Manifest.Parts() {
		if err := i.verify(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

func (i *Image) verify(ctx context.Context, part Part) (err error) {
	if held, ok := i.layers[part.CID]; ok && held.size != part.Size {
		return badArchive("%s has %d bytes, the manifest says %d", part.CID.Digest(), held.size,
			part.Size)
	}
	r, err := i.Open(ctx, part.CID)
	if err != nil {
		return badArchive("%v", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if _, err := io.Copy(io.Discard, stopping{ctx, r}); err != nil {
		return fmt.Errorf("verify %s: %w", part.CID.Digest(), err)
	}
	return nil
}

// stopping ends a long read with its context.
type stopping struct {
	ctx context.Context
	r   io.Reader
}

func (s stopping) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}
