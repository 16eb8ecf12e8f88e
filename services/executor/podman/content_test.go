package podman

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/united-containers/ucn/kit/oci"
	"github.com/united-containers/ucn/services/executor/executortest"
)

// The engine opens files of an image as root of the host: nothing that would hang it there, or that
// is the host's, comes in.
func TestImageContent(t *testing.T) {
	d := loaded(t, executortest.GuestImage(t))
	for name, entry := range map[string]tar.Header{
		"device": {Name: "etc/passwd", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5},
		"pipe":   {Name: "etc/passwd", Typeflag: tar.TypeFifo},
	} {
		img := executortest.Shape{More: []tar.Header{entry}}.Image(t)
		_, err := d.LoadImage(t.Context(), img.ID, "", img.Open)
		if !errors.Is(err, oci.ReasonContent) {
			t.Errorf("%s: %v, want %s", name, err, oci.ReasonContent)
		}
		if held, err := d.HasImage(t.Context(), img.ID); held || err != nil {
			t.Errorf("%s: held %t, %v", name, held, err)
		}
	}
}

// What looks like the host's, seen from where the engine reads: a device of the image's /dev, which
// the mount does not open, and paths that lead out of the image, which end within it.
func TestImageLinks(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	err := os.WriteFile(secret, []byte("ucn:x:4242:4242::/:/guest\n"), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to, Mode: 0o777}
	}
	zero := tar.Header{
		Name: "dev/zero", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5, Mode: 0o666,
	}
	same := tar.Header{Name: "etc/passwd", Typeflag: tar.TypeLink, Linkname: "dev/zero"}
	out := "../../../../../../../../../.." + secret
	for name, test := range map[string]struct {
		more []tar.Header
		user string
		runs bool
	}{
		"device, plain":          {[]tar.Header{zero}, "", true},
		"device, as users":       {[]tar.Header{zero, link("etc/passwd", "/dev/zero")}, "ucn", false},
		"device, hard link":      {[]tar.Header{zero, same}, "", true}, // if it were read, it would not
		"file of the host":       {[]tar.Header{link("etc/passwd", secret)}, "ucn", false},
		"file of the host, dots": {[]tar.Header{link("etc/passwd", out)}, "ucn", false},
		"hosts":                  {[]tar.Header{link("etc/hosts", out)}, "", true},
		"folder of the host":     {[]tar.Header{link("etc", filepath.Dir(secret))}, "", false},
		"root as a folder":       {[]tar.Header{link("run", "/")}, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			img := executortest.Shape{More: test.more}.Image(t)
			d := loaded(t, img)
			s := executortest.Spec(img.ID, "a", "sleep", "20s", "exit", "0")
			s.User = test.user
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			c, err := d.Create(ctx, s)
			if err != nil {
				t.Fatal(err)
			}
			err = c.Start(ctx)
			_, over, exitErr := c.(*container).exit(ctx)
			if runs := err == nil && !over && exitErr == nil; runs != test.runs {
				t.Errorf("runs %t, want %t: %v, %v", runs, test.runs, err, exitErr)
			}
			if test.runs {
				wantNoDevice(t, d)
			}
			if err := c.Remove(ctx); err != nil {
				t.Error(err)
			}
			left, err := os.ReadDir(filepath.Dir(secret))
			if err != nil || len(left) != 1 {
				t.Errorf("beside the host's file: %v, %v", left, err)
			}
		})
	}
}

// wantNoDevice wants every root of a container that is mounted to open no device.
func wantNoDevice(t *testing.T, d *Driver) {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		if !strings.HasPrefix(f[4], d.i.path("root")) || !strings.HasSuffix(f[4], "/merged") {
			continue
		}
		found = true
		if !strings.Contains(","+f[5]+",", ",nodev,") {
			t.Errorf("%s is mounted %s", f[4], f[5])
		}
	}
	if !found {
		t.Error("no root is mounted")
	}
}

// A health check of an image is dropped: podman would run it outside of the container's limits.
func TestImageHealthCheck(t *testing.T) {
	img := executortest.Shape{Docker: true, Config: func(c *v1.ConfigFile) {
		c.Config.Healthcheck = &v1.HealthConfig{
			Test:     []string{"CMD", "/guest", "out", "checked"},
			Interval: time.Millisecond, Timeout: time.Second,
		}
	}}.Image(t)
	d := loaded(t, img)
	c, err := d.Create(t.Context(), executortest.Spec(img.ID, "a", "deaf"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var in struct {
		Config struct{ Healthcheck struct{ Test []string } }
		State  struct{ Health, Healthcheck struct{ Status string } }
	}
	name := "/containers/" + c.(*container).name
	if err := d.i.api.call(t.Context(), get(name+"/json"), nil, &in); err != nil {
		t.Fatal(err)
	}
	if got := in.Config.Healthcheck.Test; len(got) > 0 && got[0] != "NONE" {
		t.Errorf("the engine checks health by %q", got)
	}
	if s := in.State.Health.Status + in.State.Healthcheck.Status; s != "" {
		t.Errorf("health is %q", s)
	}
	if err := d.i.api.call(t.Context(), get(name+"/healthcheck"), nil, nil); err == nil {
		t.Error("the engine has a check to run")
	}
	engine, _ := d.i.service.process()
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", engine.Process.Pid))
	if err != nil || !strings.Contains(string(env), "\x00DISABLE_HC_SYSTEMD=true\x00") {
		t.Errorf("the engine may use timers of the host: %v", err)
	}
}
