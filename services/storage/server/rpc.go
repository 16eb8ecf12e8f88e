package server

import (
	"context"
	"time"

	"github.com/united-containers/ucn/kit/cid"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/storage"
)

// Stat implements storagev1.StorageServiceServer.
func (s *Server) Stat(ctx context.Context, request *storagev1.StatRequest) (
	*storagev1.StatResponse, error,
) {
	response, err := s.stat(ctx, request)
	return response, s.metrics.failed(ctx, err)
}

func (s *Server) stat(ctx context.Context, request *storagev1.StatRequest) (
	*storagev1.StatResponse, error,
) {
	session, c, err := s.about(ctx, request.GetCid())
	if err != nil {
		return nil, err
	}
	ref, err := session.Resolve(ctx, c, request.GetPath())
	if err != nil {
		return nil, err
	}
	annotate(ctx, c, ref.Size)
	response := &storagev1.StatResponse{Reference: toReference(ref)}
	if !request.GetImage() {
		return response, nil
	}
	image, err := session.Image(ctx, ref.CID)
	if err != nil {
		return nil, err
	}
	response.Image = toImage(image)
	return response, nil
}

// about is the session of a call on one blob.
func (s *Server) about(ctx context.Context, text string) (*storage.Session, cid.CID, error) {
	session, err := s.session(ctx)
	if err != nil {
		return nil, cid.CID{}, err
	}
	c, err := cid.Parse(text)
	return session, c, err
}

// List implements storagev1.StorageServiceServer.
func (s *Server) List(ctx context.Context, request *storagev1.ListRequest) (
	*storagev1.ListResponse, error,
) {
	response, err := s.list(ctx, request)
	return response, s.metrics.failed(ctx, err)
}

func (s *Server) list(ctx context.Context, request *storagev1.ListRequest) (
	*storagev1.ListResponse, error,
) {
	session, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	of, err := queryOf("list", &storagev1.ListRequest{})
	if err != nil {
		return nil, err
	}
	after, err := of.after(request.GetPageToken())
	if err != nil {
		return nil, err
	}
	size, err := pageSize(request.GetPageSize())
	if err != nil {
		return nil, err
	}
	refs, err := session.List(ctx, after, size)
	if err != nil {
		return nil, err
	}
	response := &storagev1.ListResponse{References: make([]*storagev1.Reference, len(refs))}
	for i, ref := range refs {
		response.References[i] = toReference(ref)
	}
	if len(refs) == size { // the next page may turn out to be empty
		response.NextPageToken = of.token(refs[size-1].CID)
	}
	return response, nil
}

// Usage implements storagev1.StorageServiceServer.
func (s *Server) Usage(ctx context.Context, _ *storagev1.UsageRequest) (
	*storagev1.UsageResponse, error,
) {
	session, err := s.session(ctx)
	if err != nil {
		return nil, s.metrics.failed(ctx, err)
	}
	usage, err := session.Usage(ctx)
	if err != nil {
		return nil, s.metrics.failed(ctx, err)
	}
	return toUsage(usage, s.deps.Limits), nil
}

func toUsage(u storage.Usage, l storage.Limits) *storagev1.UsageResponse {
	m := &storagev1.UsageResponse{Bytes: uint64(u.Bytes), Blobs: uint64(u.Blobs),
		QuotaBytes: uint64(l.Bytes), QuotaBlobs: uint64(l.Blobs), MaxBlob: uint64(l.Blob),
		PinnedBlobs: uint64(u.Pinned.Blobs), PinnedBytes: uint64(u.Pinned.Bytes),
		Uploads: uint64(u.Uploads.Blobs), UploadBytes: uint64(u.Uploads.Bytes),
		MaxUploads: uint64(l.OpenUploads())}
	for kind, n := range u.Kinds {
		if n.Blobs > 0 {
			m.Kinds = append(m.Kinds, &storagev1.KindUsage{Kind: toKind(cid.Kind(kind)),
				Bytes: uint64(n.Bytes), Blobs: uint64(n.Blobs)})
		}
	}
	return m
}

// Remove implements storagev1.StorageServiceServer.
func (s *Server) Remove(ctx context.Context, request *storagev1.RemoveRequest) (
	*storagev1.RemoveResponse, error,
) {
	session, c, err := s.about(ctx, request.GetCid())
	if err == nil {
		err = session.Remove(ctx, c)
	}
	if err != nil {
		return nil, s.metrics.failed(ctx, err)
	}
	s.metrics.changed(ctx, "remove")
	s.deps.Log.DebugContext(ctx, "reference removed", "cid", c.String())
	return &storagev1.RemoveResponse{}, nil
}

func toReference(ref storage.Ref) *storagev1.Reference {
	return &storagev1.Reference{Cid: ref.CID.String(), Size: uint64(ref.Size),
		Kind: toKind(ref.CID.Kind()), Name: ref.Name, Job: ref.Job,
		CreatedMs: uint64(ref.Created.UnixMilli()), Pinned: ref.Pinned,
		ExpiresMs: unixMillis(ref.Expires)}
}

// unixMillis keeps the zero time zero.
func unixMillis(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixMilli())
}

func toImage(image storage.Image) *storagev1.Image {
	m := &storagev1.Image{Config: image.Manifest.Config.CID.String(),
		TotalSize: uint64(image.Manifest.Size)}
	for _, layer := range image.Manifest.Layers {
		m.Layers = append(m.Layers, layer.CID.String())
	}
	for _, c := range image.Missing {
		m.Missing = append(m.Missing, c.String())
	}
	return m
}

func toKind(k cid.Kind) storagev1.Kind {
	switch k {
	case cid.File:
		return storagev1.Kind_KIND_FILE
	case cid.OCIBlob:
		return storagev1.Kind_KIND_OCI_BLOB
	case cid.Directory:
		return storagev1.Kind_KIND_DIRECTORY
	default:
		return storagev1.Kind_KIND_UNSPECIFIED
	}
}

func kindOf(k storagev1.Kind) cid.Kind {
	switch k {
	case storagev1.Kind_KIND_FILE:
		return cid.File
	case storagev1.Kind_KIND_OCI_BLOB:
		return cid.OCIBlob
	case storagev1.Kind_KIND_DIRECTORY:
		return cid.Directory
	default:
		return cid.Unknown
	}
}
