package storage

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/oci"
)

// The scopes of a token this service looks at; it ignores the scopes of other services.
const (
	// ScopeAll covers both others: a scope covers what begins with it at a colon.
	ScopeAll = "file"
	// ScopeRead reads everything the account holds; with ":<cid>" only that blob and, when it is an
	// image manifest, the blobs it names.
	ScopeRead = "file:read"
	// ScopeWrite puts and removes; with ":<job id>" it only puts, labelled with that job.
	ScopeWrite = "file:write"
	// MaxScopes bounds the scopes of one token.
	MaxScopes = 64

	maxKnownImages = 256 // at most 129 CIDs each: about 1.3 MiB
)

// Grant is what a verified token allows: to act for Account within Scopes.
type Grant struct {
	Account Account
	Scopes  []string
}

// Access is the only way from a caller to a Store: it decides what a grant covers. It is safe for
// concurrent use.
type Access struct {
	store Store

	// mu guards images, a cache of what manifests name; content addressing keeps it true.
	mu     sync.Mutex
	images map[cid.CID]map[cid.CID]bool
}

// NewAccess guards store.
func NewAccess(store Store) *Access {
	return &Access{store: store, images: make(map[cid.CID]map[cid.CID]bool)}
}

// Session is a store seen through one grant. Every method first checks the scopes and answers
// ReasonForbidden when they do not cover it; the account is always the grant's.
type Session struct {
	access   *Access
	account  Account
	readAll  bool
	writeAll bool
	blobs    map[cid.CID]bool
	jobs     map[string]bool
}

// For opens a session. Scopes of other services and malformed ones grant nothing.
func (a *Access) For(g Grant) (*Session, error) {
	if len(g.Scopes) > MaxScopes {
		return nil, fault.New(fault.PermissionDenied, ReasonForbidden,
			"the token has %d scopes, at most %d", len(g.Scopes), MaxScopes)
	}
	s := &Session{access: a, account: g.Account, blobs: map[cid.CID]bool{}, jobs: map[string]bool{}}
	for _, scope := range g.Scopes {
		s.grant(scope)
	}
	return s, nil
}

// Account is whom the session acts for.
func (s *Session) Account() Account { return s.account }

func (s *Session) grant(scope string) {
	s.readAll = s.readAll || scope == ScopeRead || scope == ScopeAll
	s.writeAll = s.writeAll || scope == ScopeWrite || scope == ScopeAll
	if text, ok := strings.CutPrefix(scope, ScopeRead+":"); ok {
		if c, err := cid.Parse(text); err == nil {
			s.blobs[c] = true
		}
	}
	if job, ok := strings.CutPrefix(scope, ScopeWrite+":"); ok && job != "" && len(job) <= MaxJob {
		s.jobs[job] = true
	}
}

// Put keeps a blob for the grant's account. Under a job's scope p.Job must be that job, or empty
// when the token names a single one.
func (s *Session) Put(ctx context.Context, p Put, body io.Reader) (Stored, error) {
	p, err := s.writable(p)
	if err != nil {
		return Stored{}, err
	}
	if p.Kind == cid.Directory {
		return s.putDirectory(ctx, p, body)
	}
	p.SkipHeld = p.SkipHeld && s.readable(ctx, p.Expect) == nil
	return s.access.store.Put(ctx, p, body)
}

// writable decides whether the grant covers a put.
func (s *Session) writable(p Put) (Put, error) {
	p.Account = s.account
	if s.writeAll {
		return p, nil
	}
	p.KeepName = true // a host adds to what the account holds and changes nothing
	if p.Job == "" && len(s.jobs) == 1 {
		for job := range s.jobs {
			p.Job = job
		}
	}
	if !s.jobs[p.Job] {
		return p, forbidden(need(ScopeWrite, p.Job))
	}
	return p, nil
}

// Read writes a range of a blob to w.
func (s *Session) Read(ctx context.Context, r Read, w io.Writer) error {
	if err := s.readable(ctx, r.CID); err != nil {
		return err
	}
	r.Account = s.account
	return s.access.store.Read(ctx, r, w)
}

// Remove ends the account's reference to c; a job's scope does not cover it.
func (s *Session) Remove(ctx context.Context, c cid.CID) error {
	if !s.writeAll {
		return forbidden(ScopeWrite)
	}
	return s.access.store.Remove(ctx, s.account, c)
}

// Stat returns the account's reference to c.
func (s *Session) Stat(ctx context.Context, c cid.CID) (Ref, error) {
	if err := s.readable(ctx, c); err != nil {
		return Ref{}, err
	}
	return s.access.store.Stat(ctx, s.account, c)
}

// List returns a page of what the account holds; only for tokens that may read all of it.
func (s *Session) List(ctx context.Context, after cid.CID, limit int) ([]Ref, error) {
	if !s.readAll {
		return nil, forbidden(ScopeRead)
	}
	return s.access.store.List(ctx, s.account, after, limit)
}

// WholeAccount returns the caller's account; only for tokens that may read all of it.
func (s *Session) WholeAccount() (Account, error) {
	if !s.readAll {
		return Account{}, forbidden(ScopeRead)
	}
	return s.account, nil
}

// Usage returns what the account holds; only for tokens that may read all of it.
func (s *Session) Usage(ctx context.Context) (Usage, error) {
	if !s.readAll {
		return Usage{}, forbidden(ScopeRead)
	}
	return s.access.store.Usage(ctx, s.account)
}

// Image is a manifest with what the account lacks of it.
type Image struct {
	Manifest oci.Manifest
	// Missing are the parts that the account does not hold; a complete image has none.
	Missing []cid.CID
}

// Image reads and checks the manifest c; bytes that are no image manifest are oci.ReasonNotImage.
func (s *Session) Image(ctx context.Context, c cid.CID) (Image, error) {
	if err := s.readable(ctx, c); err != nil {
		return Image{}, err
	}
	m, err := s.access.manifest(ctx, s.account, c)
	if err != nil {
		return Image{}, err
	}
	image := Image{Manifest: m}
	for _, part := range m.Parts() {
		_, err := s.access.store.Stat(ctx, s.account, part.CID)
		switch {
		case fault.ReasonOf(err) == ReasonNotFound:
			image.Missing = append(image.Missing, part.CID)
		case err != nil:
			return Image{}, fmt.Errorf("stat a part of image %s: %w", c, err)
		}
	}
	return image, nil
}

// readable decides whether the grant covers reading c. That the account holds c is the store's to
// say: a manifest naming another account's blobs opens nothing.
func (s *Session) readable(ctx context.Context, c cid.CID) error {
	if s.readAll || s.blobs[c] {
		return nil
	}
	if c.Kind() != cid.OCIBlob {
		return forbidden(need(ScopeRead, c.String()))
	}
	for image := range s.blobs {
		named, err := s.access.parts(ctx, s.account, image)
		if err != nil {
			return err
		}
		if named[c] {
			return nil
		}
	}
	return forbidden(need(ScopeRead, c.String()))
}

// parts returns what the manifest image names; nothing when it is no manifest of the account.
func (a *Access) parts(ctx context.Context, owner Account, image cid.CID) (map[cid.CID]bool,
	error,
) {
	if image.Kind() != cid.OCIBlob {
		return nil, nil
	}
	if _, err := a.store.Stat(ctx, owner, image); err != nil {
		return nil, unless(err, ReasonNotFound)
	}
	a.mu.Lock()
	named, known := a.images[image]
	a.mu.Unlock()
	if known {
		return named, nil
	}
	m, err := a.manifest(ctx, owner, image)
	if err != nil {
		return nil, unless(unless(err, oci.ReasonNotImage), ReasonNotFound)
	}
	named = make(map[cid.CID]bool, 1+len(m.Layers))
	for _, part := range m.Parts() {
		named[part.CID] = true
	}
	a.remember(image, named)
	return named, nil
}

func (a *Access) remember(image cid.CID, named map[cid.CID]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for old := range a.images {
		if len(a.images) < maxKnownImages {
			break
		}
		delete(a.images, old)
	}
	a.images[image] = named
}

func (a *Access) manifest(ctx context.Context, owner Account, c cid.CID) (oci.Manifest, error) {
	ref, err := a.store.Stat(ctx, owner, c)
	if err != nil {
		return oci.Manifest{}, err
	}
	if c.Kind() != cid.OCIBlob || ref.Size > oci.MaxManifest {
		return oci.Manifest{}, oci.NotImage("%s is a %s of %d bytes", c, c.Kind(), ref.Size)
	}
	var b bytes.Buffer
	if err := a.store.Read(ctx, Read{Account: owner, CID: c}, &b); err != nil {
		return oci.Manifest{}, fmt.Errorf("read manifest: %w", err)
	}
	return oci.ParseManifest(c, b.Bytes())
}

// need names a scope, narrowed when there is something to narrow it to.
func need(scope, to string) string {
	if to == "" {
		return scope
	}
	return scope + ":" + to
}

// unless drops err when it has the given reason.
func unless(err error, reason fault.Reason) error {
	if fault.ReasonOf(err) == reason {
		return nil
	}
	return err
}
