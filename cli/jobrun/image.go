package jobrun

import (
	"context"
	"errors"
	"fmt"

	"github.com/united-containers/ucn/cli/jobfile"
	"github.com/united-containers/ucn/kit/registry"
	executorv1 "github.com/united-containers/ucn/proto/ucn/executor/v1"
)

// Resolver says which digest an image reference names now; *registry.Client is one.
type Resolver interface {
	Resolve(ctx context.Context, reference, platform string, with ...registry.Credential) (string,
		error)
}

// pin resolves an image reference before the job is signed, so that what runs is what was signed.
// The digest is that of the whole index: each host takes its platform's image from it.
func (r *Runner) pin(ctx context.Context, q *Request) (err error) {
	if !jobfile.IsReference(q.File.Image) || q.File.Digest != "" {
		return nil
	}
	resolver := r.Registry
	if resolver == nil {
		// The user's own machine may look at the user's own registries.
		client := registry.New(registry.Options{Private: true, Insecure: q.Insecure})
		defer func() { err = errors.Join(err, client.Close()) }()
		resolver = client
	}
	if q.File.Digest, err = resolver.Resolve(ctx, q.File.Image, "", q.Credentials...); err != nil {
		return fmt.Errorf("resolve the image %s: %w", q.File.Image, err)
	}
	return nil
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
