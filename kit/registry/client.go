package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/united-containers/ucn/kit/cid"
)

// Bounds of what is taken from a registry.
const (
	MaxReference   = 512      // bytes of a reference
	MaxManifest    = 4 << 20  // bytes of a manifest, index, config or token
	MaxLayers      = 127      // of one image
	MaxPacked      = 16 << 30 // bytes of an image as it travels
	MaxCredentials = 8        // at once, one for each host
	maxTries       = 5        // for one manifest or blob
	firstPause     = 200 * time.Millisecond
	documentWait   = time.Minute // for one manifest, config or token
	pullWait       = time.Hour   // for a whole image, however slowly it comes
)

// Options of a Client. The zero value reads public registries over TLS.
type Options struct {
	// Private allows registries on this host and on private networks.
	Private bool
	// Insecure names hosts ("registry.example.org:5000") that are spoken to without TLS.
	Insecure []string
	// MaxPacked bounds an image, in bytes. 0 is the constant of that name.
	MaxPacked int64
}

// Credential is what one registry wants to see.
type Credential struct {
	Host     string // with port, as references spell it
	Username string
	Password string // or access token
}

// String tells no secret.
func (c Credential) String() string { return c.Host }

// Client reads from registries. Safe for concurrent use. Close it.
type Client struct {
	guard *guard
	o     Options
}

// New returns a client; it connects to nothing yet.
func New(o Options) *Client {
	if o.MaxPacked == 0 {
		o.MaxPacked = MaxPacked
	}
	return &Client{guard: newGuard(o), o: o}
}

// Close lets go of idle connections.
func (c *Client) Close() error {
	c.guard.inner.CloseIdleConnections()
	return nil
}

// Platform returns what this machine runs, such as "linux/amd64".
func Platform() string { return "linux/" + runtime.GOARCH }

// Host returns the registry's host that a reference means, with its port if it names one.
func Host(reference string) (string, error) {
	repo, _, err := parse(reference)
	if err != nil {
		return "", err
	}
	return repo.RegistryStr(), nil
}

// Repository returns the registry and the repository that a reference means, spelled in one way.
func Repository(reference string) (string, error) {
	repo, _, err := parse(reference)
	if err != nil {
		return "", err
	}
	return repo.Name(), nil
}

// Source names where an image comes from and with whose right: the repository that a reference
// means, and a digest of the credential that its registry is shown, if any. References that differ
// in tag or spelling alone are of one source. It tells no secret.
func Source(reference string, with ...Credential) (string, error) {
	repo, _, err := parse(reference)
	if err != nil {
		return "", err
	}
	auth, err := authFor(repo.RegistryStr(), with)
	if err != nil {
		return "", err
	}
	right, ok := auth.(*authn.Basic)
	if !ok {
		return repo.Name(), nil
	}
	h := sha256.New()
	// A hash never fails.
	_, _ = fmt.Fprintf(h, "%d:%s%s", len(right.Username), right.Username, right.Password)
	return fmt.Sprintf("%s as %x", repo.Name(), h.Sum(nil)), nil
}

// Check tells whether a reference and the digest it is pinned to can be read.
func Check(reference, digest string) error {
	_, err := pinned(reference, digest)
	return err
}

// Resolve returns the digest ("sha256:...") that reference names now, checked against the bytes
// that the registry gives. Of an index it is the index's own when platform is "", else that of the
// image for platform ("linux/amd64", "linux/arm/v7"). Faults: the reasons of this package, and
// oci.ReasonPlatform.
func (c *Client) Resolve(ctx context.Context, reference, platform string, with ...Credential,
) (string, error) {
	repo, label, err := parse(reference)
	if err != nil {
		return "", err
	}
	s, err := c.session(ctx, repo, with)
	if err != nil {
		return "", err
	}
	raw, err := s.manifest(ctx, label)
	if err != nil {
		return "", err
	}
	digest := digestOf(raw)
	if platform == "" {
		return digest, nil
	}
	found, _, err := s.choose(ctx, digest, raw, platform)
	return found, err
}

// Named is what a reference names.
type Named struct {
	// Digest is the manifest's, or the index's, as of Resolve.
	Digest string
	// Platforms are what it has images for, such as "linux/amd64", each once. None when they are not
	// told, or not of each image.
	Platforms []string
}

// Describe resolves a reference as Resolve does, and tells for which platforms it has images.
func (c *Client) Describe(ctx context.Context, reference string, with ...Credential,
) (Named, error) {
	repo, label, err := parse(reference)
	if err != nil {
		return Named{}, err
	}
	s, err := c.session(ctx, repo, with)
	if err != nil {
		return Named{}, err
	}
	raw, err := s.manifest(ctx, label)
	if err != nil {
		return Named{}, err
	}
	platforms, err := s.platforms(ctx, raw)
	return Named{digestOf(raw), platforms}, err
}

// MayRead asks the registry whether it gives the image to whoever has these credentials: its
// manifest is read and checked against the digest. Ask only a repository that has served all of the
// image before (WriteLayout): a manifest is no secret, and proves nothing of the layers.
func (c *Client) MayRead(ctx context.Context, reference, digest string, with ...Credential) error {
	repo, err := pinned(reference, digest)
	if err != nil {
		return err
	}
	s, err := c.session(ctx, repo, with)
	if err != nil {
		return err
	}
	return s.holds(ctx, digest)
}

// parse splits a reference into repository, and tag or digest.
func parse(reference string) (name.Repository, string, error) {
	if reference == "" || len(reference) > MaxReference {
		return name.Repository{}, "", refuse(ReasonReference,
			"an image reference has 1 to %d bytes, this one %d", MaxReference, len(reference))
	}
	ref, err := name.ParseReference(reference)
	if err != nil {
		return name.Repository{}, "", refuse(ReasonReference, "%.200q is no image reference",
			reference)
	}
	label := ref.Identifier()
	if strings.Contains(reference, "@") {
		if _, err := cid.ParseDigest(label); err != nil {
			return name.Repository{}, "", refuse(ReasonReference, "digest %.100q is no sha256", label)
		}
	}
	return ref.Context(), label, nil
}

func pinned(reference, digest string) (name.Repository, error) {
	repo, label, err := parse(reference)
	if err != nil {
		return repo, err
	}
	if _, err := cid.ParseDigest(digest); err != nil {
		return repo, refuse(ReasonReference, "digest %.100q is no sha256", digest)
	}
	if strings.Contains(reference, "@") && label != digest {
		return repo, refuse(ReasonReference, "the reference names another digest than %s", digest)
	}
	return repo, nil
}

// session reads from one repository with one right.
type session struct {
	repo   name.Repository
	scheme string
	client *http.Client
	o      Options
}

// session asks the registry how it wants to be asked, within the tries.
func (c *Client) session(ctx context.Context, repo name.Repository, with []Credential,
) (*session, error) {
	host := repo.RegistryStr()
	s := &session{repo: repo, scheme: "https", o: c.o}
	reg := repo.Registry
	if slices.Contains(c.o.Insecure, host) {
		var err error
		if reg, err = name.NewRegistry(host, name.Insecure); err != nil {
			return nil, refuse(ReasonReference, "%.100q is no registry", host)
		}
		s.scheme = "http"
	}
	auth, err := authFor(host, with)
	if err != nil {
		return nil, err
	}
	err = retry(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, documentWait)
		defer cancel()
		t, err := transport.NewWithContext(ctx, reg, auth, c.guard,
			[]string{repo.Scope(transport.PullScope)})
		var said *transport.Error
		if errors.As(err, &said) {
			return verdict(host, said.StatusCode)
		}
		if err != nil {
			return asFault(host, err)
		}
		s.client = &http.Client{Transport: t}
		return nil
	})
	return s, err
}

func authFor(host string, with []Credential) (authn.Authenticator, error) {
	if len(with) > MaxCredentials {
		return nil, refuse(ReasonReference, "%d registry credentials, at most %d", len(with),
			MaxCredentials)
	}
	for _, one := range with {
		reg, err := name.NewRegistry(one.Host)
		if err != nil {
			return nil, refuse(ReasonReference, "a registry credential's host %.100q is none", one.Host)
		}
		if reg.RegistryStr() == host {
			return &authn.Basic{Username: one.Username, Password: one.Password}, nil
		}
	}
	return authn.Anonymous, nil
}

// verdict says what a status code means; nil when it is success.
func verdict(host string, code int) error {
	switch {
	case code == http.StatusOK || code == http.StatusPartialContent:
		return nil
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return refuse(ReasonDenied, "registry %.100s does not give this image to the credentials "+
			"at hand", host)
	case code == http.StatusNotFound:
		return refuse(ReasonNotFound, "registry %.100s has no such image or layer", host)
	}
	return unavailable(host, fmt.Errorf("status %d", code))
}

// get opens what is under path: the part that is asked for ("bytes=5-9"), or all of it when "".
func (s *session) get(ctx context.Context, path, part string) (*http.Response, error) {
	url := s.scheme + "://" + s.repo.RegistryStr() + "/v2/" + s.repo.RepositoryStr() + "/" + path
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, refuse(ReasonReference, "the reference makes no address")
	}
	if strings.HasPrefix(path, "manifests/") {
		r.Header["Accept"] = []string{strings.Join(manifestTypes(), ", ")}
	}
	if part != "" {
		r.Header.Set("Range", part)
	}
	answer, err := s.client.Do(r)
	if err != nil {
		return nil, asFault(s.repo.RegistryStr(), err)
	}
	if err := verdict(s.repo.RegistryStr(), answer.StatusCode); err != nil {
		return nil, errors.Join(err, answer.Body.Close())
	}
	return answer, nil
}

// manifest reads a manifest or index by tag or digest, whole and checked.
func (s *session) manifest(ctx context.Context, label string) ([]byte, error) {
	var raw bytes.Buffer
	if err := s.document(ctx, "manifests/"+label, &raw); err != nil {
		return nil, err
	}
	if got := digestOf(raw.Bytes()); strings.Contains(label, ":") && got != label {
		return nil, refuse(ReasonMismatch, "the registry gives %s for %s", got, label)
	}
	return raw.Bytes(), nil
}

// holds checks that the registry gives the manifest with the digest. Nothing of it is kept: many
// may be asked at once.
func (s *session) holds(ctx context.Context, digest string) error {
	sum := sha256.New()
	if err := s.document(ctx, "manifests/"+digest, sum); err != nil {
		return err
	}
	if got := fmt.Sprintf("sha256:%x", sum.Sum(nil)); got != digest {
		return refuse(ReasonMismatch, "the registry gives %s for %s", got, digest)
	}
	return nil
}

// document reads a manifest to w, anew at each try.
func (s *session) document(ctx context.Context, path string, w resetWriter) error {
	n := int64(0)
	err := retry(ctx, func() error {
		w.Reset()
		ctx, cancel := context.WithTimeout(ctx, documentWait)
		defer cancel()
		answer, err := s.get(ctx, path, "")
		if err != nil {
			return err
		}
		n, err = io.Copy(w, io.LimitReader(answer.Body, MaxManifest+1))
		if err = errors.Join(err, answer.Body.Close()); err != nil {
			return asFault(s.repo.RegistryStr(), err)
		}
		return nil
	})
	if err == nil && n > MaxManifest {
		err = refuse(ReasonTooLarge, "the manifest has more than %d bytes", MaxManifest)
	}
	return err
}

// resetWriter is a buffer or a hash.
type resetWriter interface {
	io.Writer
	Reset()
}

// retry tries until it succeeds, a refusal is lasting, or the tries are used up.
func retry(ctx context.Context, try func() error) error {
	wait := firstPause
	for n := 1; ; n++ {
		err := try()
		if err == nil || lasting(err) || n == maxTries {
			return err
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
		wait *= 2
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
