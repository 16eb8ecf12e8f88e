package oci_test

import (
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
		want := oci.Unpacked{DiffID: fmt.Sprintf("sha256:%x", sha256.Sum256(content)), Size: most}
		switch {
		case test.reason == "" && (closed != nil || got != want):
			t.Errorf("%s: %+v, %v", name, got, closed)
		case test.reason != "" && !errors.Is(closed, test.reason):
			t.Errorf("%s: %v, want %s", name, closed, test.reason)
		}
	}
	got, err := oci.NewUnpacker(0).Close()
	if err != nil || got.Size != 0 {
		t.Errorf("nothing: %+v, %v", got, err)
	}
}
