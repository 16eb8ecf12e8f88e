package oci_test

import (
	"errors"
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

// TestDocumentBomb: the same for what comes from registries and goes to an engine.
func TestDocumentBomb(t *testing.T) {
	fill := func(unit string) string {
		const room = oci.MaxManifest - 300
		return strings.TrimSuffix(strings.Repeat(unit+",", room/(len(unit)+1)), ",")
	}
	document := func(b []byte) error {
		_, err := oci.ReadDocument(b)
		return err
	}
	config := func(b []byte) error {
		_, err := oci.ReadConfig(b)
		return err
	}
	for name, test := range map[string]struct {
		text string
		read func([]byte) error
	}{
		"manifests": {`{"manifests":[` + fill("{}") + `]}`, document},
		"platforms": {`{"manifests":[` + fill(`{"platform":{}}`) + `]}`, document},
		"layers":    {`{"layers":[` + fill("{}") + `]}`, document},
		"history":   {`{"history":[` + fill("{}") + `]}`, config},
		"diff_ids":  {`{"rootfs":{"diff_ids":[` + fill(`""`) + `]}}`, config},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := test.read([]byte(test.text))
		runtime.ReadMemStats(&after)
		if !errors.Is(err, oci.ReasonTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		if cost := after.TotalAlloc - before.TotalAlloc; cost > 4*oci.MaxManifest {
			t.Errorf("%s: reading %d bytes took %d", name, len(test.text), cost)
		}
	}
}

func TestReadDocument(t *testing.T) {
	t.Parallel()
	d, err := oci.ReadDocument([]byte(`{"manifests":[{"digest":"a","platform":{"os":"linux"}}],
		"config":{"size":3},"layers":null}`))
	if err != nil || d.Manifests[0].Platform.OS != "linux" || d.Config.Size != 3 {
		t.Errorf("%+v, %v", d, err)
	}
	c, err := oci.ReadConfig([]byte(`{"os":"linux","variant":"v7","rootfs":{"diff_ids":["x"]},
		"history":[{"empty_layer":true}],"config":{"Env":["A=1"]}}`))
	if err != nil || c.Variant != "v7" || c.RootFS.DiffIDs[0] != "x" {
		t.Errorf("%+v, %v", c, err)
	}
	for _, text := range []string{"", "[]", `{"layers":{}}`, `{"layers":"x"}`, `{"layers":[1]}`} {
		if _, err := oci.ReadDocument([]byte(text)); !errors.Is(err, oci.ReasonNotImage) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := oci.ReadConfig([]byte(`{"history":{}}`)); !errors.Is(err, oci.ReasonNotImage) {
		t.Errorf("a history that is no list: %v", err)
	}
	big := []byte(`{"a":"` + strings.Repeat("x", oci.MaxManifest) + `"}`)
	if _, err := oci.ReadDocument(big); !errors.Is(err, oci.ReasonNotImage) {
		t.Errorf("more than the bound: %v", err)
	}
}
