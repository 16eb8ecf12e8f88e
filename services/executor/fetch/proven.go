package fetch

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/united-containers/ucn/kit/durable"
	"github.com/united-containers/ucn/kit/registry"
	"github.com/united-containers/ucn/services/executor"
)

// Bounds of what is remembered of registries.
const (
	maxSources = 16   // repositories of one image; the oldest is forgotten
	maxProven  = 4096 // images; those proven longest ago are forgotten
	provenDir  = ".images"
)

// proven remembers which repositories have served all of an image to this host, byte for byte. Who
// may read its manifest there may have the image; a repository that only knows the manifest proves
// nothing, as anybody can serve that. It is true for ever, so it is kept on disk.
type proven struct {
	dir string

	mu sync.Mutex // guards what follows, and the files
	// proving ends the proofs under way of an image in a repository: one is enough.
	proving map[string]map[*proof]struct{}
}

// proof is one attempt to read an image whole, or to come to its turn.
type proof struct{ end context.CancelFunc }

// sources are the repositories of one image.
type sources struct {
	Repositories []string `json:"repositories"` // oldest first
}

func newProven(dir string) *proven {
	return &proven{dir: filepath.Join(dir, provenDir),
		proving: map[string]map[*proof]struct{}{}}
}

func (p *proven) path(digest string) string {
	return filepath.Join(p.dir, strings.TrimPrefix(digest, "sha256:"))
}

// read returns what is remembered of an image. What cannot be read was never proven.
func (p *proven) read(digest string) (s sources) {
	b, err := os.ReadFile(p.path(digest))
	if err != nil || json.Unmarshal(b, &s) != nil {
		return sources{}
	}
	return s
}

func (p *proven) has(digest, repository string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.read(digest).Repositories, repository)
}

// add remembers a repository that served all of the image.
func (p *proven) add(digest, repository string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.read(digest)
	if slices.Contains(s.Repositories, repository) {
		return nil
	}
	s.Repositories = append(s.Repositories, repository)
	s.Repositories = s.Repositories[max(0, len(s.Repositories)-maxSources):]
	b, err := json.Marshal(s)
	if err == nil {
		err = os.MkdirAll(p.dir, 0o700)
	}
	if err == nil {
		err = errors.Join(p.makeRoom(), durable.Replace(p.path(digest), b, durable.Private))
	}
	if err != nil {
		return fmt.Errorf("remember the source of an image: %w", err)
	}
	for one := range p.proving[digest+" "+repository] {
		one.end()
	}
	return nil
}

// makeRoom forgets the oldest images when there are too many, a quarter at once.
func (p *proven) makeRoom() error {
	list, err := os.ReadDir(p.dir)
	if err != nil || len(list) < maxProven {
		return err
	}
	at := func(e fs.DirEntry) int64 {
		info, err := e.Info()
		if err != nil {
			return 0
		}
		return info.ModTime().UnixNano()
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return cmp.Compare(at(a), at(b)) })
	for _, e := range list[:maxProven/4] {
		err = errors.Join(err, os.Remove(filepath.Join(p.dir, e.Name())))
	}
	return err
}

// begin notes a proof that ends when anybody's is done. Nobody waits for another one's: who has no
// turn of his own, or reads slowly, would hold up all others of that repository.
func (p *proven) begin(ctx context.Context, key string) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	one := &proof{cancel}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.proving[key] == nil {
		p.proving[key] = map[*proof]struct{}{}
	}
	p.proving[key][one] = struct{}{}
	return ctx, func() {
		cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		if delete(p.proving[key], one); len(p.proving[key]) == 0 {
			delete(p.proving, key)
		}
	}
}

// checkSource asks a registry whether the holder of the task's credentials may have an image that
// is held here. One that did not serve it to this host yet must serve all of it now.
func (f *Files) checkSource(ctx context.Context, want executor.FetchImage) error {
	digest, err := want.ID.Digest()
	if err != nil {
		return err
	}
	repository, err := registry.Repository(want.Reference)
	if err != nil {
		return err
	}
	if !f.proven.has(digest, repository) {
		work, leave := f.proven.begin(ctx, digest+" "+repository)
		defer leave()
		if !f.proven.has(digest, repository) { // else somebody's was done just before
			if err := f.prove(work, want); err == nil || !f.proven.has(digest, repository) {
				return err
			}
		}
	}
	return f.registry.MayRead(ctx, want.Reference, digest, credentials(want)...)
}

// prove reads an image whole, in its turn.
func (f *Files) prove(ctx context.Context, want executor.FetchImage) error {
	open := func(ctx context.Context) (io.ReadCloser, error) {
		return f.OpenImage(ctx, executor.FileAccess{}, want)
	}
	turn := want.Turn
	if turn == nil {
		turn = func(ctx context.Context, open executor.OpenLayout) (io.ReadCloser, error) {
			return open(ctx)
		}
	}
	r, err := turn(ctx, open)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}

// fetchLayout writes an image of a registry to w, and remembers where it came from.
func (f *Files) fetchLayout(
	ctx context.Context, w io.Writer, want executor.FetchImage, digest string,
) error {
	err := f.registry.WriteLayout(ctx, w, registry.Image{Reference: want.Reference, Digest: digest,
		Platform: registry.Platform()}, credentials(want)...)
	if err != nil {
		return err
	}
	repository, err := registry.Repository(want.Reference)
	if err != nil {
		return err
	}
	return f.proven.add(digest, repository)
}
