package executortest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/executor"
)

// Image is an image for tests: its name and the OCI layout tar it comes in.
type Image struct {
	ID     executor.ImageID
	Config string // digest of its config
	Layout []byte
}

// Open opens the layout; it is an executor.OpenLayout.
func (i *Image) Open(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(i.Layout)), nil
}

// GuestImage builds the guest program for this machine and puts it alone into an image, as /guest
// with /tmp beside it. It needs the go command, as every test does. Entries of salt make images
// differ from one another.
func GuestImage(t testing.TB, salt ...string) *Image {
	t.Helper()
	return Shape{Salt: salt}.Image(t)
}

// Shape is a guest image with more to it than a good one needs.
type Shape struct {
	Salt   []string             // content of files /salt0, /salt1 ...
	More   []tar.Header         // of the layer, all of them without content
	Config func(*v1.ConfigFile) // changes the config
	Docker bool                 // of docker's media types, not of OCI's
}

// Image builds the guest image of this shape.
func (s Shape) Image(t testing.TB) *Image {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "guest")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin,
		"github.com/united-containers/ucn/services/executor/executortest/guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the guest: %v\n%s", err, out)
	}
	program, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	img, err := s.pack(program)
	if err != nil {
		t.Fatalf("packing the guest: %v", err)
	}
	return img
}

func (s Shape) pack(program []byte) (*Image, error) {
	kind := types.OCILayer
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1),
		types.OCIConfigJSON)
	if s.Docker {
		base, kind = empty.Image, types.DockerLayer
	}
	layer, err := s.layer(program)
	if err != nil {
		return nil, err
	}
	img, err := mutate.Append(base, mutate.Addendum{Layer: layer, MediaType: kind})
	if err != nil {
		return nil, err
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", runtime.GOARCH
	cf.Config.Entrypoint = []string{"/guest"}
	cf.Config.Env = []string{"FROM_IMAGE=yes"}
	if s.Config != nil {
		s.Config(cf)
	}
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		return nil, err
	}
	return layout(img)
}

func (s Shape) layer(program []byte) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err := writeFile(w, &tar.Header{Name: "guest", Mode: 0o755, Size: int64(len(program))}, program)
	if err != nil {
		return nil, err
	}
	err = writeFile(w, &tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	if err != nil {
		return nil, err
	}
	for i, text := range s.Salt {
		h := &tar.Header{Name: fmt.Sprintf("salt%d", i), Mode: 0o644, Size: int64(len(text))}
		if err := writeFile(w, h, []byte(text)); err != nil {
			return nil, err
		}
	}
	for i := range s.More {
		if err := w.WriteHeader(&s.More[i]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
}

func writeFile(w *tar.Writer, h *tar.Header, data []byte) error {
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// layout writes img as the tar of an OCI image layout.
func layout(img v1.Image) (*Image, error) {
	manifest, err := img.RawManifest()
	if err != nil {
		return nil, err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	name, err := img.ConfigName()
	if err != nil {
		return nil, err
	}
	blobs := map[string][]byte{digest.Hex: manifest, name.Hex: config}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		if err := addLayer(blobs, l); err != nil {
			return nil, err
		}
	}
	id, err := imageID(digest)
	if err != nil {
		return nil, err
	}
	tarred, err := tarLayout(digest, len(manifest), blobs)
	return &Image{ID: id, Config: name.String(), Layout: tarred}, err
}

// Swapped returns an image that has the config of i and the layers of other.
func (i *Image) Swapped(t testing.TB, other *Image) *Image {
	t.Helper()
	config, m := i.parts(t)
	layers, n := other.parts(t)
	maps.Copy(config, layers)
	m.Layers = n.Layers
	return i.assembled(t, m, config)
}

// Unpacked returns an image that has the config of i, and its layers not packed.
func (i *Image) Unpacked(t testing.TB) *Image {
	t.Helper()
	blobs, m := i.parts(t)
	for n := range m.Layers {
		r, err := gzip.NewReader(bytes.NewReader(blobs[m.Layers[n].Digest.Hex]))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		sum, size, err := v1.SHA256(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		blobs[sum.Hex] = b
		m.Layers[n] = v1.Descriptor{MediaType: types.OCIUncompressedLayer, Digest: sum, Size: size}
	}
	return i.assembled(t, m, blobs)
}

// parts reads the layout back.
func (i *Image) parts(t testing.TB) (map[string][]byte, *v1.Manifest) {
	t.Helper()
	blobs := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(i.Layout)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if blobs[path.Base(h.Name)], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	digest, err := i.ID.Digest()
	if err != nil {
		t.Fatal(err)
	}
	m, err := v1.ParseManifest(bytes.NewReader(blobs[strings.TrimPrefix(digest, "sha256:")]))
	if err != nil {
		t.Fatal(err)
	}
	delete(blobs, "index.json")
	delete(blobs, "oci-layout")
	return blobs, m
}

// assembled makes an image of blobs that m is the manifest of.
func (i *Image) assembled(t testing.TB, m *v1.Manifest, blobs map[string][]byte) *Image {
	t.Helper()
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	digest, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	blobs[digest.Hex] = raw
	id, err := imageID(digest)
	if err != nil {
		t.Fatal(err)
	}
	tarred, err := tarLayout(digest, len(raw), blobs)
	if err != nil {
		t.Fatal(err)
	}
	return &Image{ID: id, Config: i.Config, Layout: tarred}
}

func addLayer(blobs map[string][]byte, l v1.Layer) error {
	h, err := l.Digest()
	if err != nil {
		return err
	}
	r, err := l.Compressed()
	if err != nil {
		return err
	}
	blobs[h.Hex], err = io.ReadAll(r)
	return err
}

func imageID(h v1.Hash) (executor.ImageID, error) {
	c, err := cid.ParseDigest(h.String())
	return executor.ImageID(c.String()), err
}

func tarLayout(digest v1.Hash, size int, blobs map[string][]byte) ([]byte, error) {
	index, err := json.Marshal(map[string]any{
		"schemaVersion": 2,
		"manifests": []any{map[string]any{
			"mediaType": types.OCIManifestSchema1, "digest": digest.String(), "size": size,
		}},
	})
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{
		"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`),
		"index.json": index,
	}
	for h, b := range blobs {
		files["blobs/sha256/"+h] = b
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, b := range files {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(b))}
		if err := writeFile(w, h, b); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), w.Close()
}
