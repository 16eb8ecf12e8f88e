package clitest

import (
	"context"

	"github.com/united-containers/ucn/kit/fault"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// KeepPinned keeps a blob from being removed.
func (s *Storage) KeepPinned(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[name].reference.Pinned = true
}

// Remove implements the service.
func (s *Storage) Remove(_ context.Context, r *storagev1.RemoveRequest) (
	*storagev1.RemoveResponse, error,
) {
	return around(s, "Remove", func() (*storagev1.RemoveResponse, error) {
		return &storagev1.RemoveResponse{}, s.remove(r.GetCid())
	})
}

func (s *Storage) remove(name string) error {
	b, err := s.find(name)
	if err == nil && b.reference.GetPinned() {
		return fault.New(fault.FailedPrecondition, "REFERENCE_PINNED", "%s is pinned", name)
	}
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.blobs, name)
	}
	return err
}

// RemoveMany implements the service for named references.
func (s *Storage) RemoveMany(_ context.Context, r *storagev1.RemoveManyRequest) (
	*storagev1.RemoveManyResponse, error,
) {
	return around(s, "RemoveMany", func() (*storagev1.RemoveManyResponse, error) {
		out := &storagev1.RemoveManyResponse{}
		for _, name := range r.GetCids() {
			if err := s.remove(name); err != nil {
				out.Kept = append(out.Kept,
					&storagev1.Kept{Cid: name, Reason: string(fault.ReasonOf(err))})
				continue
			}
			out.Removed++
		}
		return out, nil
	})
}
