package jobrun

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/united-containers/ucn/chain/job"
	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/oci"
	"github.com/united-containers/ucn/kit/registry"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
)

// Resolver says what an image reference names now; *registry.Client is one.
type Resolver interface {
	Describe(ctx context.Context, reference string, with ...registry.Credential) (registry.Named,
		error)
}

// lookWait bounds the look at an image of storage. It is only for placing the job better.
const lookWait = 5 * time.Second

// pin resolves an image reference before the job is signed, so that what runs is what was signed.
// The digest is that of the whole index: each host takes its platform's image from it. When the
// owner names no platforms, the job goes to hosts that the image has something for.
func (r *Runner) pin(ctx context.Context, q *Request) error {
	platforms, err := r.look(ctx, q)
	if err != nil {
		return err
	}
	if len(q.File.Placement.Platforms) == 0 && len(platforms) <= job.MaxPlaces {
		q.File.Placement.Platforms = platforms
	}
	return nil
}

// look pins a reference that is not, and returns the platforms of the image as far as it can be
// read. A reference that is pinned is not asked for: its registry may answer hosts alone.
func (r *Runner) look(ctx context.Context, q *Request) (platforms []string, err error) {
	switch {
	case !jobfile.IsReference(q.File.Image):
		if len(q.File.Placement.Platforms) > 0 {
			return nil, nil
		}
		return r.stored(ctx, q.File.Image), nil
	case q.File.Digest != "":
		return nil, nil
	}
	resolver := r.Registry
	if resolver == nil {
		// The user's own machine may look at the user's own registries.
		client := registry.New(registry.Options{Private: true, Insecure: q.Insecure})
		defer func() { err = errors.Join(err, client.Close()) }()
		resolver = client
	}
	named, err := resolver.Describe(ctx, q.File.Image, q.Credentials...)
	if err != nil {
		return nil, fmt.Errorf("resolve the image %s: %w", q.File.Image, err)
	}
	q.File.Digest = named.Digest
	return named.Platforms, nil
}

// stored returns the platform of an image that storage holds for this account. What cannot be read
// is for hosts to judge.
func (r *Runner) stored(ctx context.Context, name string) []string {
	image, err := cid.Parse(name)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	platform, err := oci.ReadPlatform(ctx, image, blob.New(r.Session.Storage))
	if err != nil || platform.String() == "" {
		return nil
	}
	return []string{platform.String()}
}

// registryCredentials are the credentials as the host gets them.
func (e *errand) registryCredentials() (list []*executorv1.RegistryCredential) {
	for _, c := range e.credentials {
		list = append(list, &executorv1.RegistryCredential{
			Host: c.Host, Username: c.Username, Password: []byte(c.Password),
		})
	}
	return list
}
