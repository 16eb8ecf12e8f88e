package podman

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/oci"
	"github.com/united-containers/ucn/services/executor"
)

// blobsOf makes a layout of blobs and returns the digest of the last.
func blobsOf(t *testing.T, blobs ...[]byte) (layout []byte, last string) {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, b := range blobs {
		last = fmt.Sprintf("%x", sha256.Sum256(b))
		h := &tar.Header{Name: "blobs/sha256/" + last, Mode: 0o644, Size: int64(len(b))}
		err := w.WriteHeader(h)
		if err == nil {
			_, err = w.Write(b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), "sha256:" + last
}

// repeated is a layout whose only layer, of size bytes, is named n times.
func repeated(t *testing.T, size, n int) ([]byte, string) {
	t.Helper()
	layer := make([]byte, size) // an empty tar, and then some
	sum := func(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }
	names := strings.TrimSuffix(strings.Repeat(fmt.Sprintf("%q,", sum(layer)), n), ",")
	config := fmt.Appendf(nil, `{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[%s]}}`,
		names)
	one := fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":%d,"digest":%q},`,
		size, sum(layer))
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":%q,"size":%d},"layers":[%s]}`,
		sum(config), len(config), strings.TrimSuffix(strings.Repeat(one, n), ","))
	return blobsOf(t, layer, config, manifest)
}

// TestUnpackedBytesAreBounded: the operator's bound counts every layer as often as it is named,
// wherever the image comes from.
func TestUnpackedBytesAreBounded(t *testing.T) {
	const kib = 1 << 10
	for _, tt := range []struct {
		size, times int
		most        int64
		want        error
	}{
		{8 * kib, 1, 16 * kib, nil},
		{8 * kib, 1, 8*kib - 1, oci.ReasonTooLarge},
		{8 * kib, 5, 32 * kib, executor.ErrUnsupported},
		{8 * kib, 5, 48 * kib, nil},
	} {
		layout, digest := repeated(t, tt.size, tt.times)
		limits := layoutLimits{want: digest, most: tt.most}
		_, err := filterLayout(io.Discard, bytes.NewReader(layout), limits)
		if !errors.Is(err, tt.want) {
			t.Errorf("%d bytes %d times, at most %d: %v, want %v", tt.size, tt.times, tt.most, err,
				tt.want)
		}
		if tt.want != nil && !errors.Is(err, executor.ErrUnsupported) {
			t.Errorf("%v is not told as something this host does not do", err)
		}
	}
}

// TestTroubleOfTheSourceIsNoMismatch: only bytes that are wrong end an attempt for good.
func TestTroubleOfTheSourceIsNoMismatch(t *testing.T) {
	layout, digest := repeated(t, 1000, 1)
	away := fault.New(fault.Unavailable, "AWAY", "try again")
	for n := 0; n <= len(layout)-1024; n += 100 {
		source := io.MultiReader(bytes.NewReader(layout[:n]), iotest.ErrReader(away))
		_, err := filterLayout(io.Discard, source, asked(digest))
		if !errors.Is(err, away) || errors.Is(err, executor.ErrImageMismatch) {
			t.Errorf("away after %d bytes: %v", n, err)
		}
	}
}
