package oci_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/oci"
)

// TestManifestBomb: a manifest of the largest size that is nothing but empty layers, or members
// nobody asked for, must not cost many times its size.
func TestManifestBomb(t *testing.T) {
	fill := func(unit string, most int) string {
		return strings.TrimSuffix(strings.Repeat(unit+",", most/(len(unit)+1)), ",")
	}
	const head = `{"schemaVersion":2,"config":{"mediaType":` +
		`"application/vnd.oci.image.config.v1+json","digest":"x","size":1`
	const room = oci.MaxManifest - 300
	for name, text := range map[string]string{
		"layers":      head + `},"layers":[` + fill("{}", room) + `]}`,
		"urls":        head + `,"urls":[` + fill(`""`, room) + `]},"layers":[]}`,
		"annotations": head + `},"layers":[],"annotations":{` + fill(`"":""`, room) + `}}`,
	} {
		raw := []byte(text)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := oci.ParseManifest(cid.CID{}, raw)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: taken", name)
		}
		if cost := after.TotalAlloc - before.TotalAlloc; cost > 2*oci.MaxManifest {
			t.Errorf("%s: reading %d bytes took %d", name, len(raw), cost)
		}
	}
}
