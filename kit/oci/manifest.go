package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/united-containers/ucn/kit/cid"
)

const (
	// MaxManifest and MaxConfig bound an image's manifest and config, in bytes.
	MaxManifest = 4 << 20
	MaxConfig   = 4 << 20
	// MaxLayers bounds the layers of an image.
	MaxLayers = 128
)

// Manifest is an OCI image manifest whose every field was checked.
type Manifest struct {
	// CID names the manifest's bytes, and so the image.
	CID cid.CID
	// Config and Layers are the blobs it names, layers lowest first; a layer may appear twice.
	Config Part
	Layers []Part
	// Size is the bytes of manifest, config and every distinct layer together.
	Size int64
}

// Part is one blob an image is made of.
type Part struct {
	CID cid.CID
	// MediaType is one of the OCI image media types.
	MediaType string
	// Size is the length the manifest claims, in bytes.
	Size int64
}

// Parts returns config and layers, each once, in the order of the manifest.
func (m Manifest) Parts() []Part {
	parts := make([]Part, 0, 1+len(m.Layers))
	seen := make(map[cid.CID]bool, 1+len(m.Layers))
	for _, p := range append([]Part{m.Config}, m.Layers...) {
		if !seen[p.CID] {
			seen[p.CID] = true
			parts = append(parts, p)
		}
	}
	return parts
}

// wireManifest is what is read of a manifest: see Document.
type wireManifest struct {
	SchemaVersion int         `json:"schemaVersion"`
	ArtifactType  string      `json:"artifactType"`
	MediaType     string      `json:"mediaType"`
	Config        Descriptor  `json:"config"`
	Layers        Descriptors `json:"layers"`
}

// ParseManifest reads an OCI image manifest. What is no such manifest, names another hash than
// sha256, or exceeds MaxManifest, MaxConfig or MaxLayers is ReasonNotImage with the cause.
func ParseManifest(c cid.CID, b []byte) (Manifest, error) {
	if len(b) > MaxManifest {
		return Manifest{}, NotImage("%d bytes, at most %d", len(b), MaxManifest)
	}
	var raw wireManifest
	if err := json.Unmarshal(b, &raw); err != nil {
		return Manifest{}, NotImage("decode JSON: %v", err)
	}
	if len(raw.Layers) > MaxLayers {
		return Manifest{}, NotImage("more than %d layers", MaxLayers)
	}
	if raw.SchemaVersion != 2 || raw.MediaType != "" && raw.MediaType != v1.MediaTypeImageManifest {
		return Manifest{}, NotImage("schema version %d, media type %.80q, not 2 and %q",
			raw.SchemaVersion, raw.MediaType, v1.MediaTypeImageManifest)
	}
	if raw.ArtifactType != "" || raw.Config.MediaType != v1.MediaTypeImageConfig {
		return Manifest{}, NotImage("artifact type %.80q with config %.80q, not an image",
			raw.ArtifactType, raw.Config.MediaType)
	}
	return checkManifest(c, int64(len(b)), raw)
}

func checkManifest(c cid.CID, size int64, raw wireManifest) (Manifest, error) {
	m := Manifest{CID: c, Size: size, Layers: make([]Part, 0, len(raw.Layers))}
	var err error
	if m.Config, err = partOf(raw.Config, MaxConfig); err != nil {
		return Manifest{}, NotImage("config: %v", err)
	}
	for i, layer := range raw.Layers {
		if !layerType(layer.MediaType) {
			return Manifest{}, NotImage("layer %d has media type %.80q; tar, tar+gzip and tar+zstd "+
				"are taken", i, layer.MediaType)
		}
		part, err := partOf(layer, math.MaxInt64/(2*MaxLayers))
		if err != nil {
			return Manifest{}, NotImage("layer %d: %v", i, err)
		}
		m.Layers = append(m.Layers, part)
	}
	for _, part := range m.Parts() {
		m.Size += part.Size
	}
	return m, nil
}

func partOf(d Descriptor, limit int64) (Part, error) {
	c, err := cid.ParseDigest(d.Digest)
	if err != nil {
		return Part{}, err
	}
	if d.Size < 0 || d.Size > limit {
		return Part{}, fmt.Errorf("size %d is not in 0..%d", d.Size, limit)
	}
	return Part{CID: c, MediaType: d.MediaType, Size: d.Size}, nil
}

func layerType(mediaType string) bool {
	switch mediaType {
	case v1.MediaTypeImageLayer, v1.MediaTypeImageLayerGzip, v1.MediaTypeImageLayerZstd:
		return true
	}
	return false
}

// decodeOne reads exactly one JSON value.
func decodeOne(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("decode JSON: %w", err)
	}
	if d.More() {
		return errors.New("decode JSON: bytes after the value")
	}
	return nil
}
