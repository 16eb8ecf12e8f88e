package podman

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"

	"github.com/united-containers/ucn/kit/registry"
	"github.com/united-containers/ucn/services/executor/executortest"
)

// serve answers as a registry that has one image.
func serve(t *testing.T, img *executortest.Image) (host string) {
	t.Helper()
	blobs := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(img.Layout)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			blobs[path.Base(h.Name)], err = io.ReadAll(r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := blobs[strings.TrimPrefix(path.Base(r.URL.Path), "sha256:")]
		if !ok && r.URL.Path != "/v2/" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// TestRegistryPull: an image is pulled by digest and its program runs.
func TestRegistryPull(t *testing.T) {
	img := executortest.GuestImage(t)
	d := loaded(t, executortest.GuestImage(t, "another"))
	host := serve(t, img)
	client := registry.New(registry.Options{Private: true, Insecure: []string{host}})
	digest, err := img.ID.Digest()
	if err != nil {
		t.Fatal(err)
	}
	open := func(ctx context.Context) (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() {
			_ = w.CloseWithError(client.WriteLayout(ctx, w, registry.Image{
				Reference: host + "/guest", Digest: digest, Platform: registry.Platform(),
			}))
		}()
		return r, nil
	}
	if _, err := d.LoadImage(t.Context(), img.ID, "", open); err != nil {
		t.Fatal(err)
	}
	c, err := d.Create(t.Context(), executortest.Spec(img.ID, "a", "exit", "3"))
	if err == nil {
		err = c.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if e, err := c.Wait(t.Context()); err != nil || e.Code != 3 {
		t.Errorf("exit %+v, %v", e, err)
	}
}
