package storage_test

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"lukechampine.com/blake3"

	"github.com/united-containers/ucn/services/storage"
)

func TestCIDForms(t *testing.T) {
	hello := []byte("hello")
	for _, c := range []storage.CID{
		storage.FileCID(blake3.Sum256(hello)), storage.OCICID(sha256.Sum256(hello)),
	} {
		text, err := storage.ParseCID(c.String())
		if err != nil || text != c {
			t.Errorf("text of %s: %v %v", c, text, err)
		}
		binary, err := storage.CIDFromBytes(c.Bytes())
		if err != nil || binary != c {
			t.Errorf("bytes of %s: %v %v", c, binary, err)
		}
		if len(c.String()) != 59 || len(c.Bytes()) != 36 {
			t.Errorf("%s: %d characters, %d bytes", c, len(c.String()), len(c.Bytes()))
		}
	}
	library := func(code uint64, sum [32]byte) string {
		hash, err := multihash.Encode(sum[:], code)
		if err != nil {
			t.Fatal(err)
		}
		return cid.NewCidV1(cid.Raw, hash).String()
	}
	sha, blake := sha256.Sum256(hello), blake3.Sum256(hello)
	if got, want := storage.OCICID(sha).String(), library(multihash.SHA2_256, sha); got != want {
		t.Errorf("OCI blob: %s, want %s", got, want)
	}
	if got, want := storage.FileCID(blake).String(), library(multihash.BLAKE3, blake); got != want {
		t.Errorf("file: %s, want %s", got, want)
	}
	if (storage.CID{}).String() != "" || (storage.CID{}).Bytes() != nil {
		t.Error("the zero CID has a form")
	}
}

func TestDigestIsTheSameBytes(t *testing.T) {
	c := storage.OCICID(sha256.Sum256([]byte("layer")))
	back, err := storage.ParseDigest(c.Digest())
	if err != nil || back != c {
		t.Errorf("%s: %v %v", c.Digest(), back, err)
	}
	if storage.FileCID([32]byte{}).Digest() != "" {
		t.Error("a file has a digest")
	}
	for _, bad := range []string{"", "sha256:", "sha512:00", "sha256:" + strings.Repeat("A", 64),
		"sha256:" + strings.Repeat("g", 64), strings.Repeat("a", 64)} {
		if _, err := storage.ParseDigest(bad); !errors.Is(err, storage.ReasonBadCID) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestParseCIDRefusesByName(t *testing.T) {
	sum := func(code uint64, length int) multihash.Multihash {
		hash, err := multihash.Sum([]byte("x"), code, length)
		if err != nil {
			t.Fatal(err)
		}
		return hash
	}
	good := cid.NewCidV1(cid.Raw, sum(multihash.SHA2_256, -1))
	upper, err := good.StringOfBase('B')
	if err != nil {
		t.Fatal(err)
	}
	base58, err := good.StringOfBase('z')
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, text, says string }{
		{"empty", "", "empty"},
		{"long", strings.Repeat("b", 500), "500 bytes"},
		{"version 0", cid.NewCidV0(sum(multihash.SHA2_256, -1)).String(), "CIDv0"},
		{"dag-pb", cid.NewCidV1(cid.DagProtobuf, sum(multihash.SHA2_256, -1)).String(), "dag-pb"},
		{"dag-cbor", cid.NewCidV1(cid.DagCBOR, sum(multihash.SHA2_256, -1)).String(), "dag-cbor"},
		{"codec", cid.NewCidV1(0x1234, sum(multihash.SHA2_256, -1)).String(), "0x1234"},
		{"sha1", cid.NewCidV1(cid.Raw, sum(multihash.SHA1, -1)).String(), "sha1"},
		{"sha3", cid.NewCidV1(cid.Raw, sum(multihash.SHA3_256, -1)).String(), "sha3-256"},
		{"cut hash", cid.NewCidV1(cid.Raw, sum(multihash.SHA2_256, 20)).String(), "20 bytes"},
		{"long hash", cid.NewCidV1(cid.Raw, sum(multihash.BLAKE3, 64)).String(), "64 bytes"},
		{"upper case", upper, "base32"},
		{"base58", base58, "base32"},
		{"cut text", good.String()[:40], "not a CID"},
		{"path", "/ipfs/" + good.String(), "not a CID"},
		{"garbage", "hello world", "not a CID"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := storage.ParseCID(test.text)
			if !errors.Is(err, storage.ReasonBadCID) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%q gives %v, %v; want %q", test.text, c, err, test.says)
			}
		})
	}
}

func FuzzParseCID(f *testing.F) {
	f.Add(storage.FileCID([32]byte{1}).String())
	f.Add(storage.OCICID([32]byte{2}).String())
	f.Add("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG")
	f.Add("bafy")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := storage.ParseCID(text)
		if err != nil {
			if !errors.Is(err, storage.ReasonBadCID) {
				t.Fatalf("refused without the reason: %v", err)
			}
			return
		}
		if c.String() != text {
			t.Fatalf("%q is also %q", text, c)
		}
	})
}

func FuzzCIDFromBytes(f *testing.F) {
	f.Add(storage.FileCID([32]byte{1}).Bytes())
	f.Add([]byte{1, 0x55, 0x12, 0x20})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := storage.CIDFromBytes(b)
		if err == nil && string(c.Bytes()) != string(b) {
			t.Fatalf("%x is also %x", b, c.Bytes())
		}
	})
}
