package oci_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/oci"
)

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstandard(t *testing.T, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// TestUnpacker: what a layer unpacks to is told from its bytes, whole or refused.
func TestUnpacker(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("layer"), 100_000)
	zip := gzipped(t, content)
	half := gzipped(t, content[:len(content)/2])
	rest := gzipped(t, content[len(content)/2:])
	const most = 500_000
	for name, test := range map[string]struct {
		packed []byte
		reason fault.Reason
	}{
		"plain":           {content, ""},
		"gzip":            {zip, ""},
		"gzip members":    {append(half, rest...), ""},
		"zstd":            {zstandard(t, content), ""},
		"plain, too much": {append(bytes.Clone(content), 0), oci.ReasonTooLarge},
		"gzip, too much":  {gzipped(t, make([]byte, most+1)), oci.ReasonTooLarge},
		"zstd, too much":  {zstandard(t, make([]byte, most+1)), oci.ReasonTooLarge},
		"cut off":         {zip[:len(zip)-1], oci.ReasonNotImage},
		"garbage after":   {append(bytes.Clone(zip), "and more"...), oci.ReasonNotImage},
		"bzip2":           {[]byte("BZh91AY&SY"), oci.ReasonNotImage},
		"xz":              {[]byte("\xfd7zXZ\x00\x00"), oci.ReasonNotImage},
	} {
		u := oci.NewUnpacker(most)
		var err error
		for rest := test.packed; len(rest) > 0 && err == nil; {
			n := min(len(rest), 1000)
			_, err = u.Write(rest[:n])
			rest = rest[n:]
		}
		got, closed := u.Close()
		if err != nil && !errors.Is(err, closed) {
			t.Errorf("%s: Write says %v, Close says %v", name, err, closed)
		}
		if test.reason == "" && !errors.Is(got.Refused, oci.ReasonNotImage) {
			t.Errorf("%s: what is no tar counts as a layer: %v", name, got.Refused)
		}
		got.Refused = nil
		want := oci.Unpacked{DiffID: fmt.Sprintf("sha256:%x", sha256.Sum256(content)), Size: most}
		switch {
		case test.reason == "" && (closed != nil || got != want):
			t.Errorf("%s: %+v, %v", name, got, closed)
		case test.reason != "" && !errors.Is(closed, test.reason):
			t.Errorf("%s: %v, want %s", name, closed, test.reason)
		}
	}
	got, err := oci.NewUnpacker(0).Close()
	if err != nil || got.Size != 0 || got.Refused != nil {
		t.Errorf("nothing: %+v, %v", got, err)
	}
}

// TestUnpackerEntries: files, folders and links are a layer; what an engine would open on the host,
// or believe, is not.
func TestUnpackerEntries(t *testing.T) {
	t.Parallel()
	xattr := func(name string) tar.Header {
		return tar.Header{Name: "x", PAXRecords: map[string]string{"SCHILY.xattr." + name: "y"}}
	}
	device := func(kind byte, name string, major int64) tar.Header {
		return tar.Header{Typeflag: kind, Name: name, Devmajor: major}
	}
	for name, test := range map[string]struct {
		entry tar.Header
		bad   bool
	}{
		"file":        {tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd"}, false},
		"folder":      {tar.Header{Typeflag: tar.TypeDir, Name: "etc/"}, false},
		"hard link":   {tar.Header{Typeflag: tar.TypeLink, Name: "a", Linkname: "/guest"}, false},
		"symlink":     {tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "/../b"}, false},
		"whiteout":    {tar.Header{Typeflag: tar.TypeReg, Name: "etc/.wh.passwd"}, false},
		"opaque":      {tar.Header{Typeflag: tar.TypeReg, Name: "etc/.wh..wh..opq"}, false},
		"capability":  {xattr("security.capability"), false},
		"/dev/null":   {device(tar.TypeChar, "./dev/null", 1), false},
		"/dev/loop0":  {device(tar.TypeBlock, "/dev/loop0", 7), false},
		"device":      {device(tar.TypeChar, "etc/passwd", 1), true},
		"disk":        {device(tar.TypeBlock, "etc/group", 8), true},
		"near /dev":   {device(tar.TypeChar, "dev/../x", 1), true},
		"/dev itself": {device(tar.TypeChar, "dev", 1), true},
		"0:0":         {device(tar.TypeChar, "dev/null", 0), true},
		"pipe":        {tar.Header{Typeflag: tar.TypeFifo, Name: "etc/passwd"}, true},
		"/dev/pipe":   {tar.Header{Typeflag: tar.TypeFifo, Name: "dev/initctl"}, true},
		"unknown":     {tar.Header{Typeflag: 'Z', Name: "x"}, true},
		"contiguous":  {tar.Header{Typeflag: tar.TypeCont, Name: "x"}, true},
		"overlay":     {xattr("trusted.overlay.redirect"), true},
	} {
		var layer bytes.Buffer
		w := tar.NewWriter(&layer)
		err := w.WriteHeader(&tar.Header{Name: "guest", Size: 5, Mode: 0o755})
		if err == nil {
			_, err = w.Write([]byte("guest"))
		}
		if err = errors.Join(err, w.WriteHeader(&test.entry), w.Close()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		raw := layer.Bytes()
		for how, packed := range map[string][]byte{"plain": raw, "gzip": gzipped(t, raw)} {
			u := oci.NewUnpacker(1 << 20)
			_, err := u.Write(packed)
			got, closed := u.Close()
			if err := errors.Join(err, closed); err != nil {
				t.Fatalf("%s, %s: %v", name, how, err)
			}
			if want := fmt.Sprintf("sha256:%x", sha256.Sum256(raw)); got.DiffID != want {
				t.Errorf("%s, %s: unpacks to %s, want %s", name, how, got.DiffID, want)
			}
			if !test.bad && got.Refused != nil || test.bad && !errors.Is(got.Refused, oci.ReasonContent) {
				t.Errorf("%s, %s: refused: %v", name, how, got.Refused)
			}
		}
	}
}
