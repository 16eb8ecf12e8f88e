package registry_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	distribution "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/oci"
	"github.com/united-containers/ucn/kit/registry"
)

// house is a registry on loopback. between sees each request once wrap is set.
type house struct {
	host    string
	between atomic.Pointer[func(http.ResponseWriter, *http.Request, http.Handler)]
}

func open(t *testing.T) *house {
	t.Helper()
	h := &house{}
	inner := distribution.New(distribution.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := h.between.Load(); f != nil {
			(*f)(w, r, inner)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	h.host = strings.TrimPrefix(server.URL, "http://")
	return h
}

func (h *house) wrap(f func(http.ResponseWriter, *http.Request, http.Handler)) {
	h.between.Store(&f)
}

func (h *house) client(t *testing.T, o registry.Options) *registry.Client {
	t.Helper()
	o.Private, o.Insecure = true, append(o.Insecure, h.host)
	c := registry.New(o)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// tarOf makes a tar of one entry.
func tarOf(t *testing.T, h tar.Header, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h.Mode, h.Size = 0o644, int64(len(content))
	err := w.WriteHeader(&h)
	if err == nil {
		_, err = w.Write(content)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// layerOf makes a gzip layer of one file.
func layerOf(t *testing.T, content []byte) v1.Layer {
	t.Helper()
	return packedLayer(t, tarOf(t, tar.Header{Name: "file"}, content))
}

func packedLayer(t *testing.T, raw []byte) v1.Layer {
	t.Helper()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(raw)), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func imageOf(t *testing.T, arch string, layers ...v1.Layer) v1.Image {
	t.Helper()
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: arch})
	if err != nil {
		t.Fatal(err)
	}
	if image, err = mutate.AppendLayers(image, layers...); err != nil {
		t.Fatal(err)
	}
	return image
}

// push stores an image and returns its reference and digest.
func (h *house) push(t *testing.T, image v1.Image) registry.Image {
	t.Helper()
	ref, err := name.ParseReference(h.host + "/some/image:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return registry.Image{Reference: ref.String(), Digest: digest.String(), Platform: "linux/amd64"}
}

// blobs reads a layout's tar.
func blobs(t *testing.T, b []byte) map[string]int {
	t.Helper()
	found := map[string]int{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = len(body)
	}
}

func want(t *testing.T, err error, reason fault.Reason) {
	t.Helper()
	if !errors.Is(err, reason) {
		t.Errorf("error %v, want %s", err, reason)
	}
}

func TestPullsFromAnIndexByPlatform(t *testing.T) {
	t.Parallel()
	h := open(t)
	amd := imageOf(t, "amd64", layerOf(t, []byte("amd")), layerOf(t, bytes.Repeat([]byte("x"), 99)))
	arm := imageOf(t, "arm64", layerOf(t, []byte("arm")))
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: arm, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: amd, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}})
	ref, err := name.ParseReference(h.host + "/multi:v1")
	if err == nil {
		err = remote.WriteIndex(ref, index)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := h.client(t, registry.Options{})
	whole, err := c.Resolve(t.Context(), ref.String(), "")
	if d, _ := index.Digest(); err != nil || whole != d.String() {
		t.Fatalf("index resolves to %q, %v, want %s", whole, err, d)
	}
	one, err := c.Resolve(t.Context(), ref.String(), "linux/amd64")
	if d, _ := amd.Digest(); err != nil || one != d.String() {
		t.Fatalf("image resolves to %q, %v, want %s", one, err, d)
	}
	_, err = c.Resolve(t.Context(), ref.String(), "linux/riscv64")
	want(t, err, oci.ReasonPlatform)

	var out bytes.Buffer
	image := registry.Image{Reference: ref.String(), Digest: whole, Platform: "linux/amd64"}
	if err := c.WriteLayout(t.Context(), &out, image); err != nil {
		t.Fatal(err)
	}
	found := blobs(t, out.Bytes())
	for _, digest := range []string{whole, one} {
		if found["blobs/sha256/"+strings.TrimPrefix(digest, "sha256:")] == 0 {
			t.Errorf("the layout lacks %s", digest)
		}
	}
	if len(found) != 5 { // index, manifest, config, two layers
		t.Errorf("the layout has %d blobs, want 5", len(found))
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	h := open(t)
	image := h.push(t, imageOf(t, "arm64", layerOf(t, make([]byte, 1<<20))))
	ctx, c := t.Context(), h.client(t, registry.Options{})
	want(t, c.WriteLayout(ctx, io.Discard, image), oci.ReasonPlatform)
	image.Platform = "linux/arm64"
	small := h.client(t, registry.Options{MaxPacked: 100})
	want(t, small.WriteLayout(ctx, io.Discard, image), registry.ReasonTooLarge)
	other := image
	other.Digest = "sha256:" + strings.Repeat("0", 64)
	want(t, c.WriteLayout(ctx, io.Discard, other), registry.ReasonNotFound)
	other.Reference += "@" + image.Digest
	want(t, c.WriteLayout(ctx, io.Discard, other), registry.ReasonReference)
	for _, ref := range []string{"", "UPPER:x", "a b", strings.Repeat("a", 600), "a@md5:00"} {
		_, err := c.Resolve(ctx, ref, "")
		want(t, err, registry.ReasonReference)
	}
	private := registry.New(registry.Options{Insecure: []string{h.host}})
	want(t, private.WriteLayout(ctx, io.Discard, image), registry.ReasonAddress)
	plain := registry.New(registry.Options{Private: true})
	if err := plain.WriteLayout(ctx, io.Discard, image); err == nil {
		t.Error("a registry without TLS was read from")
	}
}

// TestRepeatedLayersTravelOnce: a layer may be named five times.
func TestRepeatedLayersTravelOnce(t *testing.T) {
	t.Parallel()
	h := open(t)
	l := layerOf(t, make([]byte, 1<<20))
	image := h.push(t, imageOf(t, "amd64", l, l, l, l, l))
	var out bytes.Buffer
	if err := h.client(t, registry.Options{}).WriteLayout(t.Context(), &out, image); err != nil {
		t.Fatal(err)
	}
	if n := len(blobs(t, out.Bytes())); n != 3 {
		t.Errorf("the layout has %d blobs, want manifest, config and one layer", n)
	}
}

func TestTamperedLayerIsRefused(t *testing.T) {
	t.Parallel()
	h := open(t)
	layer := static.NewLayer([]byte("0123456789"), types.OCIUncompressedLayer)
	image := h.push(t, imageOf(t, "amd64", layer))
	digest, _ := layer.Digest()
	h.wrap(func(w http.ResponseWriter, r *http.Request, inner http.Handler) {
		if strings.HasSuffix(r.URL.Path, digest.String()) {
			_, _ = w.Write([]byte("0123456780"))
			return
		}
		inner.ServeHTTP(w, r)
	})
	err := h.client(t, registry.Options{}).WriteLayout(t.Context(), io.Discard, image)
	want(t, err, registry.ReasonMismatch)
}

// TestResumes: a registry that breaks off in a layer is asked for the rest; one that stays away is
// given up.
func TestResumes(t *testing.T) {
	t.Parallel()
	h := open(t)
	content := tarOf(t, tar.Header{Name: "file"}, bytes.Repeat([]byte("layer"), 200_000))
	layer := static.NewLayer(content, types.OCIUncompressedLayer)
	image := h.push(t, imageOf(t, "amd64", layer))
	digest, _ := layer.Digest()
	var asked atomic.Int32
	var ranges atomic.Int32
	h.wrap(func(w http.ResponseWriter, r *http.Request, inner http.Handler) {
		if !strings.HasSuffix(r.URL.Path, digest.String()) {
			inner.ServeHTTP(w, r)
			return
		}
		if r.Header.Get("Range") != "" {
			ranges.Add(1)
		}
		if asked.Add(1) < 3 {
			inner.ServeHTTP(&broken{w, 300_000}, r)
			return
		}
		inner.ServeHTTP(w, r)
	})
	c := h.client(t, registry.Options{})
	var out bytes.Buffer
	if err := c.WriteLayout(t.Context(), &out, image); err != nil {
		t.Fatal(err)
	}
	if asked.Load() != 3 || ranges.Load() != 2 {
		t.Errorf("asked %d times, %d with a range; want 3 and 2", asked.Load(), ranges.Load())
	}
	h.wrap(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.WriteHeader(http.StatusBadGateway)
	})
	want(t, c.WriteLayout(t.Context(), io.Discard, image), registry.ReasonUnavailable)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.WriteLayout(ctx, io.Discard, image); err == nil {
		t.Error("a cancelled pull succeeds")
	}
}

// broken ends the connection after some bytes.
type broken struct {
	http.ResponseWriter
	left int
}

func (b *broken) Write(p []byte) (int, error) {
	if len(p) > b.left {
		_, _ = b.ResponseWriter.Write(p[:b.left])
		panic(http.ErrAbortHandler)
	}
	b.left -= len(p)
	return b.ResponseWriter.Write(p)
}

// TestCredentials: they go to the registry they name alone, and rights are asked for anew.
func TestCredentials(t *testing.T) {
	t.Parallel()
	h := open(t)
	image := h.push(t, imageOf(t, "amd64", layerOf(t, []byte("secret"))))
	var leaked atomic.Bool
	h.wrap(func(w http.ResponseWriter, r *http.Request, inner http.Handler) {
		user, password, _ := r.BasicAuth()
		if strings.Contains(password, "elsewhere") {
			leaked.Store(true)
		}
		if user != "ann" || password != "right" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	})
	c, ctx := h.client(t, registry.Options{}), t.Context()
	ann := registry.Credential{Host: h.host, Username: "ann", Password: "right"}
	eve := registry.Credential{Host: h.host, Username: "ann", Password: "wrong"}
	other := registry.Credential{Host: "other.example", Username: "ann", Password: "elsewhere"}
	if err := c.WriteLayout(ctx, io.Discard, image, other, ann); err != nil {
		t.Error(err)
	}
	want(t, c.WriteLayout(ctx, io.Discard, image, other), registry.ReasonDenied)
	want(t, c.WriteLayout(ctx, io.Discard, image, eve), registry.ReasonDenied)
	want(t, c.MayRead(ctx, image.Reference, image.Digest), registry.ReasonDenied)
	if err := c.MayRead(ctx, image.Reference, image.Digest, ann); err != nil {
		t.Error(err)
	}
	if leaked.Load() {
		t.Error("a credential went to a registry that it does not name")
	}
	if s := ann.String(); strings.Contains(s, "right") || strings.Contains(s, "ann") {
		t.Errorf("a credential prints as %s", s)
	}
}

// TestRedirectsAreJudged: a registry sends the client to a host that it must not speak to.
func TestRedirectsAreJudged(t *testing.T) {
	t.Parallel()
	h := open(t)
	image := h.push(t, imageOf(t, "amd64", layerOf(t, []byte("x"))))
	victim := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the redirect was followed")
	}))
	t.Cleanup(victim.Close)
	h.wrap(func(w http.ResponseWriter, r *http.Request, inner http.Handler) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, victim.URL+"/latest/meta-data", http.StatusTemporaryRedirect)
			return
		}
		inner.ServeHTTP(w, r)
	})
	err := h.client(t, registry.Options{}).WriteLayout(t.Context(), io.Discard, image)
	want(t, err, registry.ReasonAddress)
}

// TestSource: what names one repository with one right is one source, however it is spelled.
func TestSource(t *testing.T) {
	const digest = "@sha256:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	right := []registry.Credential{{Host: "r.example", Username: "ann", Password: "secret"}}
	source := func(reference string, with ...registry.Credential) string {
		t.Helper()
		s, err := registry.Source(reference, with...)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(s, "secret") {
			t.Errorf("%s tells a password", s)
		}
		return s
	}
	plain := source("r.example/a/b")
	for _, same := range []string{"r.example/a/b:1", "r.example/a/b:2", "r.example/a/b" + digest} {
		if got := source(same); got != plain {
			t.Errorf("%s is of %s, not %s", same, got, plain)
		}
	}
	mine := source("r.example/a/b", right...)
	if again := source("r.example/a/b:7", right...); again != mine {
		t.Errorf("one right is %s and %s", mine, again)
	}
	other := []registry.Credential{{Host: "r.example", Username: "anns", Password: "ecret"}}
	for _, differs := range []string{
		plain, source("r.example/a/c", right...), source("r.example:5000/a/b"),
		source("r.example/a/b", other...),
	} {
		if differs == mine {
			t.Errorf("%s is taken for another source", differs)
		}
	}
	if got := source("r.example/a/b", registry.Credential{Host: "q.example"}); got != plain {
		t.Errorf("another registry's credential makes it %s", got)
	}
	if _, err := registry.Source("r.example/a b"); !errors.Is(err, registry.ReasonReference) {
		t.Errorf("a bad reference: %v", err)
	}
}

// TestDescribe: what a reference names is told with its platforms; what stands beside images in an
// index, as attestations do, is none, and neither is what is not told of each image.
func TestDescribe(t *testing.T) {
	t.Parallel()
	h := open(t)
	c := h.client(t, registry.Options{})
	on := func(arch, variant string) v1.Descriptor {
		return v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch, Variant: variant}}
	}
	index := func(of ...v1.Descriptor) v1.ImageIndex {
		all := v1.ImageIndex(empty.Index)
		for n, d := range of {
			image := imageOf(t, "amd64", layerOf(t, []byte{byte(n)}))
			all = mutate.AppendManifests(all, mutate.IndexAddendum{Add: image, Descriptor: d})
		}
		return all
	}
	beside := v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}}
	for label, test := range map[string]struct {
		what remote.Taggable
		want []string
	}{
		"one": {imageOf(t, "riscv64", layerOf(t, []byte("x"))), []string{"linux/riscv64"}},
		"many": {index(on("arm64", "v8"), beside, on("amd64", ""), on("arm", "v6"), on("arm", "v7")),
			[]string{"linux/arm64", "linux/amd64", "linux/arm"}},
		"untold": {index(on("amd64", ""), v1.Descriptor{}), nil},
		"odd":    {imageOf(t, "\x1b[31m", layerOf(t, []byte("x"))), nil},
	} {
		ref, err := name.ParseReference(h.host + "/a:" + label)
		if err == nil {
			err = remote.Push(ref, test.what)
		}
		if err != nil {
			t.Fatal(err)
		}
		digest, err := c.Resolve(t.Context(), ref.String(), "")
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Describe(t.Context(), ref.String())
		if err != nil || got.Digest != digest || !slices.Equal(got.Platforms, test.want) {
			t.Errorf("%s: %+v, %v, want %s for %v", label, got, err, digest, test.want)
		}
	}
	_, err := c.Describe(t.Context(), h.host+"/a:none")
	want(t, err, registry.ReasonNotFound)
}
