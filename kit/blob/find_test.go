package blob_test

import (
	"errors"
	"testing"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/dir"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// paths answers Get with what it has at a path, whatever that is.
type paths struct {
	storagev1.UnimplementedStorageServiceServer
	at map[string][]byte
}

func (l paths) Get(
	r *storagev1.GetRequest, s grpc.ServerStreamingServer[storagev1.GetResponse],
) error {
	return liar{data: l.at[r.GetPath()]}.Get(r, s)
}

// directory makes a directory of one entry.
func directory(t *testing.T, name string, c cid.CID, size int64) ([]byte, cid.CID) {
	t.Helper()
	raw, made, err := dir.Encode([]dir.Entry{{Name: name, CID: c, Size: size, Mode: 0o755}})
	if err != nil {
		t.Fatal(err)
	}
	return raw, made
}

// TestFindVerifiesTheWay: what stands at a path is what the root names.
func TestFindVerifiesTheWay(t *testing.T) {
	file, other := cid.OfFile([32]byte{1}), cid.OfFile([32]byte{2})
	deep, deepCID := directory(t, "c", file, 7)
	middle, middleCID := directory(t, "b", deepCID, 7)
	root, rootCID := directory(t, "a", middleCID, 7)
	evil, _ := directory(t, "c", other, 7)
	honest := clientOf(t, paths{at: map[string][]byte{"": root, "a": middle, "a/b": deep}})
	for path, want := range map[string]cid.CID{
		"": rootCID, "a": middleCID, "a/b": deepCID, "a/b/c": file,
	} {
		if got, err := honest.Find(t.Context(), rootCID, path); err != nil || got.CID != want {
			t.Errorf("%q: %v, %v", path, got, err)
		}
	}
	for path, want := range map[string]error{
		"x": dir.ReasonNoPath, "a/b/c/d": dir.ReasonNoPath, "a/b/x": dir.ReasonNoPath,
		"../a": dir.ReasonPath, "a//b": dir.ReasonPath, "a/": dir.ReasonPath,
	} {
		if _, err := honest.Find(t.Context(), rootCID, path); !errors.Is(err, want) {
			t.Errorf("%q: %v", path, err)
		}
	}
	if _, err := honest.Find(t.Context(), file, "a"); !errors.Is(err, dir.ReasonNoPath) {
		t.Errorf("in a file: %v", err)
	}
	for _, at := range []map[string][]byte{
		{"": evil, "a": middle, "a/b": deep}, {"": root, "a": evil, "a/b": deep},
		{"": root, "a": middle, "a/b": evil}, {"": root, "a": middle, "a/b": deep[:len(deep)-1]},
		{"": root, "a": middle},
	} {
		got, err := clientOf(t, paths{at: at}).Find(t.Context(), rootCID, "a/b/c")
		if !errors.Is(err, cid.ReasonMismatch) {
			t.Errorf("a lie: %v, %v", got, err)
		}
	}
}
