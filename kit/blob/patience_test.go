package blob_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// dying answers every question and moves no byte.
type dying struct {
	storagev1.StorageServiceClient // nil: nothing else is called
	reached                        bool
	calls                          int
}

var errGone = fault.New(fault.Unavailable, "STORAGE_CLOSED", "the storage is shutting down")

func (d *dying) Stat(context.Context, *storagev1.StatRequest, ...grpc.CallOption) (
	*storagev1.StatResponse, error,
) {
	if !d.reached {
		return nil, errGone
	}
	return nil, fault.New(fault.NotFound, "BLOB_NOT_FOUND", "no blob")
}

func (d *dying) ListUploads(context.Context, *storagev1.ListUploadsRequest, ...grpc.CallOption) (
	*storagev1.ListUploadsResponse, error,
) {
	return &storagev1.ListUploadsResponse{}, nil
}

func (d *dying) StartUpload(
	_ context.Context, r *storagev1.StartUploadRequest, _ ...grpc.CallOption,
) (*storagev1.StartUploadResponse, error) {
	return &storagev1.StartUploadResponse{Upload: &storagev1.Upload{Id: "1"}}, nil
}

func (d *dying) GetUpload(context.Context, *storagev1.GetUploadRequest, ...grpc.CallOption) (
	*storagev1.GetUploadResponse, error,
) {
	return &storagev1.GetUploadResponse{Upload: &storagev1.Upload{Id: "1"}}, nil
}

func (d *dying) AppendUpload(context.Context, ...grpc.CallOption) (
	grpc.ClientStreamingClient[storagev1.AppendUploadRequest, storagev1.AppendUploadResponse], error,
) {
	d.calls++
	return nil, errGone
}

func (d *dying) Get(context.Context, *storagev1.GetRequest, ...grpc.CallOption) (
	grpc.ServerStreamingClient[storagev1.GetResponse], error,
) {
	d.calls++
	if !d.reached || d.calls > 1 {
		return nil, errGone
	}
	return &header{size: 1000}, nil
}

// header is a stream that breaks behind its header.
type header struct {
	grpc.ClientStream
	size uint64
	sent bool
}

func (h *header) Recv() (*storagev1.GetResponse, error) {
	if h.sent {
		return nil, errGone
	}
	h.sent = true
	return &storagev1.GetResponse{Part: &storagev1.GetResponse_Header{Header: &storagev1.GetHeader{
		Reference: &storagev1.Reference{Size: h.size}, Length: h.size,
	}}}, nil
}

// TestPatienceEnds: who answers but moves nothing is given up after five minutes, who never
// answered at once.
func TestPatienceEnds(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "part"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}()
	data := bytes.NewReader(make([]byte, 9<<20))
	for name, move := range map[string]func(ctx context.Context, c *blob.Client) error{
		"put": func(ctx context.Context, c *blob.Client) error {
			_, err := c.PutFile(ctx, blob.Put{Kind: cid.File, Size: data.Size()}, data, blob.Progress{})
			return err
		},
		"fetch": func(ctx context.Context, c *blob.Client) error {
			_, err := c.Fetch(ctx, blob.Fetch{Blob: cid.OfFile([32]byte{1}), Size: 1000}, file,
				blob.Progress{})
			return err
		},
	} {
		for _, reached := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				d := &dying{reached: reached}
				begun := time.Now()
				err := move(t.Context(), blob.New(d))
				took := time.Since(begun)
				if !errors.Is(err, errGone.Reason()) {
					t.Errorf("%s: %v", name, err)
				}
				if reached && (took < 5*time.Minute || took > 6*time.Minute || d.calls > 60) ||
					!reached && took > 0 {
					t.Errorf("%s, reached %v: given up after %v and %d calls", name, reached, took,
						d.calls)
				}
			})
		}
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			begun := time.Now()
			if err := move(ctx, blob.New(&dying{reached: true})); err == nil ||
				time.Since(begun) != time.Minute {
				t.Errorf("%s: ended after %v with %v", name, time.Since(begun), err)
			}
		})
	}
}
