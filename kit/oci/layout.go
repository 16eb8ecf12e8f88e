package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
)

const (
	layoutFile = "oci-layout"
	indexFile  = "index.json"
	blobPath   = "blobs/sha256/"

	maxIndexDepth = 4    // index of indexes of ...
	maxCandidates = 1000 // manifests of one archive
	maxIndexes    = 64   // indexes of one archive, each read as often as it is named

	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig       = "application/vnd.docker.container.image.v1+json"
	dockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerGzip    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerLayerZstd    = "application/vnd.docker.image.rootfs.diff.tar.zstd"

	containerdName = "io.containerd.image.name"
)

// candidate is one manifest an archive offers.
type candidate struct {
	v1.Descriptor
	name string // of the entry in index.json that led here
}

func (c candidate) String() string {
	where := "unknown platform"
	if c.Platform != nil {
		where = c.Platform.OS + "/" + c.Platform.Architecture
	}
	return strings.TrimSpace(c.name + " " + where)
}

// openLayout reads the image that o picks out of an OCI layout.
func openLayout(ctx context.Context, from files, o Options) (*Image, error) {
	var index v1.Index
	data, err := load(from, indexFile, MaxManifest)
	if err != nil {
		return nil, missingFile(indexFile, err)
	}
	if err := decodeOne(data, &index); err != nil {
		return nil, badArchive("%s: %v", indexFile, err)
	}
	offered, err := candidates(from, index, "", 0, new(int))
	if err != nil {
		return nil, err
	}
	chosen, err := pick(from, offered, o)
	if err != nil {
		return nil, err
	}
	raw, err := loadBlob(from, chosen.Descriptor, MaxManifest)
	if err != nil {
		return nil, err
	}
	if chosen.MediaType == dockerManifest {
		if raw, err = toOCI(raw); err != nil {
			return nil, err
		}
	}
	return imageOf(ctx, from, raw, o)
}

// imageOf checks the image whose manifest is raw, with config and layers in from.
func imageOf(ctx context.Context, from files, raw []byte, o Options) (*Image, error) {
	m, err := ParseManifest(sumOf(raw), raw)
	if err != nil {
		return nil, err
	}
	i := &Image{Manifest: m, raw: raw, files: from, layers: map[cid.CID]file{}}
	if i.config, err = load(from, pathOf(m.Config.CID), MaxConfig); err != nil {
		return nil, missingFile(m.Config.CID.Digest(), err)
	}
	if int64(len(i.config)) != m.Config.Size {
		return nil, badArchive("config has %d bytes, the manifest says %d", len(i.config),
			m.Config.Size)
	}
	if got := sumOf(i.config); got != m.Config.CID {
		return nil, fmt.Errorf("config: %w", cid.Mismatch(m.Config.CID, got))
	}
	for _, layer := range m.Layers {
		if i.layers[layer.CID], err = from.find(pathOf(layer.CID)); err != nil {
			return nil, missingFile(layer.CID.Digest(), err)
		}
	}
	return i, i.check(ctx, o)
}

// candidates walks an index of indexes down to manifests.
func candidates(from files, index v1.Index, name string, depth int, indexes *int,
) ([]candidate, error) {
	if depth >= maxIndexDepth {
		return nil, badArchive("indexes nested more than %d deep", maxIndexDepth)
	}
	var found []candidate
	for _, d := range index.Manifests {
		called := name
		if depth == 0 {
			called = nameOf(d)
		}
		switch d.MediaType {
		case v1.MediaTypeImageManifest, dockerManifest:
			found = append(found, candidate{d, called})
		case v1.MediaTypeImageIndex, dockerManifestList:
			if *indexes++; *indexes > maxIndexes {
				return nil, badArchive("more than %d indexes", maxIndexes)
			}
			var inner v1.Index
			raw, err := loadBlob(from, d, MaxManifest)
			if err != nil {
				return nil, err
			}
			if err := decodeOne(raw, &inner); err != nil {
				return nil, badArchive("index %s: %v", d.Digest, err)
			}
			below, err := candidates(from, inner, called, depth+1, indexes)
			if err != nil {
				return nil, err
			}
			found = append(found, below...)
		}
		if len(found) > maxCandidates {
			return nil, badArchive("more than %d images", maxCandidates)
		}
	}
	return found, nil
}

func nameOf(d v1.Descriptor) string {
	if full := d.Annotations[containerdName]; full != "" {
		return full
	}
	return d.Annotations[v1.AnnotationRefName]
}

// pick chooses the one candidate for the platform and, if there are several, the name.
func pick(from files, offered []candidate, o Options) (candidate, error) {
	var fit []candidate
	for _, c := range offered {
		if c.Platform == nil {
			c.Platform = platformOf(from, c)
		}
		p := c.Platform
		unfit := p != nil && (p.OS != platformOS || p.Architecture != o.Arch)
		same := func(f candidate) bool { return f.Digest == c.Digest }
		if !unfit && !slices.ContainsFunc(fit, same) {
			fit = append(fit, c)
		}
	}
	if named := slices.DeleteFunc(slices.Clone(fit), func(c candidate) bool {
		return !matches(c.name, o.Name)
	}); len(fit) > 1 && len(named) > 0 {
		fit = named
	}
	switch len(fit) {
	case 1:
		return fit[0], nil
	case 0:
		return candidate{}, fault.New(fault.FailedPrecondition, ReasonPlatform,
			"no image for %s/%s; there is %s", platformOS, o.Arch, listed(offered))
	default:
		return candidate{}, ambiguous(listed(fit))
	}
}

func ambiguous(offered string) error {
	return fault.New(fault.FailedPrecondition, ReasonAmbiguous,
		"the archive holds several images, say which by name: %s", offered)
}

// matches reports whether an image called name is the one wanted: the same, or the same but for
// the registry or the tag "latest".
func matches(name, wanted string) bool {
	return wanted != "" && (name == wanted || name == wanted+":latest" ||
		strings.HasSuffix(name, "/"+wanted) || strings.HasSuffix(name, "/"+wanted+":latest"))
}

func listed(all []candidate) string {
	const most = 10
	names := make([]string, 0, most)
	for _, c := range all[:min(most, len(all))] {
		names = append(names, c.String())
	}
	if len(all) > most {
		names = append(names, fmt.Sprintf("and %d more", len(all)-most))
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// platformOf reads the platform out of the image's config; nil when it cannot be told here. What is
// wrong with such an image is said when it is opened.
func platformOf(from files, c candidate) *v1.Platform {
	var m v1.Manifest
	raw, err := loadBlob(from, c.Descriptor, MaxManifest)
	if err != nil || decodeOne(raw, &m) != nil {
		return nil
	}
	var config v1.Image
	raw, err = loadBlob(from, m.Config, MaxConfig)
	if err != nil || decodeOne(raw, &config) != nil {
		return nil
	}
	return &config.Platform
}

// loadBlob reads a blob that d describes and verifies it.
func loadBlob(from files, d v1.Descriptor, limit int64) ([]byte, error) {
	c, err := cid.ParseDigest(string(d.Digest))
	if err != nil {
		return nil, err
	}
	data, err := load(from, pathOf(c), limit)
	if err != nil {
		return nil, missingFile(c.Digest(), err)
	}
	if got := sumOf(data); got != c {
		return nil, cid.Mismatch(c, got)
	}
	if int64(len(data)) != d.Size {
		return nil, badArchive("%s has %d bytes, its descriptor says %d", c.Digest(), len(data),
			d.Size)
	}
	return data, nil
}

// toOCI rewrites a docker schema 2 manifest as an OCI one: only media types change.
func toOCI(raw []byte) ([]byte, error) {
	var m v1.Manifest
	if err := decodeOne(raw, &m); err != nil {
		return nil, NotImage("%v", err)
	}
	if m.Config.MediaType != dockerConfig {
		return nil, NotImage("config of media type %.80q", m.Config.MediaType)
	}
	if len(m.Layers) > MaxLayers {
		return nil, NotImage("%d layers, at most %d", len(m.Layers), MaxLayers)
	}
	layers := make([]v1.Descriptor, len(m.Layers))
	for i, d := range m.Layers {
		kind, ok := ociLayer(d.MediaType)
		if !ok {
			return nil, NotImage("layer %d has media type %.80q, which has no bytes to run", i,
				d.MediaType)
		}
		layers[i] = v1.Descriptor{MediaType: kind, Digest: d.Digest, Size: d.Size}
	}
	return encodeManifest(m.Config, layers)
}

func ociLayer(docker string) (string, bool) {
	switch docker {
	case dockerLayer, v1.MediaTypeImageLayer:
		return v1.MediaTypeImageLayer, true
	case dockerLayerGzip, v1.MediaTypeImageLayerGzip:
		return v1.MediaTypeImageLayerGzip, true
	case dockerLayerZstd, v1.MediaTypeImageLayerZstd:
		return v1.MediaTypeImageLayerZstd, true
	}
	return "", false
}

// encodeManifest writes the one manifest for these parts: fixed fields in a fixed order.
func encodeManifest(config v1.Descriptor, layers []v1.Descriptor) ([]byte, error) {
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Layers: layers,
		Config: v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: config.Digest,
			Size: config.Size}}
	m.SchemaVersion = 2
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return raw, nil
}

func missingFile(what string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return badArchive("it lacks %s", what)
	}
	return err
}

func pathOf(c cid.CID) string { return blobPath + strings.TrimPrefix(c.Digest(), "sha256:") }
