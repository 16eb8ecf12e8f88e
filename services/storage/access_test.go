package storage_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/oci"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

// world is Alice's account with an image, a file, and a manifest that names Bob's layer.
type world struct {
	store                                 *storagetest.Memory
	access                                *storage.Access
	manifest, config, layer, file, bobs   cid.CID
	thief, unrelated, textual, incomplete cid.CID
}

func manifestOf(t *testing.T, config []byte, layers ...[]byte) []byte {
	t.Helper()
	d := func(mediaType string, b []byte) v1.Descriptor {
		return v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	}
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: d(v1.MediaTypeImageConfig, config)}
	m.SchemaVersion = 2
	for _, l := range layers {
		m.Layers = append(m.Layers, d(v1.MediaTypeImageLayer, l))
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newWorld(t *testing.T) world {
	t.Helper()
	s := storagetest.NewMemory(storage.DefaultLimits())
	put := func(a storage.Account, k cid.Kind, data []byte) cid.CID {
		return storagetest.MustPut(t, s, storage.Put{Account: a, Kind: k}, data).Ref.CID
	}
	alice, blob := storagetest.Alice(), cid.OCIBlob
	config, layer, bobs := []byte("{}"), []byte("layer"), []byte("bob's layer")
	return world{
		store:      s,
		access:     storage.NewAccess(s),
		config:     put(alice, blob, config),
		layer:      put(alice, blob, layer),
		manifest:   put(alice, blob, manifestOf(t, config, layer)),
		file:       put(alice, cid.File, []byte("a file")),
		unrelated:  put(alice, blob, []byte("another layer")),
		textual:    put(alice, blob, []byte("no manifest")),
		bobs:       put(storagetest.Bob(), blob, bobs),
		thief:      put(alice, blob, manifestOf(t, config, bobs)),
		incomplete: put(alice, blob, manifestOf(t, config, layer, []byte("never pushed"))),
	}
}

func (w world) session(t *testing.T, scopes ...string) *storage.Session {
	t.Helper()
	s, err := w.access.For(storage.Grant{Account: storagetest.Alice(), Scopes: scopes})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestReadScopes(t *testing.T) {
	w := newWorld(t)
	only := func(c cid.CID) string { return storage.ScopeRead + ":" + c.String() }
	const ok = fault.Reason("")
	tests := []struct {
		name   string
		scopes []string
		read   cid.CID
		want   fault.Reason
	}{
		{"all", []string{storage.ScopeRead}, w.file, ok},
		{"file covers read", []string{storage.ScopeAll}, w.file, ok},
		{"this file", []string{only(w.file)}, w.file, ok},
		{"another file", []string{only(w.layer)}, w.file, storage.ReasonForbidden},
		{"manifest", []string{only(w.manifest)}, w.manifest, ok},
		{"layer through manifest", []string{only(w.manifest)}, w.layer, ok},
		{"config through manifest", []string{only(w.file), only(w.manifest)}, w.config, ok},
		{"layer not in manifest", []string{only(w.manifest)}, w.unrelated, storage.ReasonForbidden},
		{"file through manifest", []string{only(w.manifest)}, w.file, storage.ReasonForbidden},
		{"through what is no manifest", []string{only(w.textual)}, w.layer,
			storage.ReasonForbidden},
		{"through a missing manifest", []string{only(cid.OfOCI([32]byte{9}))}, w.layer,
			storage.ReasonForbidden},
		{"another's layer through a manifest", []string{only(w.thief)}, w.bobs,
			storage.ReasonNotFound},
		{"another's with all", []string{storage.ScopeRead}, w.bobs, storage.ReasonNotFound},
		{"write is not read", []string{storage.ScopeWrite}, w.file, storage.ReasonForbidden},
		{"a job's write is not read", []string{"file:write:ucnj1x"}, w.file, storage.ReasonForbidden},
		{"other services", []string{"job", "ledger:submit"}, w.file, storage.ReasonForbidden},
		{"a prefix is no scope", []string{"file:rea", "fil", "file:read:"}, w.file,
			storage.ReasonForbidden},
		{"a malformed CID", []string{"file:read:bafynonsense"}, w.file, storage.ReasonForbidden},
		{"none", nil, w.file, storage.ReasonForbidden},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := w.session(t, test.scopes...)
			for range 2 { // the second time from what Access remembers
				err := s.Read(t.Context(), storage.Read{CID: test.read}, io.Discard)
				_, stat := s.Stat(t.Context(), test.read)
				if fault.ReasonOf(err) != test.want || fault.ReasonOf(stat) != test.want {
					t.Errorf("read: %v, stat: %v, want %q", err, stat, test.want)
				}
			}
		})
	}
}

func TestARemovedImageOpensNothing(t *testing.T) {
	w := newWorld(t)
	s := w.session(t, storage.ScopeRead+":"+w.manifest.String())
	if _, err := s.Stat(t.Context(), w.layer); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Remove(t.Context(), storagetest.Alice(), w.manifest); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(t.Context(), w.layer); !errors.Is(err, storage.ReasonForbidden) {
		t.Errorf("through a removed manifest: %v", err)
	}
}

func TestWriteScopes(t *testing.T) {
	w := newWorld(t)
	const ok = fault.Reason("")
	tests := []struct {
		name     string
		scopes   []string
		job      string
		want     fault.Reason
		labelled string
	}{
		{"all", []string{storage.ScopeWrite}, "", ok, ""},
		{"all for any job", []string{storage.ScopeWrite}, "j1", ok, "j1"},
		{"the job", []string{"file:write:j1"}, "j1", ok, "j1"},
		{"the job, not said", []string{"file:write:j1"}, "", ok, "j1"},
		{"another job", []string{"file:write:j1"}, "j2", storage.ReasonForbidden, ""},
		{"two jobs, one said", []string{"file:write:j1", "file:write:j2"}, "j2", ok, "j2"},
		{"two jobs, none said", []string{"file:write:j1", "file:write:j2"}, "",
			storage.ReasonForbidden, ""},
		{"read", []string{storage.ScopeRead}, "", storage.ReasonForbidden, ""},
		{"empty job", []string{"file:write:"}, "", storage.ReasonForbidden, ""},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := w.session(t, test.scopes...)
			stored, err := s.Put(t.Context(), storage.Put{Kind: cid.File, Job: test.job,
				Account: storagetest.Bob()}, bytes.NewReader([]byte{byte(i)}))
			if fault.ReasonOf(err) != test.want {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if err != nil {
				return
			}
			ref, err := w.store.Stat(t.Context(), storagetest.Alice(), stored.Ref.CID)
			if err != nil || ref.Job != test.labelled {
				t.Errorf("reference %+v, %v; want job %q of Alice", ref, err, test.labelled)
			}
		})
	}
}

func TestAJobsTokenDoesNothingElse(t *testing.T) {
	w := newWorld(t)
	s := w.session(t, "file:write:j1", storage.ScopeRead+":"+w.file.String())
	_, list := s.List(t.Context(), cid.CID{}, 10)
	_, usage := s.Usage(t.Context())
	remove := s.Remove(t.Context(), w.file)
	for name, err := range map[string]error{"list": list, "usage": usage, "remove": remove} {
		if !errors.Is(err, storage.ReasonForbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// It must not learn what the account holds by offering CIDs.
	_, err := s.Put(t.Context(), storage.Put{Kind: cid.OCIBlob, Expect: w.layer, SkipHeld: true},
		bytes.NewReader(nil))
	if !errors.Is(err, cid.ReasonMismatch) {
		t.Errorf("a held blob was acknowledged without its bytes: %v", err)
	}
}

// TestAJobsTokenRenamesNothing: the host of a job must not change what its owner calls things.
func TestAJobsTokenRenamesNothing(t *testing.T) {
	w := newWorld(t)
	p := storage.Put{Kind: cid.File, Name: "gone"}
	s := w.session(t, "file:write:ucnj1x")
	got, err := s.Put(t.Context(), p, strings.NewReader("a file"))
	if err != nil || !got.Held || got.Ref.Name != "" {
		t.Errorf("put what the owner holds: %+v, %v", got, err)
	}
	p.Name = "output"
	if got, err = s.Put(t.Context(), p, strings.NewReader("new")); got.Ref.Name != p.Name {
		t.Errorf("put something new: %+v, %v", got, err)
	}
}

func TestImage(t *testing.T) {
	w := newWorld(t)
	s := w.session(t, storage.ScopeRead)
	image, err := s.Image(t.Context(), w.manifest)
	if err != nil || len(image.Missing) != 0 || len(image.Manifest.Layers) != 1 {
		t.Errorf("%+v, %v", image, err)
	}
	image, err = s.Image(t.Context(), w.incomplete)
	if err != nil || len(image.Missing) != 1 {
		t.Errorf("incomplete: %+v, %v", image, err)
	}
	for _, c := range []cid.CID{w.file, w.textual} {
		if _, err := s.Image(t.Context(), c); !errors.Is(err, oci.ReasonNotImage) {
			t.Errorf("%s: %v", c, err)
		}
	}
	boom := errors.New("boom")
	w.store.FailWith(storagetest.Fail{Before: func(string) error { return boom }})
	if _, err := s.Image(t.Context(), w.manifest); !errors.Is(err, boom) {
		t.Errorf("a failing store: %v", err)
	}
}

func TestTooManyScopes(t *testing.T) {
	w := newWorld(t)
	var scopes []string
	for i := range storage.MaxScopes + 1 {
		scopes = append(scopes, fmt.Sprintf("file:write:j%d", i))
	}
	_, err := w.access.For(storage.Grant{Account: storagetest.Alice(), Scopes: scopes})
	if !errors.Is(err, storage.ReasonForbidden) {
		t.Error(err)
	}
}

func TestManyImagesAreForgotten(t *testing.T) {
	w := newWorld(t)
	for i := range 300 { // more than Access remembers
		data := manifestOf(t, []byte("{}"), []byte("layer"), []byte{byte(i), byte(i >> 8)})
		c := storagetest.MustPut(t, w.store, storage.Put{Account: storagetest.Alice(),
			Kind: cid.OCIBlob}, data).Ref.CID
		s := w.session(t, storage.ScopeRead+":"+c.String())
		if _, err := s.Stat(t.Context(), w.layer); err != nil {
			t.Fatal(err)
		}
	}
}
