package cli_test

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	distribution "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/united-containers/ucn/cli"
	"github.com/united-containers/ucn/cli/clitest"
	"github.com/united-containers/ucn/kit/cid"
	jobv1 "github.com/united-containers/ucn/proto/ucn/job/v1"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// pushed puts two images and an index of both into a registry.
func pushed(t *testing.T) (host string) {
	t.Helper()
	server := httptest.NewServer(distribution.New())
	t.Cleanup(server.Close)
	host = strings.TrimPrefix(server.URL, "http://")
	all := v1.ImageIndex(empty.Index)
	push := func(label string, what remote.Taggable) {
		ref, err := name.ParseReference(host+"/app:"+label, name.Insecure)
		if err == nil {
			err = remote.Push(ref, what)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, arch := range []string{"arm64", "riscv64"} {
		image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: arch})
		if err != nil {
			t.Fatal(err)
		}
		push(arch, image)
		all = mutate.AppendManifests(all, mutate.IndexAddendum{Add: image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	push("all", all)
	return host
}

// stored puts the manifest and the config of an image into storage, and returns its CID.
func stored(t *testing.T, u *user, platform string) string {
	t.Helper()
	blob := func(text string) (name, digest string) {
		c, _, err := cid.Sum(cid.OCIBlob, bytes.NewReader([]byte(text)))
		if err != nil {
			t.Fatal(err)
		}
		return u.net.Storage.KeepAs(storagev1.Kind_KIND_OCI_BLOB, []byte(text)), c.Digest()
	}
	config := fmt.Sprintf(`{%s,"rootfs":{"type":"layers","diff_ids":[]}}`, platform)
	_, digest := blob(config)
	image, _ := blob(fmt.Sprintf(`{"schemaVersion":2,`+
		`"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[]}`, digest, len(config)))
	return image
}

// TestJobsGoWhereTheirImageRuns: unless its owner says otherwise, a job is signed for the platforms
// of its image, as far as those can be read, and it is told.
func TestJobsGoWhereTheirImageRuns(t *testing.T) {
	host := pushed(t)
	var signed []string
	u := started(t, func(u *user) clitest.Script {
		return func(v *clitest.Visit) *jobv1.Outcome {
			signed = v.Task.GetRevision().GetRevision().GetSpec().GetPlacement().GetPlatforms()
			return honest(u)(v)
		}
	})
	mips := stored(t, u, `"os":"linux","architecture":"mips64"`)
	damaged := stored(t, u, `"os":"linux","architecture":"s390x"`)
	u.net.Storage.Damage(damaged)
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{host + "/app:arm64"}, []string{"linux/arm64"}},
		{[]string{host + "/app:all"}, []string{"linux/arm64", "linux/riscv64"}},
		{[]string{host + "/app:all", "--platform", "linux/amd64"}, []string{"linux/amd64"}},
		{[]string{host + "/app:all", "--platform", "any"}, nil},
		{[]string{mips}, []string{"linux/mips64"}},
		{[]string{mips, "--platform", "any"}, nil},
		{[]string{stored(t, u, `"os":""`)}, nil},
		{[]string{damaged}, nil},
		{[]string{imageCID}, nil}, // not held
	} {
		args := append([]string{"job", "run", "--no-outputs", "--insecure-registry", host}, tt.args...)
		told := u.must(args...)
		if !slices.Equal(signed, tt.want) {
			t.Errorf("%v: signed for %v, want %v", tt.args, signed, tt.want)
		}
		line := ", for " + strings.Join(tt.want, ", ") + "\n"
		if got := strings.Contains(told, line); got != (len(tt.want) > 0) {
			t.Errorf("%v: told %s", tt.args, told)
		}
	}
	_, bad, code := u.run("job", "run", imageCID, "--platform", "any,linux/amd64")
	if code != cli.ExitUsage && code != cli.ExitFailed || !strings.Contains(bad, "any") {
		t.Errorf("any and another: code %d, %s", code, bad)
	}
}
