package blob_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// shortener is a service that sends true bytes and false sizes.
type shortener struct {
	storagev1.UnimplementedStorageServiceServer
	tree cid.Tree
	says int64
	// breaks is where the slice from the first byte on ends, with a broken connection; 0: nowhere.
	breaks int
	// marks has the slices say the false size too.
	marks bool
}

func (l shortener) Get(
	r *storagev1.GetRequest, s grpc.ServerStreamingServer[storagev1.GetResponse],
) error {
	offset := int64(r.GetOffset())
	header := &storagev1.GetHeader{Offset: r.GetOffset(), Length: uint64(l.says - offset),
		Reference: &storagev1.Reference{Cid: r.GetCid(), Size: uint64(l.says)}}
	err := s.Send(&storagev1.GetResponse{Part: &storagev1.GetResponse_Header{Header: header}})
	if err != nil {
		return err
	}
	var out bytes.Buffer
	err = l.tree.CopySlice(context.Background(), &out, offset, min(l.says, l.tree.Size)-offset)
	if err != nil {
		return err
	}
	slice := out.Bytes()
	if l.marks || offset == 0 {
		binary.LittleEndian.PutUint64(slice, uint64(l.says))
	}
	breaks := l.breaks > 0 && offset == 0
	if breaks {
		slice = slice[:l.breaks]
	}
	for len(slice) > 0 && err == nil {
		n := min(len(slice), 8192)
		err = s.Send(&storagev1.GetResponse{Part: &storagev1.GetResponse_Chunk{Chunk: slice[:n]}})
		slice = slice[n:]
	}
	if breaks && err == nil {
		err = fault.New(fault.Unavailable, "STORAGE_CLOSED", "the storage is shutting down")
	}
	return err
}

// TestNoServiceShortensAFile: a file that ends where its CID does not say is no success, also when
// the connection breaks between the left and the right half of its tree.
func TestNoServiceShortensAFile(t *testing.T) {
	const left = 8 + 2*64 + 2*cid.GroupSize // of a slice: all but the last group
	data := bytes.Repeat([]byte("0123456789abcdef"), 3*cid.GroupSize/16)
	var h cid.Hasher
	if _, err := h.Write(data); err != nil {
		t.Fatal(err)
	}
	outboard, err := os.Create(filepath.Join(t.TempDir(), "outboard"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = outboard.Close() }()
	root, err := h.Finish(outboard)
	if err != nil {
		t.Fatal(err)
	}
	tree := cid.Tree{Data: bytes.NewReader(data), Outboard: outboard, Size: int64(len(data)),
		Root: root}
	for _, l := range []shortener{
		{says: 2*cid.GroupSize + 100}, {says: 2*cid.GroupSize + 100, breaks: left},
		{says: 2*cid.GroupSize + 100, breaks: left, marks: true}, {says: 10}, {says: 10, marks: true},
		{says: 0}, {says: tree.Size + 1, breaks: left}, {says: tree.Size + 1, marks: true},
	} {
		l.tree = tree
		client := clientOf(t, l)
		file, err := os.Create(filepath.Join(t.TempDir(), "file"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Fetch(t.Context(), blob.Fetch{Blob: cid.OfFile(root), Size: l.says}, file,
			blob.Progress{})
		if !errors.Is(err, cid.ReasonMismatch) {
			t.Errorf("%d bytes, break at %d, marks %v: fetched, %v", l.says, l.breaks, l.marks, err)
		}
		var out bytes.Buffer
		part := cid.Part{Length: l.says, Size: l.says}
		err = client.Copy(t.Context(), blob.Part{File: cid.OfFile(root), Part: part}, &out,
			blob.Progress{})
		if !errors.Is(err, cid.ReasonMismatch) || !bytes.HasPrefix(data, out.Bytes()) {
			t.Errorf("%d bytes, break at %d, marks %v: copied %d, %v", l.says, l.breaks, l.marks,
				out.Len(), err)
		}
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}
}
