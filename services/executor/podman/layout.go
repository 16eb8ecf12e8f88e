package podman

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/united-containers/ucn/kit/oci"
	"github.com/united-containers/ucn/services/executor"
)

// Bounds of an image layout.
const (
	maxDocument  = 4 << 20  // bytes of a manifest, index or config
	maxDocuments = 32 << 20 // bytes of everything in a layout that might be one
	maxBlobs     = 4096     // entries of a layout
)

// layoutFilter copies an OCI image layout tar and believes nothing of it: every blob must hash to
// its name, only blobs pass, and the index is written anew to name the one manifest that was asked
// for. So names, annotations, links and odd paths in the source reach nobody.
//
// The engine knows an image by its config alone, so a config must make sure of the layers: each
// must unpack to what the config's diff_ids say. Else an image with another one's config would
// block it on this host, or pass for it. The engine makes files of layers as root, so a layer may
// hold files, folders and links only.
type layoutFilter struct {
	layoutLimits
	left int64 // bytes that the blobs may still unpack to

	in        *tar.Reader
	out       *tar.Writer
	documents map[string][]byte       // by hex digest; what is small enough to be a manifest
	kept      int                     // bytes in documents
	seen      map[string]oci.Unpacked // by hex digest
}

// layoutLimits say what is asked for and how much it may be.
type layoutLimits struct {
	want string // digest of the manifest or index
	most int64  // bytes that its layers may unpack to, each as often as it is named
	// room is asked before the last of the image is passed on, with what its layers take on a disk in
	// bytes and files, each as often as it is named; an error ends it. Nil is not asked.
	room func(disk, files uint64) error
	// comes is told how many bytes follow, before a blob is passed on; nil is not.
	comes func(bytes uint64)
}

// filterLayout copies the layout in r to w and returns the digest of the image's config. Bytes that
// do not match are executor.ErrImageMismatch; what the source says of itself is passed on. Each
// blob is unpacked once on the way, only to count: the engine unpacks what has arrived whole, so a
// bomb is refused before it takes disk.
func filterLayout(w io.Writer, r io.Reader, limits layoutLimits) (config string, err error) {
	f := &layoutFilter{
		layoutLimits: limits, left: limits.most, in: tar.NewReader(r), out: tar.NewWriter(w),
		documents: make(map[string][]byte), seen: make(map[string]oci.Unpacked),
	}
	for range maxBlobs {
		h, err := f.in.Next()
		if errors.Is(err, io.EOF) {
			return f.finish()
		}
		if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
			return "", fmt.Errorf("%w: reading the image layout: %w", executor.ErrImageMismatch, err)
		}
		if err != nil {
			return "", fmt.Errorf("reading the image layout: %w", err)
		}
		if err := f.entry(h); err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("%w: more than %d entries in the layout", executor.ErrImageMismatch,
		maxBlobs)
}

// entry copies one blob; other entries are dropped.
func (f *layoutFilter) entry(h *tar.Header) error {
	sum, ok := strings.CutPrefix(path.Clean(h.Name), "blobs/sha256/")
	if _, again := f.seen[sum]; again || h.Typeflag != tar.TypeReg || !ok || len(sum) != 64 {
		return nil
	}
	if f.comes != nil {
		f.comes(uint64(max(h.Size, 0)))
	}
	head := &tar.Header{Name: "blobs/sha256/" + sum, Mode: 0o644, Size: h.Size}
	if err := f.out.WriteHeader(head); err != nil {
		return fmt.Errorf("writing the image layout: %w", err)
	}
	var doc bytes.Buffer
	var to io.Writer = f.out
	if h.Size <= maxDocument && f.kept+int(h.Size) <= maxDocuments {
		to = io.MultiWriter(f.out, &doc)
	}
	if err := f.copy(to, sum); err != nil {
		return err
	}
	if doc.Len() > 0 && doc.Bytes()[0] == '{' {
		f.documents[sum] = doc.Bytes()
		f.kept += doc.Len()
	}
	return nil
}

// copy passes the bytes of one blob on, and learns what they are.
func (f *layoutFilter) copy(to io.Writer, sum string) error {
	hash, unpacker := sha256.New(), oci.NewUnpacker(f.left)
	_, err := io.Copy(io.MultiWriter(to, hash, unpacker), f.in)
	unpacked, bad := unpacker.Close()
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the layout ends in the midst of blob %s", executor.ErrImageMismatch, sum)
	case errors.Is(bad, oci.ReasonTooLarge):
		return fmt.Errorf("%w: blob %s: %w", executor.ErrUnsupported, sum, bad)
	case bad != nil && (err == nil || errors.Is(err, bad)):
		return fmt.Errorf("%w: blob %s: %w", executor.ErrImageMismatch, sum, bad)
	case err != nil:
		return fmt.Errorf("copying the image layout: %w", err)
	}
	if got := fmt.Sprintf("%x", hash.Sum(nil)); got != sum {
		return fmt.Errorf("%w: blob %s hashes to %s", executor.ErrImageMismatch, sum, got)
	}
	f.seen[sum] = unpacked
	f.left -= unpacked.Size
	return nil
}

// finish writes the index for the manifest asked for, and tells its config.
func (f *layoutFilter) finish() (string, error) {
	digest, m, err := f.manifest(f.want, true)
	if err != nil {
		return "", err
	}
	if err := f.layers(m); err != nil {
		return "", err
	}
	if f.room != nil {
		if err := f.room(f.takes(m)); err != nil {
			return "", fmt.Errorf("making room: %w", err)
		}
	}
	kind := m.MediaType
	if kind == "" {
		kind = v1.MediaTypeImageManifest
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{map[string]any{
		"mediaType": kind, "digest": digest,
		"size": len(f.documents[strings.TrimPrefix(digest, "sha256:")]),
	}}})
	if err != nil {
		return "", fmt.Errorf("writing the image layout: %w", err)
	}
	err = errors.Join(f.document("index.json", index),
		f.document("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)), f.out.Close())
	if err != nil {
		return "", fmt.Errorf("writing the image layout: %w", err)
	}
	return m.Config.Digest, nil
}

// layers checks that the layers are here, and that they are the ones that the config names.
func (f *layoutFilter) layers(m oci.Document) error {
	raw, ok := f.documents[strings.TrimPrefix(m.Config.Digest, "sha256:")]
	if !ok {
		return fmt.Errorf("%w: config %.80q of the image is not in the layout",
			executor.ErrImageMismatch, m.Config.Digest)
	}
	config, err := oci.ReadConfig(raw)
	if err != nil {
		return fmt.Errorf("%w: config: %w", executor.ErrImageMismatch, err)
	}
	if len(config.RootFS.DiffIDs) != len(m.Layers) {
		return fmt.Errorf("%w: %d layers, and %d in the config", executor.ErrImageMismatch,
			len(m.Layers), len(config.RootFS.DiffIDs))
	}
	left := f.most
	for n, d := range m.Layers {
		got, ok := f.seen[strings.TrimPrefix(d.Digest, "sha256:")]
		if !ok {
			return fmt.Errorf("%w: blob %.80q of the image is not in the layout",
				executor.ErrImageMismatch, d.Digest)
		}
		if want := config.RootFS.DiffIDs[n]; got.DiffID != want {
			return fmt.Errorf("%w: layer %d unpacks to %s, and the config says %.80q",
				executor.ErrImageMismatch, n, got.DiffID, want)
		}
		if got.Refused != nil {
			return fmt.Errorf("%w: layer %d: %w", executor.ErrUnsupported, n, got.Refused)
		}
		if left -= got.Size; left < 0 {
			return fmt.Errorf("%w: the image unpacks to more than %d bytes", executor.ErrUnsupported,
				f.most)
		}
	}
	return nil
}

// takes returns what the layers take on a disk.
func (f *layoutFilter) takes(m oci.Document) (disk, files uint64) {
	for _, d := range m.Layers {
		layer := f.seen[strings.TrimPrefix(d.Digest, "sha256:")]
		disk += uint64(layer.Disk)
		files += uint64(layer.Files)
	}
	return disk, files
}

func (f *layoutFilter) document(name string, b []byte) error {
	err := f.out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(b))})
	if err == nil {
		_, err = f.out.Write(b)
	}
	return err
}

// manifest finds the image manifest with the digest, or, if that is an index, the one for this
// platform in it.
func (f *layoutFilter) manifest(digest string, index bool) (string, oci.Document, error) {
	b, ok := f.documents[strings.TrimPrefix(digest, "sha256:")]
	if !ok {
		return "", oci.Document{}, fmt.Errorf("%w: the layout does not hold %.80q",
			executor.ErrImageMismatch, digest)
	}
	m, err := oci.ReadDocument(b)
	if err != nil {
		return "", m, fmt.Errorf("%w: %.80q: %w", executor.ErrImageMismatch, digest, err)
	}
	if index && len(m.Manifests) > 0 {
		for _, d := range m.Manifests {
			if p := d.Platform; p != nil && p.OS == runtime.GOOS && p.Architecture == runtime.GOARCH {
				return f.manifest(d.Digest, false)
			}
		}
		return "", m, fmt.Errorf("%w: the image has no manifest for %s/%s", executor.ErrUnsupported,
			runtime.GOOS, runtime.GOARCH)
	}
	if m.Config.Digest == "" {
		return "", m, fmt.Errorf("%w: %s is no image manifest", executor.ErrImageMismatch, digest)
	}
	return digest, m, nil
}
