package oci_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// entry is one thing in a tar.
type entry struct {
	name string
	data []byte
	link string
	kind byte // tar.TypeReg when 0
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Size: int64(len(e.data)), Mode: 0o644, Typeflag: e.kind,
			Linkname: e.link}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func save(t testing.TB, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func layer(t testing.TB, content string) []byte {
	t.Helper()
	return tarOf(t, entry{name: "hello", data: []byte(content)})
}

func zipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func configOf(t testing.TB, arch string, layers ...[]byte) []byte {
	t.Helper()
	c := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: arch}}
	c.RootFS.Type = "layers"
	for _, l := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(l))
	}
	return encode(t, c)
}

func hexOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func describe(mediaType string, b []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// layout is an OCI layout under construction: file name to bytes.
type layout map[string][]byte

func (l layout) blob(mediaType string, b []byte) v1.Descriptor {
	l["blobs/sha256/"+hexOf(b)] = b
	return describe(mediaType, b)
}

// image adds an image of plain layers and returns its manifest's descriptor.
func (l layout) image(t testing.TB, arch string, layers ...[]byte) v1.Descriptor {
	t.Helper()
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest,
		Config: l.blob(v1.MediaTypeImageConfig, configOf(t, arch, layers...))}
	m.SchemaVersion = 2
	for _, b := range layers {
		m.Layers = append(m.Layers, l.blob(v1.MediaTypeImageLayer, b))
	}
	d := l.blob(v1.MediaTypeImageManifest, encode(t, m))
	d.Platform = &v1.Platform{OS: "linux", Architecture: arch}
	return d
}

func (l layout) index(t testing.TB, manifests ...v1.Descriptor) layout {
	t.Helper()
	i := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: manifests}
	i.SchemaVersion = 2
	l["index.json"] = encode(t, i)
	l["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	return l
}

func (l layout) entries() []entry {
	var all []entry
	for _, name := range slices.Sorted(maps.Keys(l)) {
		all = append(all, entry{name: name, data: l[name]})
	}
	return all
}

func (l layout) dir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range l {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// dockerArchive is what docker save writes: layers as <hash>/layer.tar.
func dockerArchive(t testing.TB, arch string, tags []string, stored [][]byte, layers ...[]byte,
) []entry {
	t.Helper()
	config := configOf(t, arch, layers...)
	m := map[string]any{"Config": hexOf(config) + ".json", "RepoTags": tags}
	all := []entry{{name: hexOf(config) + ".json", data: config}}
	var names []string
	for n, b := range stored {
		name := fmt.Sprintf("%s%d/layer.tar", hexOf(b), n)
		names = append(names, name)
		all = append(all, entry{name: name, data: b})
	}
	m["Layers"] = names
	return append(all, entry{name: "manifest.json", data: encode(t, []any{m})})
}
