package registry_test

import (
	"bytes"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/registry"
)

// TestManifestBomb: a registry's index that is nothing but empty entries is refused, and costs no
// more memory than what it is.
func TestManifestBomb(t *testing.T) {
	h := open(t)
	for name, open := range map[string]string{"index": `{"manifests":[`, "manifest": `{"layers":[`} {
		text := []byte(open + strings.Repeat("{},", registry.MaxManifest/3-20) + "{}]}")
		c, _, err := cid.Sum(cid.OCIBlob, bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		h.wrap(func(w http.ResponseWriter, r *http.Request, inner http.Handler) {
			if strings.Contains(r.URL.Path, "/manifests/") {
				_, _ = w.Write(text)
				return
			}
			inner.ServeHTTP(w, r)
		})
		client := h.client(t, registry.Options{})
		image := registry.Image{Reference: h.host + "/some/image", Digest: c.Digest(),
			Platform: "linux/amd64"}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		want(t, client.WriteLayout(t.Context(), io.Discard, image), registry.ReasonTooLarge)
		runtime.ReadMemStats(&after)
		if cost := after.TotalAlloc - before.TotalAlloc; cost > 20*registry.MaxManifest {
			t.Errorf("%s: reading %d bytes took %d", name, len(text), cost)
		}
	}
}
