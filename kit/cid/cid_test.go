package cid_test

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	gocid "github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"lukechampine.com/blake3"

	"github.com/united-containers/ucn/kit/cid"
)

func TestCIDForms(t *testing.T) {
	hello := []byte("hello")
	for _, c := range []cid.CID{
		cid.OfFile(blake3.Sum256(hello)), cid.OfOCI(sha256.Sum256(hello)),
	} {
		text, err := cid.Parse(c.String())
		if err != nil || text != c {
			t.Errorf("text of %s: %v %v", c, text, err)
		}
		binary, err := cid.FromBytes(c.Bytes())
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
		return gocid.NewCidV1(gocid.Raw, hash).String()
	}
	sha, blake := sha256.Sum256(hello), blake3.Sum256(hello)
	if got, want := cid.OfOCI(sha).String(), library(multihash.SHA2_256, sha); got != want {
		t.Errorf("OCI blob: %s, want %s", got, want)
	}
	if got, want := cid.OfFile(blake).String(), library(multihash.BLAKE3, blake); got != want {
		t.Errorf("file: %s, want %s", got, want)
	}
	if (cid.CID{}).String() != "" || (cid.CID{}).Bytes() != nil {
		t.Error("the zero CID has a form")
	}
}

func TestDigestIsTheSameBytes(t *testing.T) {
	c := cid.OfOCI(sha256.Sum256([]byte("layer")))
	back, err := cid.ParseDigest(c.Digest())
	if err != nil || back != c {
		t.Errorf("%s: %v %v", c.Digest(), back, err)
	}
	if cid.OfFile([32]byte{}).Digest() != "" {
		t.Error("a file has a digest")
	}
	for _, bad := range []string{"", "sha256:", "sha512:00", "sha256:" + strings.Repeat("A", 64),
		"sha256:" + strings.Repeat("g", 64), strings.Repeat("a", 64)} {
		if _, err := cid.ParseDigest(bad); !errors.Is(err, cid.ReasonBad) {
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
	good := gocid.NewCidV1(gocid.Raw, sum(multihash.SHA2_256, -1))
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
		{"version 0", gocid.NewCidV0(sum(multihash.SHA2_256, -1)).String(), "CIDv0"},
		{"dag-pb", gocid.NewCidV1(gocid.DagProtobuf, sum(multihash.SHA2_256, -1)).String(), "dag-pb"},
		{"dag-cbor", gocid.NewCidV1(gocid.DagCBOR, sum(multihash.SHA2_256, -1)).String(), "dag-cbor"},
		{"codec", gocid.NewCidV1(0x1234, sum(multihash.SHA2_256, -1)).String(), "0x1234"},
		{"sha1", gocid.NewCidV1(gocid.Raw, sum(multihash.SHA1, -1)).String(), "sha1"},
		{"sha3", gocid.NewCidV1(gocid.Raw, sum(multihash.SHA3_256, -1)).String(), "sha3-256"},
		{"cut hash", gocid.NewCidV1(gocid.Raw, sum(multihash.SHA2_256, 20)).String(), "20 bytes"},
		{"long hash", gocid.NewCidV1(gocid.Raw, sum(multihash.BLAKE3, 64)).String(), "64 bytes"},
		{"upper case", upper, "base32"},
		{"base58", base58, "base32"},
		{"cut text", good.String()[:40], "not a CID"},
		{"path", "/ipfs/" + good.String(), "not a CID"},
		{"garbage", "hello world", "not a CID"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := cid.Parse(test.text)
			if !errors.Is(err, cid.ReasonBad) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%q gives %v, %v; want %q", test.text, c, err, test.says)
			}
		})
	}
}

func FuzzParseCID(f *testing.F) {
	f.Add(cid.OfFile([32]byte{1}).String())
	f.Add(cid.OfOCI([32]byte{2}).String())
	f.Add("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG")
	f.Add("bafy")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := cid.Parse(text)
		if err != nil {
			if !errors.Is(err, cid.ReasonBad) {
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
	f.Add(cid.OfFile([32]byte{1}).Bytes())
	f.Add([]byte{1, 0x55, 0x12, 0x20})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := cid.FromBytes(b)
		if err == nil && string(c.Bytes()) != string(b) {
			t.Fatalf("%x is also %x", b, c.Bytes())
		}
	})
}
