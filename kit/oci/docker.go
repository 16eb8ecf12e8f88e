package oci

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
)

const (
	dockerFile   = "manifest.json"
	maxDockerTag = 256 // images, and tags of one image, in one docker archive
)

// dockerImage is one entry of manifest.json in a docker archive.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// openDocker converts the image that o picks out of a docker archive. Config and layers keep their
// bytes, and with them their digests; compression of a layer is recognised by its first bytes.
func openDocker(ctx context.Context, from files, o Options) (*Image, error) {
	var offered []dockerImage
	data, err := load(from, dockerFile, MaxManifest)
	if err != nil {
		return nil, missingFile(dockerFile, err)
	}
	if err := decodeOne(data, &offered); err != nil {
		return nil, badArchive("%s: %v", dockerFile, err)
	}
	chosen, err := pickDocker(offered, o.Name)
	if err != nil {
		return nil, err
	}
	if len(chosen.Layers) > MaxLayers {
		return nil, NotImage("%d layers, at most %d", len(chosen.Layers), MaxLayers)
	}
	i := &Image{files: from, layers: map[cid.CID]file{}}
	if err := i.loadConfig(chosen.Config); err != nil {
		return nil, err
	}
	layers, err := i.dockerLayers(ctx, chosen.Layers, o.MaxSize)
	if err != nil {
		return nil, err
	}
	config := v1.Descriptor{Digest: digest.FromBytes(i.config), Size: int64(len(i.config))}
	if i.raw, err = encodeManifest(config, layers); err != nil {
		return nil, err
	}
	if i.Manifest, err = ParseManifest(sumOf(i.raw), i.raw); err != nil {
		return nil, err
	}
	return i, i.check(ctx, o)
}

func pickDocker(offered []dockerImage, name string) (dockerImage, error) {
	if len(offered) == 0 || len(offered) > maxDockerTag {
		return dockerImage{}, badArchive("it holds %d images, 1 to %d", len(offered), maxDockerTag)
	}
	if len(offered) == 1 {
		return offered[0], nil
	}
	var names []string
	for _, image := range offered {
		for _, tag := range image.RepoTags[:min(len(image.RepoTags), maxDockerTag)] {
			if matches(tag, name) {
				return image, nil
			}
			names = append(names, tag)
		}
	}
	return dockerImage{}, ambiguous(strings.Join(names[:min(len(names), 10)], ", "))
}

// loadConfig reads the config and, when its file is named by a hash, verifies it.
func (i *Image) loadConfig(name string) (err error) {
	if i.config, err = load(i.files, name, MaxConfig); err != nil {
		return missingFile(name, err)
	}
	named, err := hex.DecodeString(strings.TrimSuffix(path.Base(name), ".json"))
	if err == nil && len(named) == cid.SumSize {
		want, got := cid.OfOCI([cid.SumSize]byte(named)), sumOf(i.config)
		if want != got {
			return fmt.Errorf("config: %w", cid.Mismatch(want, got))
		}
	}
	return nil
}

func (i *Image) dockerLayers(ctx context.Context, names []string, maxSize int64,
) ([]v1.Descriptor, error) {
	var config v1.Image
	if err := decodeOne(i.config, &config); err != nil {
		return nil, NotImage("config: %v", err)
	}
	if len(config.RootFS.DiffIDs) != len(names) {
		return nil, NotImage("its config lists %d layers, the archive %d",
			len(config.RootFS.DiffIDs), len(names))
	}
	layers := make([]v1.Descriptor, len(names))
	for n, name := range names {
		f, err := i.files.find(name)
		if err != nil {
			return nil, missingFile(name, err)
		}
		l, err := i.hashLayer(ctx, f, maxSize)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", n, err)
		}
		if diff := string(config.RootFS.DiffIDs[n]); l.diff != diff {
			return nil, fault.New(fault.InvalidArgument, cid.ReasonMismatch,
				"layer %d unpacks to %s, its config says %.80s", n, l.diff, diff)
		}
		i.layers[l.cid] = f
		layers[n] = v1.Descriptor{MediaType: l.mediaType, Size: f.size,
			Digest: digest.Digest(l.cid.Digest())}
	}
	return layers, nil
}

// hashed is what a layer turned out to be: its name as it is stored and the digest unpacked.
type hashed struct {
	cid       cid.CID
	diff      string
	mediaType string
}

func (i *Image) hashLayer(ctx context.Context, f file, maxSize int64) (_ hashed, err error) {
	r, err := i.files.open(f)
	if err != nil {
		return hashed{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	stored := sha256.New()
	in := bufio.NewReader(io.TeeReader(stopping{ctx, r}, stored))
	start, err := in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return hashed{}, err
	}
	h := hashed{mediaType: v1.MediaTypeImageLayer}
	unpacked := io.Reader(in)
	switch kind := compression(start); kind {
	case "":
	case "gzip":
		h.mediaType = v1.MediaTypeImageLayerGzip
		if unpacked, err = gzip.NewReader(in); err != nil {
			return hashed{}, badArchive("gzip: %v", err)
		}
	default:
		return hashed{}, badArchive("layers of a docker archive are plain or gzip, not %s", kind)
	}
	diff, n, err := cid.Sum(cid.OCIBlob, io.LimitReader(unpacked, maxSize+1))
	if err != nil {
		return hashed{}, badArchive("unpack: %v", err)
	}
	if n > maxSize {
		return hashed{}, badArchive("it unpacks to more than %d bytes", maxSize)
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return hashed{}, err
	}
	h.diff = diff.Digest()
	h.cid = cid.OfOCI([cid.SumSize]byte(stored.Sum(nil)))
	return h, nil
}

// sumOf names bytes as an OCI blob.
func sumOf(b []byte) cid.CID { return cid.OfOCI(sha256.Sum256(b)) }
