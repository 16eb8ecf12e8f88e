package oci_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/oci"
)

func amd64() oci.Options { return oci.Options{Arch: "amd64", MaxSize: 64 << 20} }

// blobs opens every blob of an image and checks it against its CID.
func blobs(t *testing.T, i *oci.Image) map[cid.CID][]byte {
	t.Helper()
	all := map[cid.CID][]byte{}
	for _, part := range i.Blobs() {
		r, err := i.Open(t.Context(), part.CID)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil || r.Close() != nil {
			t.Fatal(err)
		}
		if got := cidOf(data); got != part.CID || int64(len(data)) != part.Size {
			t.Errorf("%s has %d bytes that are %s", part.CID, len(data), got)
		}
		all[part.CID] = data
	}
	return all
}

func cidOf(b []byte) cid.CID {
	c, _, err := cid.Sum(cid.OCIBlob, bytes.NewReader(b))
	if err != nil {
		panic(err)
	}
	return c
}

// closeIf closes an image that was opened without error.
func closeIf(t *testing.T, i *oci.Image, opened error) {
	t.Helper()
	if opened != nil {
		return
	}
	if err := i.Close(); err != nil {
		t.Error(err)
	}
}

func opened(t *testing.T, ref string, o oci.Options) *oci.Image {
	t.Helper()
	i, err := oci.Open(t.Context(), ref, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	return i
}

func TestLayoutKeepsItsManifest(t *testing.T) {
	l := layout{}
	d := l.image(t, "amd64", layer(t, "a"), layer(t, "b"), layer(t, "a"))
	l.index(t, d)
	for name, ref := range map[string]string{"archive": save(t, tarOf(t, l.entries()...)),
		"directory": l.dir(t)} {
		i := opened(t, ref, amd64())
		if i.Manifest.CID.Digest() != d.Digest.String() || i.Arch != "amd64" {
			t.Errorf("%s: manifest is %s, want %s", name, i.Manifest.CID.Digest(), d.Digest)
		}
		if got := blobs(t, i); len(got) != 4 { // two distinct layers, config, manifest
			t.Errorf("%s: %d blobs", name, len(got))
		}
		all := i.Blobs()
		if all[len(all)-1].CID != i.Manifest.CID {
			t.Errorf("%s: the manifest is not last", name)
		}
	}
}

func TestDockerArchiveConverts(t *testing.T) {
	a, b := layer(t, "a"), layer(t, "b")
	plain := dockerArchive(t, "amd64", []string{"x:1"}, [][]byte{a, b}, a, b)
	first := opened(t, save(t, tarOf(t, plain...)), amd64())
	for _, part := range first.Manifest.Layers {
		if part.MediaType != v1.MediaTypeImageLayer {
			t.Errorf("layer is %s", part.MediaType)
		}
	}
	got := blobs(t, first)
	if !bytes.Equal(got[cidOf(a)], a) || !bytes.Equal(got[cidOf(b)], b) {
		t.Error("layers changed")
	}
	// The order of entries and the tag are no part of the image.
	plain = dockerArchive(t, "amd64", []string{"y:2"}, [][]byte{a, b}, a, b)
	plain[0], plain[len(plain)-1] = plain[len(plain)-1], plain[0]
	second := opened(t, save(t, tarOf(t, plain...)), amd64())
	if first.Manifest.CID != second.Manifest.CID {
		t.Errorf("the same image is %s and %s", first.Manifest.CID, second.Manifest.CID)
	}
	gz := opened(t, save(t, tarOf(t, dockerArchive(t, "amd64", nil,
		[][]byte{zipped(t, a)}, a)...)), amd64())
	if gz.Manifest.Layers[0].MediaType != v1.MediaTypeImageLayerGzip {
		t.Errorf("gzip layer is %s", gz.Manifest.Layers[0].MediaType)
	}
	blobs(t, gz)
}

// TestConversionIsFrozen pins the digest of one converted image: it must not differ between
// machines, Go versions or releases.
func TestConversionIsFrozen(t *testing.T) {
	const want = "sha256:4060746bebe8b60eda41bdbab9e2ef733845554dcade7f37874c4a67a0be08f4"
	a := []byte("not a real tar, but bytes are bytes")
	i := opened(t, save(t, tarOf(t, dockerArchive(t, "amd64", nil, [][]byte{a}, a)...)), amd64())
	if got := i.Manifest.CID.Digest(); got != want {
		t.Errorf("manifest is %s, want %s", got, want)
	}
}

func TestDockerLinksAndTypesOfDockerLayouts(t *testing.T) {
	a := layer(t, "a")
	linked := dockerArchive(t, "amd64", nil, [][]byte{a, a}, a, a)
	linked[2] = entry{name: linked[2].name, link: "../" + linked[1].name, kind: '2'}
	i := opened(t, save(t, tarOf(t, linked...)), amd64())
	if len(i.Manifest.Layers) != 2 || len(i.Blobs()) != 3 {
		t.Errorf("%d layers, %d blobs", len(i.Manifest.Layers), len(i.Blobs()))
	}

	l := layout{}
	m := v1.Manifest{MediaType: "application/vnd.docker.distribution.manifest.v2+json",
		Config: l.blob("application/vnd.docker.container.image.v1+json", configOf(t, "amd64", a)),
		Layers: []v1.Descriptor{l.blob("application/vnd.docker.image.rootfs.diff.tar", a)}}
	m.SchemaVersion = 2
	l.index(t, l.blob(m.MediaType, encode(t, m)))
	converted := opened(t, save(t, tarOf(t, l.entries()...)), amd64())
	single := opened(t, save(t, tarOf(t, dockerArchive(t, "amd64", nil, [][]byte{a}, a)...)), amd64())
	if converted.Manifest.CID != single.Manifest.CID {
		t.Error("docker's layout and docker's archive of one image differ")
	}
}

func TestPlatformAndNameArePicked(t *testing.T) {
	l := layout{}
	amd, arm := l.image(t, "amd64", layer(t, "x")), l.image(t, "arm64", layer(t, "y"))
	inner := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{amd, arm}}
	inner.SchemaVersion = 2
	l.index(t, l.blob(v1.MediaTypeImageIndex, encode(t, inner)))
	ref := save(t, tarOf(t, l.entries()...))
	for arch, want := range map[string]v1.Descriptor{"amd64": amd, "arm64": arm} {
		i := opened(t, ref, oci.Options{Arch: arch})
		if i.Manifest.CID.Digest() != want.Digest.String() || i.Arch != arch {
			t.Errorf("%s: got %s", arch, i.Arch)
		}
	}
	_, err := oci.Open(t.Context(), ref, oci.Options{Arch: "riscv64"})
	if !errors.Is(err, oci.ReasonPlatform) || !strings.Contains(err.Error(), "linux/arm64") {
		t.Errorf("no such platform: %v", err)
	}

	several := layout{}
	one, two := several.image(t, "amd64", layer(t, "1")), several.image(t, "amd64", layer(t, "2"))
	one.Annotations = map[string]string{v1.AnnotationRefName: "registry.example/library/one:latest"}
	two.Annotations = map[string]string{v1.AnnotationRefName: "two:v2"}
	ref = save(t, tarOf(t, several.index(t, one, two).entries()...))
	_, err = oci.Open(t.Context(), ref, amd64())
	if !errors.Is(err, oci.ReasonAmbiguous) || !strings.Contains(err.Error(), "two:v2") {
		t.Errorf("ambiguous: %v", err)
	}
	o := amd64()
	o.Name = "one"
	if i := opened(t, ref, o); i.Manifest.CID.Digest() != one.Digest.String() {
		t.Error("the name did not pick its image")
	}
}

func TestBrokenInputIsRefusedByName(t *testing.T) {
	a := layer(t, "a")
	good := func() layout {
		l := layout{}
		return l.index(t, l.image(t, "amd64", a))
	}
	edited := func(edit func(layout)) []byte {
		l := good()
		edit(l)
		return tarOf(t, l.entries()...)
	}
	docker := func(edit func([]entry) []entry) []byte {
		return tarOf(t, edit(dockerArchive(t, "amd64", nil, [][]byte{a}, a))...)
	}
	whole := tarOf(t, good().entries()...)
	manifest := func(edit func(*v1.Manifest)) []byte {
		l := layout{}
		m := v1.Manifest{MediaType: v1.MediaTypeImageManifest,
			Config: l.blob(v1.MediaTypeImageConfig, configOf(t, "amd64", a)),
			Layers: []v1.Descriptor{l.blob(v1.MediaTypeImageLayer, a)}}
		m.SchemaVersion = 2
		edit(&m)
		l.index(t, l.blob(v1.MediaTypeImageManifest, encode(t, m)))
		return tarOf(t, l.entries()...)
	}
	tests := []struct {
		name string
		data []byte
		want fault.Reason
		says string
	}{
		{"nothing", nil, oci.ReasonBadArchive, "neither"},
		{"text", []byte(strings.Repeat("hello world ", 200)), oci.ReasonBadArchive, "entry 0"},
		{"gzip", zipped(t, whole), oci.ReasonBadArchive, "gzip -d"},
		{"cut", whole[:len(whole)*2/3], oci.ReasonBadArchive, ""},
		{"another tar", a, oci.ReasonBadArchive, "neither"},
		{"layer lost", edited(func(l layout) { delete(l, "blobs/sha256/"+hexOf(a)) }),
			oci.ReasonBadArchive, "lacks sha256:" + hexOf(a)},
		{"layer changed", edited(func(l layout) {
			b := bytes.Clone(a)
			b[0] ^= 1
			l["blobs/sha256/"+hexOf(a)] = b
		}), cid.ReasonMismatch, "expected"},
		{"layer cut", edited(func(l layout) { l["blobs/sha256/"+hexOf(a)] = a[:100] }),
			oci.ReasonBadArchive, "100 bytes"},
		{"bad index", edited(func(l layout) { l["index.json"] = []byte("{") }),
			oci.ReasonBadArchive, "index.json"},
		{"huge index", edited(func(l layout) { l["index.json"] = make([]byte, oci.MaxManifest+1) }),
			oci.ReasonBadArchive, "at most"},
		{"index of many indexes", edited(func(l layout) {
			inner := l.blob(v1.MediaTypeImageIndex, []byte("{}"))
			l.index(t, slices.Repeat([]v1.Descriptor{inner}, 65)...)
		}), oci.ReasonBadArchive, "more than 64 indexes"},
		{"no images", edited(func(l layout) { l.index(t) }), oci.ReasonPlatform, "none"},
		{"traversal", tarOf(t, entry{name: "../../etc/passwd"}), oci.ReasonBadArchive, "leads out"},
		{"device", tarOf(t, entry{name: "dev", kind: '3'}), oci.ReasonBadArchive, "of type"},
		{"twice", tarOf(t, entry{name: "x"}, entry{name: "./x"}), oci.ReasonBadArchive, "twice"},
		{"link loop", docker(func(e []entry) []entry {
			e[1] = entry{name: e[1].name, link: "layer.tar", kind: '2'}
			return e
		}), oci.ReasonBadArchive, "links"},
		{"too many layers", manifest(func(m *v1.Manifest) {
			for len(m.Layers) <= oci.MaxLayers {
				m.Layers = append(m.Layers, m.Layers[0])
			}
		}), oci.ReasonNotImage, "more than 128 layers"},
		{"encrypted layer", manifest(func(m *v1.Manifest) {
			m.Layers[0].MediaType = "application/vnd.oci.image.layer.v1.tar+encrypted"
		}), oci.ReasonNotImage, "encrypted"},
		{"artifact", manifest(func(m *v1.Manifest) { m.ArtifactType = "application/sbom" }),
			oci.ReasonNotImage, "application/sbom"},
		{"sha512", manifest(func(m *v1.Manifest) { m.Layers[0].Digest = "sha512:00" }),
			oci.ReasonNotImage, "sha512"},
		{"layers and config differ", manifest(func(m *v1.Manifest) { m.Layers = nil }),
			oci.ReasonNotImage, "its config lists 1 layers"},
		{"other layer than the config's", docker(func(e []entry) []entry {
			e[1].data = layer(t, "b")
			return e
		}), cid.ReasonMismatch, "layer 0 unpacks to"},
		{"config not what its name says", docker(func(e []entry) []entry {
			e[0].data = append(e[0].data, ' ')
			return e
		}), cid.ReasonMismatch, "config"},
		{"other architecture", tarOf(t, dockerArchive(t, "arm64", nil, [][]byte{a}, a)...),
			oci.ReasonPlatform, "linux/arm64"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			i, err := oci.Open(t.Context(), save(t, test.data), amd64())
			closeIf(t, i, err)
			if !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.says) {
				t.Errorf("got %v, want %s with %q", err, test.want, test.says)
			}
		})
	}
}

func TestImageTooLarge(t *testing.T) {
	l := layout{}
	l.index(t, l.image(t, "amd64", make([]byte, 100_000)))
	o := amd64()
	o.MaxSize = 99_999
	_, err := oci.Open(t.Context(), l.dir(t), o)
	if !errors.Is(err, oci.ReasonBadArchive) || !strings.Contains(err.Error(), "at most 99999") {
		t.Error(err)
	}
	bomb := zipped(t, make([]byte, 10<<20))
	o.MaxSize = 1 << 20
	_, err = oci.Open(t.Context(), save(t, tarOf(t, dockerArchive(t, "amd64", nil, [][]byte{bomb},
		make([]byte, 10<<20))...)), o)
	if !errors.Is(err, oci.ReasonBadArchive) || !strings.Contains(err.Error(), "unpacks to more") {
		t.Errorf("bomb: %v", err)
	}
}

// memory is a Source, honest or not.
type memory map[cid.CID][]byte

func (m memory) Open(_ context.Context, c cid.CID) (io.ReadCloser, error) {
	data, ok := m[c]
	if !ok {
		return nil, fault.New(fault.NotFound, "GONE", "no %s", c)
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func TestWriteLayoutReadsBack(t *testing.T) {
	l := layout{}
	l.index(t, l.image(t, "amd64", layer(t, "a"), make([]byte, 300_000), layer(t, "a")))
	from := opened(t, l.dir(t), amd64())
	src := memory(blobs(t, from))
	var first, second bytes.Buffer
	for _, w := range []io.Writer{&first, &second} {
		if err := oci.WriteLayout(t.Context(), w, from.Manifest.CID, "ucn/x:1", src); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same image gives different archives")
	}
	back := opened(t, save(t, first.Bytes()), amd64())
	if back.Manifest.CID != from.Manifest.CID || len(blobs(t, back)) != len(src) {
		t.Errorf("read back %s, want %s", back.Manifest.CID, from.Manifest.CID)
	}
}

func TestWriteLayoutRefusesOtherBytes(t *testing.T) {
	l := layout{}
	big := make([]byte, 300_000)
	l.index(t, l.image(t, "amd64", big))
	from := opened(t, l.dir(t), amd64())
	for name, spoil := range map[string]func(memory, cid.CID){
		"last byte": func(m memory, c cid.CID) {
			m[c] = bytes.Clone(m[c])
			m[c][len(m[c])-1] ^= 1
		},
		"too long":  func(m memory, c cid.CID) { m[c] = append(bytes.Clone(m[c]), 0) },
		"too short": func(m memory, c cid.CID) { m[c] = m[c][:len(m[c])-1] },
		"missing":   func(m memory, c cid.CID) { delete(m, c) },
	} {
		for _, part := range from.Blobs() {
			src := memory(blobs(t, from))
			spoil(src, part.CID)
			var out bytes.Buffer
			err := oci.WriteLayout(t.Context(), &out, from.Manifest.CID, "", src)
			if !errors.Is(err, cid.ReasonMismatch) && !errors.Is(err, fault.NotFound) {
				t.Errorf("%s of %s: %v", name, part.MediaType, err)
			}
			i, err := oci.Open(t.Context(), save(t, out.Bytes()), amd64())
			if closeIf(t, i, err); err == nil {
				t.Errorf("%s of %s: the archive opens", name, part.MediaType)
			}
		}
	}
	err := oci.WriteLayout(t.Context(), io.Discard, cid.OfFile([32]byte{}), "", memory{})
	if !errors.Is(err, oci.ReasonNotImage) {
		t.Errorf("a file's CID: %v", err)
	}
}

func program(t *testing.T, script string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "engine")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestLocalImages(t *testing.T) {
	a := layer(t, "a")
	archive := save(t, tarOf(t, dockerArchive(t, "amd64", []string{"app:1"}, [][]byte{a}, a)...))
	has := program(t, `case "$1" in image) exit 0;; save) while [ "$1" != --output ]; do shift; done
cp `+archive+` "$2";; esac`)
	hasNot := program(t, "exit 1")
	breaks := program(t, `[ "$1" = image ] || { echo disk on fire >&2; exit 3; }`)
	o := amd64()
	o.TempDir = t.TempDir()
	tests := []struct{ name, image, podman, docker, says string }{
		{"podman", "app", has, hasNot, ""},
		{"docker", "app", hasNot, has, ""},
		{"docker only", "app", "/no/podman", has, ""},
		{"neither has it", "app", hasNot, hasNot, "has no such image"},
		{"neither is there", "app", "/no/podman", "/no/docker", "/no/docker is not installed"},
		{"save fails", "app", breaks, has, "disk on fire"},
		{"option", "--all", has, has, "no name"},
		{"a path", "./app", has, has, "no file"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o.Podman, o.Docker = test.podman, test.docker
			i, err := oci.Open(t.Context(), test.image, o)
			if (err == nil) != (test.says == "") || err != nil &&
				!strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want %q", err, test.says)
			}
			if err == nil {
				blobs(t, i)
				if err := i.Close(); err != nil {
					t.Error(err)
				}
			}
			if left, err := os.ReadDir(o.TempDir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	l := layout{}
	l.index(t, l.image(t, "amd64", layer(t, "a")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := oci.Open(ctx, l.dir(t), amd64()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func FuzzOpenArchive(f *testing.F) {
	l := layout{}
	a := layer(f, "a")
	l.index(f, l.image(f, "amd64", a))
	f.Add(tarOf(f, l.entries()...))
	f.Add(tarOf(f, dockerArchive(f, "amd64", []string{"x:1"}, [][]byte{zipped(f, a)}, a)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := oci.OpenArchive(t.Context(), save(t, b), amd64())
		if err != nil {
			return
		}
		blobs(t, i)
		closeIf(t, i, nil)
	})
}

func FuzzParseManifest(f *testing.F) {
	l := layout{}
	d := l.image(f, "amd64", layer(f, "a"))
	f.Add(l["blobs/sha256/"+d.Digest.Encoded()])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := oci.ParseManifest(cidOf(b), b)
		if err != nil {
			return
		}
		if len(m.Layers) > oci.MaxLayers || m.Size < int64(len(b)) {
			t.Fatalf("accepted %d layers, %d bytes", len(m.Layers), m.Size)
		}
	})
}
