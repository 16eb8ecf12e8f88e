package wire_test

import (
	"context"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/dir"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

func (f *fakeStorage) RemoveMany(
	ctx context.Context, m *storagev1.RemoveManyRequest,
) (*storagev1.RemoveManyResponse, error) {
	return &storagev1.RemoveManyResponse{}, f.calls.note(ctx, "RemoveMany", m)
}

func (f *fakeStorage) Pin(
	ctx context.Context, m *storagev1.PinRequest,
) (*storagev1.PinResponse, error) {
	return &storagev1.PinResponse{}, f.calls.note(ctx, "Pin", m)
}

func (f *fakeStorage) Unpin(
	ctx context.Context, m *storagev1.UnpinRequest,
) (*storagev1.UnpinResponse, error) {
	return &storagev1.UnpinResponse{}, f.calls.note(ctx, "Unpin", m)
}

func (f *fakeStorage) SetExpiry(
	ctx context.Context, m *storagev1.SetExpiryRequest,
) (*storagev1.SetExpiryResponse, error) {
	return &storagev1.SetExpiryResponse{}, f.calls.note(ctx, "SetExpiry", m)
}

func (f *fakeStorage) ListDirectory(
	ctx context.Context, m *storagev1.ListDirectoryRequest,
) (*storagev1.ListDirectoryResponse, error) {
	return &storagev1.ListDirectoryResponse{}, f.calls.note(ctx, "ListDirectory", m)
}

func (f *fakeStorage) StartUpload(
	ctx context.Context, m *storagev1.StartUploadRequest,
) (*storagev1.StartUploadResponse, error) {
	return &storagev1.StartUploadResponse{}, f.calls.note(ctx, "StartUpload", m)
}

func (f *fakeStorage) ListUploads(
	ctx context.Context, m *storagev1.ListUploadsRequest,
) (*storagev1.ListUploadsResponse, error) {
	return &storagev1.ListUploadsResponse{}, f.calls.note(ctx, "ListUploads", m)
}

func (f *fakeStorage) GetUpload(
	ctx context.Context, m *storagev1.GetUploadRequest,
) (*storagev1.GetUploadResponse, error) {
	return &storagev1.GetUploadResponse{}, f.calls.note(ctx, "GetUpload", m)
}

func (f *fakeStorage) FinishUpload(
	ctx context.Context, m *storagev1.FinishUploadRequest,
) (*storagev1.FinishUploadResponse, error) {
	return &storagev1.FinishUploadResponse{}, f.calls.note(ctx, "FinishUpload", m)
}

func (f *fakeStorage) AbortUpload(
	ctx context.Context, m *storagev1.AbortUploadRequest,
) (*storagev1.AbortUploadResponse, error) {
	return &storagev1.AbortUploadResponse{}, f.calls.note(ctx, "AbortUpload", m)
}

func (f *fakeStorage) CollectGarbage(
	ctx context.Context, m *storagev1.CollectGarbageRequest,
) (*storagev1.CollectGarbageResponse, error) {
	return &storagev1.CollectGarbageResponse{}, f.calls.note(ctx, "CollectGarbage", m)
}

// resolve returns what stands at a path inside a directory, or the blob itself for "".
func (f *fakeStorage) resolve(name, path string) (cid.CID, []byte, error) {
	root, err := cid.Parse(name)
	if err != nil {
		return root, nil, err
	}
	if f.at != nil {
		if c, data := f.at(path); !c.IsZero() {
			return c, data, nil
		}
	}
	at, err := dir.Walk(context.Background(), root, path,
		func(_ context.Context, c cid.CID) ([]dir.Entry, error) {
			raw, err := f.get(c.String())
			if err != nil {
				return nil, err
			}
			return dir.Decode(raw)
		})
	if err != nil {
		return root, nil, err
	}
	data, err := f.get(at.CID.String())
	return at.CID, data, err
}
