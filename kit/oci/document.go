package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"unicode"

	"github.com/united-containers/ucn/kit/fault"
)

// Bounds of the lists in documents.
const (
	maxDescriptors = 1024 // manifests of an index; layers have MaxLayers
	maxHistory     = 4096 // steps of a config, those without a layer among them
	maxPlatform    = 64   // bytes of a platform's name
)

// Document is what is read of a manifest or index. Strangers write them, and a few bytes of JSON
// can stand for many of memory: lists end at their bounds, and members that nobody needs are passed
// over.
type Document struct {
	MediaType string      `json:"mediaType"`
	Config    Descriptor  `json:"config"`
	Layers    Descriptors `json:"layers"`
	Manifests Descriptors `json:"manifests"` // of an index
}

// Descriptor names a blob.
type Descriptor struct {
	MediaType string    `json:"mediaType"`
	Digest    string    `json:"digest"`
	Size      int64     `json:"size"`
	Platform  *Platform `json:"platform"`
}

// Platform is what an image runs on.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant"`
}

// String returns it as jobs and hosts name it, "linux/amd64", without a variant: hosts tell none.
// It is "" when it is not known, or no name that a job may hold.
func (p Platform) String() string {
	text := p.OS + "/" + p.Architecture
	odd := strings.ContainsFunc(text, func(r rune) bool {
		return r != '/' && r != '_' && r != '-' && r != '.' && !unicode.IsLower(r) && !unicode.IsDigit(r)
	})
	const unknown = "unknown" // what is beside images in an index, such as attestations
	if p.OS == "" || p.Architecture == "" || p.OS == unknown || p.Architecture == unknown ||
		odd || len(text) > maxPlatform {
		return ""
	}
	return text
}

// Config is what is read of an image's config, as of a Document.
type Config struct {
	Platform
	RootFS struct {
		DiffIDs DiffIDs `json:"diff_ids"`
	} `json:"rootfs"`
	History history `json:"history"`
}

// ReadDocument reads a manifest or index. What is none is ReasonNotImage, and a list beyond its
// bounds ReasonTooLarge.
func ReadDocument(b []byte) (Document, error) {
	var d Document
	if err := read(b, &d); err != nil {
		return Document{}, err
	}
	if len(d.Layers) > MaxLayers {
		return Document{}, tooLong(MaxLayers)
	}
	return d, nil
}

// ReadConfig reads an image's config. Faults as of ReadDocument.
func ReadConfig(b []byte) (Config, error) {
	var c Config
	if err := read(b, &c); err != nil {
		return Config{}, err
	}
	return c, nil
}

func read(b []byte, into any) error {
	if len(b) > MaxManifest {
		return NotImage("%d bytes, at most %d", len(b), MaxManifest)
	}
	err := json.Unmarshal(b, into)
	if f := fault.From(err); f != nil {
		return f
	}
	if err != nil {
		return NotImage("its JSON cannot be read")
	}
	return nil
}

func tooLong(most int) error {
	return fault.New(fault.FailedPrecondition, ReasonTooLarge,
		"a list of the image has more than %d entries", most)
}

// Descriptors is a list that is not read beyond its bound.
type Descriptors []Descriptor

// UnmarshalJSON implements json.Unmarshaler.
func (l *Descriptors) UnmarshalJSON(b []byte) (err error) {
	*l, err = list[Descriptor](b, maxDescriptors)
	return err
}

// DiffIDs are the digests of unpacked layers, lowest first.
type DiffIDs []string

// UnmarshalJSON implements json.Unmarshaler.
func (l *DiffIDs) UnmarshalJSON(b []byte) (err error) {
	*l, err = list[string](b, MaxLayers)
	return err
}

// history is only counted: engines read it whole.
type history struct{}

// UnmarshalJSON implements json.Unmarshaler.
func (*history) UnmarshalJSON(b []byte) error {
	_, err := list[struct{}](b, maxHistory)
	return err
}

// list stops reading at the first entry too many.
func list[T any](b []byte, most int) ([]T, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if start, err := d.Token(); err != nil || start == nil {
		return nil, err // null is no entries
	} else if start != json.Delim('[') {
		return nil, errors.New("what should be a list is none")
	}
	var out []T
	for d.More() {
		if len(out) == most {
			return nil, tooLong(most)
		}
		var one T
		if err := d.Decode(&one); err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}
