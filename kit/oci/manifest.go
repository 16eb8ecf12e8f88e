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

// wireManifest is what is read of a manifest: strangers write them, and a few bytes of JSON can
// stand for many of memory. Members that nobody here needs are passed over.
type wireManifest struct {
	SchemaVersion int            `json:"schemaVersion"`
	MediaType     string         `json:"mediaType"`
	ArtifactType  string         `json:"artifactType"`
	Config        wireDescriptor `json:"config"`
	Layers        wireLayers     `json:"layers"`
}

type wireDescriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

// wireLayers stops reading at the first layer too many.
type wireLayers []wireDescriptor

// UnmarshalJSON implements json.Unmarshaler.
func (l *wireLayers) UnmarshalJSON(b []byte) error {
	*l = nil
	d := json.NewDecoder(bytes.NewReader(b))
	if start, err := d.Token(); err != nil || start == nil {
		return err // null is no layers
	} else if start != json.Delim('[') {
		return errors.New("layers are no list")
	}
	for d.More() {
		if len(*l) == MaxLayers {
			return fmt.Errorf("more than %d layers", MaxLayers)
		}
		var one wireDescriptor
		if err := d.Decode(&one); err != nil {
			return err
		}
		*l = append(*l, one)
	}
	return nil
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

func partOf(d wireDescriptor, limit int64) (Part, error) {
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
