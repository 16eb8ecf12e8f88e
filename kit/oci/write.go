package oci

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/united-containers/ucn/kit/cid"
)

const (
	layoutMode = 0o644
	copyBuffer = 128 << 10
)

// Source gives the bytes of blobs, verified or not: WriteLayout verifies them.
type Source interface {
	// Open starts reading the blob c. The caller closes it.
	Open(ctx context.Context, c cid.CID) (io.ReadCloser, error)
}

var _ Source = (*Image)(nil)

// WriteLayout streams the image to w as an OCI archive that podman load and docker load take. Each
// blob is verified as it passes; one that does not match, is too long or too short ends the stream
// with cid.ReasonMismatch before the archive is complete, so a loader must fail too. The same image
// and name give the same bytes. name becomes the image's reference; "" leaves it without one.
func WriteLayout(ctx context.Context, w io.Writer, image cid.CID, name string, src Source) error {
	m, raw, err := ReadManifest(ctx, image, src)
	if err != nil {
		return err
	}
	out := layoutWriter{ctx: ctx, w: tar.NewWriter(w), src: src}
	if err := out.head(image, int64(len(raw)), name); err != nil {
		return fmt.Errorf("write image layout: %w", err)
	}
	if err := out.file(pathOf(image), raw); err != nil {
		return fmt.Errorf("write image layout: %w", err)
	}
	for _, part := range m.Parts() {
		if err := out.blob(part); err != nil {
			return fmt.Errorf("write %s into image layout: %w", part.CID.Digest(), err)
		}
	}
	if err := out.w.Close(); err != nil {
		return fmt.Errorf("write image layout: %w", err)
	}
	return nil
}

// ReadManifest reads and verifies the manifest of an image, and returns its bytes with it.
func ReadManifest(ctx context.Context, image cid.CID, src Source) (_ Manifest, raw []byte,
	err error,
) {
	if image.Kind() != cid.OCIBlob {
		return Manifest{}, nil, NotImage("%s names a %s", image, image.Kind())
	}
	r, err := src.Open(ctx, image)
	if err != nil {
		return Manifest{}, nil, fmt.Errorf("open manifest %s: %w", image, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	raw, err = io.ReadAll(io.LimitReader(cid.NewReader(r, image, -1), MaxManifest+1))
	if err != nil {
		return Manifest{}, nil, fmt.Errorf("read manifest %s: %w", image, err)
	}
	m, err := ParseManifest(image, raw)
	return m, raw, err
}

// ReadPlatform reads the config of an image, verified, and returns the platform that it names.
func ReadPlatform(ctx context.Context, image cid.CID, src Source) (_ Platform, err error) {
	m, _, err := ReadManifest(ctx, image, src)
	if err != nil {
		return Platform{}, err
	}
	if m.Config.Size > MaxManifest {
		return Platform{}, NotImage("its config has %d bytes", m.Config.Size)
	}
	r, err := src.Open(ctx, m.Config.CID)
	if err != nil {
		return Platform{}, fmt.Errorf("open config %s: %w", m.Config.CID, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	raw, err := io.ReadAll(cid.NewReader(r, m.Config.CID, m.Config.Size))
	if err != nil {
		return Platform{}, fmt.Errorf("read config %s: %w", m.Config.CID, err)
	}
	config, err := ReadConfig(raw)
	return config.Platform, err
}

type layoutWriter struct {
	ctx context.Context
	w   *tar.Writer
	src Source
}

func (o layoutWriter) head(image cid.CID, size int64, name string) error {
	layout, err := json.Marshal(v1.ImageLayout{Version: v1.ImageLayoutVersion})
	if err != nil {
		return err
	}
	d := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Size: size,
		Digest: digest.Digest(image.Digest())}
	if name != "" {
		d.Annotations = map[string]string{v1.AnnotationRefName: name, containerdName: name}
	}
	index, err := json.Marshal(v1.Index{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{d}})
	if err != nil {
		return err
	}
	return errors.Join(o.file(layoutFile, layout), o.file(indexFile, index), o.dir("blobs/"),
		o.dir(blobPath))
}

func (o layoutWriter) dir(name string) error {
	return o.w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755})
}

func (o layoutWriter) header(name string, size int64) error {
	return o.w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size,
		Mode: layoutMode})
}

func (o layoutWriter) file(name string, data []byte) error {
	if err := o.header(name, int64(len(data))); err != nil {
		return err
	}
	_, err := o.w.Write(data)
	return err
}

func (o layoutWriter) blob(part Part) (err error) {
	r, err := o.src.Open(o.ctx, part.CID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := o.header(pathOf(part.CID), part.Size); err != nil {
		return err
	}
	return copyHeld(o.w, stopping{o.ctx, cid.NewReader(r, part.CID, part.Size)})
}

// copyHeld copies r to w one buffer late: the last bytes of a blob that turns out wrong are never
// written, so that its entry stays visibly short even for readers that need no trailer.
func copyHeld(w io.Writer, r io.Reader) error {
	held, next := make([]byte, 0, copyBuffer), make([]byte, copyBuffer)
	for {
		n, err := r.Read(next)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n > 0 || err != nil {
			if _, failed := w.Write(held); failed != nil {
				return failed
			}
			held, next = next[:n], held[:copyBuffer]
		}
		if err != nil {
			_, failed := w.Write(held)
			return failed
		}
	}
}
