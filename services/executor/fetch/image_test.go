package fetch_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	distribution "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/registry"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/fetch"
)

// TestRegistryImage: an image is read from the registry that its reference names, with the
// credentials of who wants it, and a held one is for those only whom the registry would give it.
func TestRegistryImage(t *testing.T) {
	inner, closed := distribution.New(distribution.Logger(log.New(io.Discard, "", 0))), false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); closed && password != "right" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	_, files, _ := rig(t, host)
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux",
		Architecture: runtime.GOARCH})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(host + "/a/b:1")
	if err == nil {
		err = remote.Write(ref, image)
	}
	digest, err2 := image.Digest()
	c, err3 := cid.ParseDigest(digest.String())
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	closed = true
	want := executor.FetchImage{ID: executor.ImageID(c.String()), Reference: ref.String()}
	read := func() error {
		r, err := files.OpenImage(t.Context(), executor.FileAccess{}, want)
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, r)
		if err == nil && n == 0 {
			err = errors.New("the layout is empty")
		}
		return errors.Join(err, r.Close())
	}
	check := func() error { return files.CheckImage(t.Context(), executor.FileAccess{}, want) }
	for name, try := range map[string]func() error{"open": read, "check": check} {
		want.Credentials = nil
		if err := try(); !errors.Is(err, registry.ReasonDenied) {
			t.Errorf("%s without credentials: %v", name, err)
		}
		want.Credentials = []executor.RegistryCredential{
			{Host: host, Username: "ann", Password: "right"},
		}
		if err := try(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHeldImageOfAnotherRegistry: a manifest is no secret. Who serves it from a registry of his own
// gets no held image by it, unless that registry serves everything of it; then it is believed, over
// restarts too. The registry that an image came from is asked for the manifest alone.
func TestHeldImageOfAnotherRegistry(t *testing.T) {
	inner := distribution.New(distribution.Logger(log.New(io.Discard, "", 0)))
	var asked atomic.Int64 // for blobs
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			asked.Add(1)
			if strings.HasPrefix(r.URL.Path, "/v2/thief") {
				w.WriteHeader(http.StatusNotFound)
				return
			}
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	_, files, dir := rig(t, host)
	image, err := random.Image(10_000, 2)
	if err == nil {
		image, err = mutate.ConfigFile(image, withPlatform(t, image))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, repository := range []string{"owner/x", "mirror/x", "thief/x"} {
		ref, err := name.ParseReference(host + "/" + repository)
		if err == nil {
			err = remote.Write(ref, image)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	c, err := cid.ParseDigest(digest.String())
	if err != nil {
		t.Fatal(err)
	}
	want := executor.FetchImage{ID: executor.ImageID(c.String())}
	check := func(repository string, blobs int64) error {
		t.Helper()
		asked.Store(0)
		want.Reference = host + "/" + repository
		err := files.CheckImage(t.Context(), executor.FileAccess{}, want)
		if n := asked.Load(); n != blobs {
			t.Errorf("%s was asked for %d blobs, want %d", repository, n, blobs)
		}
		return err
	}
	want.Reference = host + "/owner/x"
	r, err := files.OpenImage(t.Context(), executor.FileAccess{}, want)
	if err == nil {
		_, err = io.Copy(io.Discard, r)
		err = errors.Join(err, r.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := check("owner/x", 0); err != nil {
		t.Error(err)
	}
	if err := check("thief/x", 1); !errors.Is(err, registry.ReasonNotFound) {
		t.Errorf("a repository with a manifest alone: %v", err)
	}
	if err := check("mirror/x", 3); err != nil {
		t.Error(err)
	}
	if err := check("mirror/x", 0); err != nil {
		t.Error(err)
	}
	reg := registry.New(registry.Options{Private: true, Insecure: []string{host}})
	if files, err = fetch.New(nil, reg, dir); err != nil {
		t.Fatal(err)
	}
	for _, repository := range []string{"owner/x", "mirror/x"} {
		if err := check(repository, 0); err != nil {
			t.Errorf("after a restart: %v", err)
		}
	}
}

// TestProofsDoNotWaitForOneAnother: who has no turn to read an image whole keeps nobody else from
// proving it, and is content with another one's proof.
func TestProofsDoNotWaitForOneAnother(t *testing.T) {
	server := httptest.NewServer(distribution.New(
		distribution.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	_, files, _ := rig(t, host)
	image, err := random.Image(10_000, 1)
	if err == nil {
		image, err = mutate.ConfigFile(image, withPlatform(t, image))
	}
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(host + "/owner/x")
	if err == nil {
		err = remote.Write(ref, image)
	}
	digest, err2 := image.Digest()
	c, err3 := cid.ParseDigest(digest.String())
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	want := executor.FetchImage{ID: executor.ImageID(c.String()), Reference: ref.String()}
	waits, ended := make(chan struct{}), make(chan error, 1)
	late := want
	late.Turn = func(ctx context.Context, _ executor.OpenLayout) (io.ReadCloser, error) {
		close(waits)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	go func() { ended <- files.CheckImage(t.Context(), executor.FileAccess{}, late) }()
	<-waits
	if err := files.CheckImage(t.Context(), executor.FileAccess{}, want); err != nil {
		t.Errorf("beside one that has no turn: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the one that had no turn: %v", err)
	}
}

func withPlatform(t *testing.T, image v1.Image) *v1.ConfigFile {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	return config
}

// TestCheckImage: storage is asked whether the token may read an image that is held here.
func TestCheckImage(t *testing.T) {
	s, files, _ := rig(t)
	mine := executor.FetchImage{ID: executor.ImageID(s.add(cid.OCIBlob, []byte("mine")))}
	const strange = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
	other := executor.FetchImage{ID: strange}
	if err := files.CheckImage(t.Context(), good, mine); err != nil {
		t.Error(err)
	}
	if err := files.CheckImage(t.Context(), good, other); !errors.Is(err, executor.ErrNoFile) {
		t.Errorf("another account's image: %v", err)
	}
	if err := files.CheckImage(t.Context(), executor.FileAccess{Token: "bad"}, mine); !errors.Is(err,
		executor.ErrFileDenied) {
		t.Errorf("an expired token: %v", err)
	}
	s.missing = []string{strange}
	if err := files.CheckImage(t.Context(), good, mine); !errors.Is(err, executor.ErrNoFile) {
		t.Errorf("the bytes of a manifest without its layers: %v", err)
	}
}
