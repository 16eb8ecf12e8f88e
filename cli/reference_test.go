package cli_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/cli/clitest"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
)

// TestJobRunResolvesReferences: what is signed is the digest that the registry gives for the tag.
func TestJobRunResolvesReferences(t *testing.T) {
	server := httptest.NewServer(registry.New())
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	ref, err := name.ParseReference(host+"/team/app:1.2", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	var signed *jobv1.Image
	u := started(t, func(u *user) clitest.Script {
		return func(v *clitest.Visit) *jobv1.Outcome {
			signed = v.Task.GetRevision().GetRevision().GetSpec().GetImage()
			return honest(u)(v)
		}
	})
	u.must("job", "run", ref.Name(), "--insecure-registry", host, "--no-outputs")
	if signed.GetReference() != ref.Name() || signed.GetDigest() != digest.String() ||
		signed.GetCid() != "" {
		t.Errorf("signed %v, the registry has %s", signed, digest)
	}
	for _, tt := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{host + "/team/none:1"}, "resolve the image", cli.ExitFailed},
		{[]string{host + "/team/App:1"}, "resolve the image", cli.ExitFailed},
		{[]string{ref.Name(), "--registry-auth", "me:hunter2"}, "HOST=USER", cli.ExitUsage},
		{[]string{ref.Name(), "--registry-auth", "h=me:@/none/there"}, "for h", cli.ExitUsage},
	} {
		_, bad, code := u.run(append([]string{"job", "run", "--insecure-registry", host},
			tt.args...)...)
		if !strings.Contains(bad, tt.want) || strings.Contains(bad, "hunter2") || code != tt.code {
			t.Errorf("%v: code %d, %s", tt.args, code, bad)
		}
	}
}
