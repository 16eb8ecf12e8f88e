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

// sparse is a tar of one file of size bytes that holds nothing: holes, as GNU tar writes them.
func sparse(t *testing.T, size int64) []byte {
	t.Helper()
	var out bytes.Buffer
	block := func(name string, kind byte, body string) {
		h := make([]byte, 512)
		copy(h, name)
		copy(h[100:], "0000644\x000000000\x000000000\x00")
		copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00        %c", len(body), 0, kind))
		copy(h[257:], "ustar\x0000")
		sum := 0
		for _, b := range h {
			sum += int(b)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		out.Write(h)
		out.WriteString(body)
		out.Write(make([]byte, (512-len(body)%512)%512))
	}
	record := func(key, value string) string {
		n := len(key) + len(value) + 3
		n += len(fmt.Sprint(n + 2))
		return fmt.Sprintf("%d %s=%s\n", n, key, value)
	}
	block("pax", 'x', record("GNU.sparse.major", "1")+record("GNU.sparse.minor", "0")+
		record("GNU.sparse.name", "holes")+record("GNU.sparse.realsize", fmt.Sprint(size)))
	spans := fmt.Sprintf("1\n%d\n0\n", size)
	block("GNUSparseFile.0/holes", '0', spans+string(make([]byte, 512-len(spans))))
	out.Write(make([]byte, 1024))
	return out.Bytes()
}

// TestUnpackedFiles: what a layer's files take of a disk is told, holes and last blocks included,
// and holes count as bytes.
func TestUnpackedFiles(t *testing.T) {
	t.Parallel()
	var few bytes.Buffer
	w := tar.NewWriter(&few)
	for _, h := range []tar.Header{
		{Name: "a/", Typeflag: tar.TypeDir}, {Name: "a/b", Size: 1}, {Name: "a/c", Size: 5000},
		{Name: "a/d", Typeflag: tar.TypeLink, Linkname: "a/c"},
	} {
		err := w.WriteHeader(&h)
		if err == nil {
			_, err = w.Write(make([]byte, h.Size))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		layer       []byte
		disk, files int64
		reason      error
	}{
		"few":       {few.Bytes(), 5001 + 4*4096, 4, nil},
		"some hole": {sparse(t, 50_000), 50_000 + 4096, 1, nil},
		"a bomb":    {sparse(t, 1<<40), 0, 0, oci.ReasonTooLarge},
	} {
		u := oci.NewUnpacker(100_000)
		_, _ = u.Write(gzipped(t, test.layer)) // Close tells
		got, err := u.Close()
		if !errors.Is(err, test.reason) || got.Disk != test.disk || got.Files != test.files ||
			got.Refused != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
