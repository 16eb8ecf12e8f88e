package server

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/dir"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/storage"
)

// ScopeCollect lets the operator start a collection.
const ScopeCollect = "file:collect"

// RemoveMany implements storagev1.StorageServiceServer.
func (s *Server) RemoveMany(ctx context.Context, request *storagev1.RemoveManyRequest) (
	*storagev1.RemoveManyResponse, error,
) {
	response, err := s.removeMany(ctx, request)
	return response, s.metrics.failed(ctx, err)
}

func (s *Server) removeMany(ctx context.Context, request *storagev1.RemoveManyRequest) (
	*storagev1.RemoveManyResponse, error,
) {
	session, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	f, err := filterOf(request)
	if err != nil {
		return nil, err
	}
	asked := proto.CloneOf(request)
	asked.PageToken = ""
	of, err := queryOf("removeMany", asked)
	if err != nil {
		return nil, err
	}
	after, err := of.after(request.GetPageToken())
	if err != nil {
		return nil, err
	}
	done, err := session.RemoveMany(ctx, f, after)
	if err != nil {
		return nil, err
	}
	if !f.DryRun {
		s.metrics.changedBy(ctx, "remove", done.Removed)
	}
	response := &storagev1.RemoveManyResponse{Removed: uint64(done.Removed),
		Bytes: uint64(done.Bytes), Pinned: uint64(done.Pinned), InDirectory: uint64(done.InDirectory),
		NextPageToken: of.token(done.Next)}
	for _, k := range done.Kept {
		response.Kept = append(response.Kept,
			&storagev1.Kept{Cid: k.CID.String(), Reason: string(k.Why)})
	}
	return response, nil
}

func filterOf(request *storagev1.RemoveManyRequest) (storage.Filter, error) {
	f := storage.Filter{Job: request.GetJob(), NamePrefix: request.GetNamePrefix(),
		Kind: kindOf(request.GetKind()), All: request.GetAll(), DryRun: request.GetDryRun()}
	if f.Kind == cid.Unknown && request.GetKind() != storagev1.Kind_KIND_UNSPECIFIED {
		return f, storage.BadRequest("kind %d is unknown", request.GetKind())
	}
	if len(request.GetCids()) > storage.MaxPage { // before any is read
		return f, storage.BadRequest("%d CIDs, at most %d", len(request.GetCids()), storage.MaxPage)
	}
	for _, text := range request.GetCids() {
		c, err := cid.Parse(text)
		if err != nil {
			return f, err
		}
		f.CIDs = append(f.CIDs, c)
	}
	var err error
	f.Before, err = timeOf(request.GetCreatedBeforeMs())
	return f, err
}

// maxTime bounds times on the wire, in milliseconds, so that nothing overflows.
const maxTime = 1 << 48

func timeOf(ms uint64) (time.Time, error) {
	if ms >= maxTime {
		return time.Time{}, storage.BadRequest("time %d is out of bounds", ms)
	}
	if ms == 0 {
		return time.Time{}, nil
	}
	return time.UnixMilli(int64(ms)), nil
}

// future is timeOf a time that must not be past.
func (s *Server) future(ms uint64) (time.Time, error) {
	at, err := timeOf(ms)
	if err == nil && !at.IsZero() && at.Before(s.deps.Now()) {
		err = storage.BadRequest("expires_ms %d is past", ms)
	}
	return at, err
}

// Pin implements storagev1.StorageServiceServer.
func (s *Server) Pin(ctx context.Context, request *storagev1.PinRequest) (
	*storagev1.PinResponse, error,
) {
	pinned := true
	ref, err := s.update(ctx, request.GetCid(), storage.Change{Pinned: &pinned})
	return &storagev1.PinResponse{Reference: ref}, err
}

// Unpin implements storagev1.StorageServiceServer.
func (s *Server) Unpin(ctx context.Context, request *storagev1.UnpinRequest) (
	*storagev1.UnpinResponse, error,
) {
	pinned := false
	ref, err := s.update(ctx, request.GetCid(), storage.Change{Pinned: &pinned})
	return &storagev1.UnpinResponse{Reference: ref}, err
}

// SetExpiry implements storagev1.StorageServiceServer.
func (s *Server) SetExpiry(ctx context.Context, request *storagev1.SetExpiryRequest) (
	*storagev1.SetExpiryResponse, error,
) {
	at, err := s.future(request.GetExpiresMs())
	if err != nil {
		return nil, s.metrics.failed(ctx, err)
	}
	ref, err := s.update(ctx, request.GetCid(), storage.Change{Expires: &at})
	return &storagev1.SetExpiryResponse{Reference: ref}, err
}

func (s *Server) update(ctx context.Context, text string, change storage.Change) (
	*storagev1.Reference, error,
) {
	session, c, err := s.about(ctx, text)
	if err != nil {
		return nil, s.metrics.failed(ctx, err)
	}
	ref, err := session.Update(ctx, c, change)
	if err != nil {
		return nil, s.metrics.failed(ctx, err)
	}
	return toReference(ref), nil
}

// ListDirectory implements storagev1.StorageServiceServer.
func (s *Server) ListDirectory(ctx context.Context, request *storagev1.ListDirectoryRequest) (
	*storagev1.ListDirectoryResponse, error,
) {
	response, err := s.listDirectory(ctx, request)
	return response, s.metrics.failed(ctx, err)
}

func (s *Server) listDirectory(ctx context.Context, request *storagev1.ListDirectoryRequest) (
	*storagev1.ListDirectoryResponse, error,
) {
	session, c, err := s.about(ctx, request.GetCid())
	if err != nil {
		return nil, err
	}
	ref, entries, err := session.Directory(ctx, c, request.GetPath())
	if err != nil {
		return nil, err
	}
	from, err := placeOf(request.GetPageToken(), ref.CID, len(entries))
	if err != nil {
		return nil, err
	}
	size, err := pageSize(request.GetPageSize())
	if err != nil {
		return nil, err
	}
	response := &storagev1.ListDirectoryResponse{Cid: ref.CID.String(), Size: uint64(ref.Total),
		Total: uint64(len(entries))}
	end := min(from+size, len(entries))
	for _, e := range entries[from:end] {
		response.Entries = append(response.Entries, &storagev1.DirectoryEntry{Name: e.Name,
			Cid: e.CID.String(), Size: uint64(e.Size), Mode: e.Mode, Kind: dir.KindOf(e)})
	}
	if end < len(entries) {
		response.NextPageToken = placeToken(ref.CID, end)
	}
	return response, nil
}

func pageSize(asked uint32) (int, error) {
	if asked > storage.MaxPage {
		return 0, storage.BadRequest("page of %d, 1 to %d", asked, storage.MaxPage)
	}
	if asked == 0 {
		return defaultPage, nil
	}
	return int(asked), nil
}

// placeToken names a place in one directory, and in no other.
func placeToken(c cid.CID, at int) string {
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(c.Bytes(), uint32(at)))
}

func placeOf(token string, c cid.CID, entries int) (int, error) {
	if token == "" {
		return 0, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	own := c.Bytes()
	if err != nil || len(raw) != len(own)+4 || string(raw[:len(own)]) != string(own) {
		return 0, storage.BadRequest("the page token is not one of this directory")
	}
	at := binary.BigEndian.Uint32(raw[len(own):])
	if int64(at) > int64(entries) {
		return 0, storage.BadRequest("the page token is not one of this directory")
	}
	return int(at), nil
}

// CollectGarbage implements storagev1.StorageServiceServer.
func (s *Server) CollectGarbage(ctx context.Context, request *storagev1.CollectGarbageRequest) (
	*storagev1.CollectGarbageResponse, error,
) {
	if err := rpc.RequireScope(ctx, ScopeCollect); err != nil {
		return nil, s.metrics.failed(ctx, err)
	}
	caller, _ := rpc.CallerFrom(ctx)
	if s.deps.Operator == (storage.Account{}) || caller.Account != s.deps.Operator {
		return nil, s.metrics.failed(ctx, fault.New(fault.PermissionDenied,
			storage.ReasonNotOperator, "only the operator's account may start a collection"))
	}
	began := time.Now()
	got, err := s.collect(ctx, request.GetDryRun())
	if err != nil {
		return nil, s.metrics.failed(ctx, err)
	}
	return &storagev1.CollectGarbageResponse{References: uint64(got.References),
		Uploads: uint64(got.Uploads), Blobs: uint64(got.Blobs), Bytes: uint64(got.Bytes),
		TookMs: uint64(max(0, min(time.Since(began).Milliseconds(), math.MaxInt32)))}, nil
}

// collect runs one pass and tells what it did.
func (s *Server) collect(ctx context.Context, dryRun bool) (storage.Collected, error) {
	began := time.Now()
	got, err := s.deps.Store.Collect(ctx, dryRun)
	if !dryRun {
		s.metrics.collected(ctx, got)
	}
	level := s.deps.Log.DebugContext
	if got != (storage.Collected{}) {
		level = s.deps.Log.InfoContext
	}
	level(ctx, "garbage collected", "references", got.References, "uploads", got.Uploads,
		"blobs", got.Blobs, "bytes", got.Bytes, "dry_run", dryRun, "took", time.Since(began))
	return got, err
}
