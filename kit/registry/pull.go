package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/oci"
)

const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"
)

func manifestTypes() []string {
	return []string{v1.MediaTypeImageIndex, v1.MediaTypeImageManifest, dockerIndex, dockerManifest}
}

func digestOf(raw []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(raw)) }

// WriteLayout streams the image that reference and digest name, for platform, as the tar of the
// blobs of an OCI layout: index if there is one, manifest, config, then the layers. An image for
// another platform is refused before a layer is read. Faults as of Resolve.
func (c *Client) WriteLayout(ctx context.Context, w io.Writer, image Image, with ...Credential,
) error {
	ctx, cancel := context.WithTimeout(ctx, pullWait)
	defer cancel()
	repo, err := pinned(image.Reference, image.Digest)
	if err != nil {
		return err
	}
	s, err := c.session(ctx, repo, with)
	if err != nil {
		return err
	}
	p := &pull{session: s, out: tar.NewWriter(w)}
	if err := p.image(ctx, image); err != nil {
		return err
	}
	if err := p.out.Close(); err != nil {
		return fmt.Errorf("end the layout: %w", err)
	}
	return nil
}

// Image is what WriteLayout reads.
type Image struct {
	Reference string
	Digest    string // of the manifest or index
	Platform  string // "linux/amd64"
}

// pull is one image on its way.
type pull struct {
	*session
	out *tar.Writer
}

func (p *pull) image(ctx context.Context, image Image) error {
	raw, err := p.manifest(ctx, image.Digest)
	if err != nil {
		return err
	}
	digest, chosen, err := p.choose(ctx, image.Digest, raw, image.Platform)
	if err != nil {
		return err
	}
	m, err := p.parts(chosen.manifest)
	if err != nil {
		return err
	}
	if digest != image.Digest {
		if err := p.document(image.Digest, raw); err != nil {
			return err
		}
	}
	if err := p.document(digest, chosen.manifest); err != nil {
		return err
	}
	if err := p.document(m.Config.Digest, chosen.config); err != nil {
		return err
	}
	return p.layers(ctx, m.Layers)
}

// layers streams each layer once, however often the manifest names it.
func (p *pull) layers(ctx context.Context, layers []oci.Descriptor) error {
	here := make(map[string]bool, len(layers))
	for _, layer := range layers {
		if here[layer.Digest] {
			continue
		}
		if err := p.layer(ctx, layer); err != nil {
			return err
		}
		here[layer.Digest] = true
	}
	return nil
}

// parts reads a manifest and checks its bounds.
func (p *pull) parts(raw []byte) (oci.Document, error) {
	m, err := oci.ReadDocument(raw)
	if err != nil {
		return m, err
	}
	if len(m.Layers) > MaxLayers {
		return m, refuse(ReasonTooLarge, "the image has %d layers, at most %d", len(m.Layers), MaxLayers)
	}
	left := p.o.MaxPacked
	for _, layer := range m.Layers {
		if _, err := cid.ParseDigest(layer.Digest); err != nil {
			return m, oci.NotImage("a layer's digest is no sha256")
		}
		if !layerType(layer.MediaType) {
			return m, oci.NotImage("layer of media type %.80q", layer.MediaType)
		}
		if layer.Size < 0 || layer.Size > left {
			return m, refuse(ReasonTooLarge, "the image has more than %d bytes", p.o.MaxPacked)
		}
		left -= layer.Size
	}
	return m, nil
}

func (p *pull) document(digest string, raw []byte) error {
	if err := p.header(digest, int64(len(raw))); err != nil {
		return err
	}
	if _, err := p.out.Write(raw); err != nil {
		return fmt.Errorf("write to the layout: %w", err)
	}
	return nil
}

func (p *pull) header(digest string, size int64) error {
	name := "blobs/sha256/" + strings.TrimPrefix(digest, "sha256:")
	if err := p.out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size}); err != nil {
		return fmt.Errorf("write to the layout: %w", err)
	}
	return nil
}

// layer streams one layer.
func (p *pull) layer(ctx context.Context, d oci.Descriptor) error {
	c, err := cid.ParseDigest(d.Digest)
	if err != nil {
		return err
	}
	if err := p.header(d.Digest, d.Size); err != nil {
		return err
	}
	body := &blob{ctx: ctx, session: p.session, digest: d.Digest, size: d.Size}
	defer body.close()
	_, err = io.Copy(p.out, cid.NewReader(body, c, d.Size))
	if errors.Is(err, cid.ReasonMismatch) {
		return refuse(ReasonMismatch, "layer %s is not what its digest and size say", d.Digest)
	}
	return err
}

func layerType(mediaType string) bool {
	switch mediaType {
	case v1.MediaTypeImageLayer, v1.MediaTypeImageLayerGzip, v1.MediaTypeImageLayerZstd,
		dockerLayer, dockerLayer + ".gzip", dockerLayer + ".zstd":
		return true
	}
	return false
}

// platforms lists what a manifest or index has images for; nil when that is not known of each
// image.
func (s *session) platforms(ctx context.Context, raw []byte) (list []string, err error) {
	m, err := oci.ReadDocument(raw)
	if err != nil {
		return nil, err
	}
	if len(m.Manifests) == 0 {
		if m.Config.Digest == "" {
			return nil, oci.NotImage("it has no config")
		}
		raw, err := s.config(ctx, m.Config)
		if err != nil {
			return nil, err
		}
		is, err := oci.ReadConfig(raw)
		if name := is.Platform.String(); err == nil && name != "" {
			list = []string{name}
		}
		return list, err
	}
	for _, d := range m.Manifests {
		if !isImage(d) {
			continue
		}
		if d.Platform == nil {
			return nil, nil
		}
		if name := d.Platform.String(); name != "" && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list, nil
}

func isImage(d oci.Descriptor) bool {
	return d.MediaType == v1.MediaTypeImageManifest || d.MediaType == dockerManifest
}

// documents are the manifest and the config of one image.
type documents struct{ manifest, config []byte }

// choose finds the image for platform: in an index the one it names, else the image itself when its
// config says so.
func (s *session) choose(ctx context.Context, digest string, raw []byte, platform string,
) (string, documents, error) {
	m, err := oci.ReadDocument(raw)
	if err != nil {
		return "", documents{}, err
	}
	if len(m.Manifests) > 0 {
		found := find(m.Manifests, platform)
		if found == "" {
			return "", documents{}, wrongPlatform(platform)
		}
		if _, err := cid.ParseDigest(found); err != nil {
			return "", documents{}, oci.NotImage("a digest in the index is no sha256")
		}
		inner, err := s.manifest(ctx, found)
		if err != nil {
			return "", documents{}, err
		}
		if m, err = oci.ReadDocument(inner); err != nil {
			return "", documents{}, err
		}
		digest, raw = found, inner
	}
	if m.Config.Digest == "" {
		return "", documents{}, oci.NotImage("it has no config")
	}
	config, err := s.config(ctx, m.Config)
	if err != nil {
		return "", documents{}, err
	}
	is, err := oci.ReadConfig(config)
	if err != nil {
		return "", documents{}, err
	}
	if !fits(&is.Platform, platform) {
		return "", documents{}, wrongPlatform(platform)
	}
	return digest, documents{raw, config}, nil
}

func wrongPlatform(platform string) error {
	return refuse(oci.ReasonPlatform, "the reference has no image for %.60s", platform)
}

func find(list []oci.Descriptor, platform string) string {
	for _, d := range list {
		if isImage(d) && d.Platform != nil && fits(d.Platform, platform) {
			return d.Digest
		}
	}
	return ""
}

// fits tells whether an image for p runs on platform. A variant counts where both name one.
func fits(p *oci.Platform, platform string) bool {
	want := strings.Split(platform, "/")
	if len(want) < 2 || p.OS != want[0] || p.Architecture != want[1] {
		return false
	}
	return len(want) < 3 || p.Variant == "" || p.Variant == want[2]
}

func (s *session) config(ctx context.Context, d oci.Descriptor) ([]byte, error) {
	c, err := cid.ParseDigest(d.Digest)
	if err != nil {
		return nil, oci.NotImage("its config's digest is no sha256")
	}
	if d.Size < 0 || d.Size > MaxManifest {
		return nil, refuse(ReasonTooLarge, "the config has %d bytes, at most %d", d.Size, MaxManifest)
	}
	short, cancel := context.WithTimeout(ctx, documentWait) // tries included: it is small
	defer cancel()
	body := &blob{ctx: short, session: s, digest: d.Digest, size: d.Size}
	defer body.close()
	var out bytes.Buffer
	if _, err := io.Copy(&out, cid.NewReader(body, c, d.Size)); err != nil {
		if errors.Is(err, cid.ReasonMismatch) {
			return nil, refuse(ReasonMismatch, "the config is not what its digest and size say")
		}
		if short.Err() != nil && ctx.Err() == nil {
			return nil, unavailable(s.repo.RegistryStr(), err)
		}
		return nil, err
	}
	return out.Bytes(), nil
}
