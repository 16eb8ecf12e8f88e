package cid_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/united-containers/ucn/kit/cid"
)

func TestReaderVerifies(t *testing.T) {
	data := randomBytes(50_000)
	for _, kind := range []cid.Kind{cid.File, cid.OCIBlob} {
		c, n, err := cid.Sum(kind, bytes.NewReader(data))
		if err != nil || n != 50_000 || c.Kind() != kind {
			t.Fatalf("%s: %v %d %v", kind, c, n, err)
		}
		flipped := bytes.Clone(data)
		flipped[49_999] ^= 1
		tests := []struct {
			name string
			body []byte
			size int64
			want error
		}{
			{"right", data, 50_000, nil},
			{"any size", data, -1, nil},
			{"flipped", flipped, 50_000, cid.ReasonMismatch},
			{"flipped, any size", flipped, -1, cid.ReasonMismatch},
			{"short", data[:49_999], 50_000, cid.ReasonMismatch},
			{"long", append(bytes.Clone(data), 1), 50_000, cid.ReasonMismatch},
			{"empty", nil, 50_000, cid.ReasonMismatch},
		}
		for _, test := range tests {
			for _, r := range []io.Reader{bytes.NewReader(test.body),
				iotest.DataErrReader(bytes.NewReader(test.body))} {
				got, err := io.ReadAll(cid.NewReader(r, c, test.size))
				if !errors.Is(err, test.want) || err == nil && !bytes.Equal(got, data) {
					t.Errorf("%s, %s: %d bytes, %v", kind, test.name, len(got), err)
				}
				if int64(len(got)) > 50_000 {
					t.Errorf("%s, %s: %d bytes passed", kind, test.name, len(got))
				}
			}
		}
	}
	broken := errors.New("cut")
	_, err := io.ReadAll(cid.NewReader(iotest.ErrReader(broken), cid.OfOCI([32]byte{}), -1))
	if !errors.Is(err, broken) {
		t.Errorf("a broken source: %v", err)
	}
	if _, err := io.ReadAll(cid.NewReader(bytes.NewReader(data), cid.CID{}, -1)); err == nil {
		t.Error("the zero CID verifies")
	}
}
