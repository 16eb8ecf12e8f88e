package fetch_test

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	distribution "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/registry"
	"github.com/united-containers/ucn/services/executor"
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
