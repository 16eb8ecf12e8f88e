package storagetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/services/storage"
)

// memoryUpload is one upload of Memory.
type memoryUpload struct {
	storage.Upload
	data   []byte
	stored storage.Stored
}

// Update implements storage.Keeping.
func (m *Memory) Update(ctx context.Context, a storage.Account, c cid.CID, change storage.Change,
) (ref storage.Ref, err error) {
	err = m.call(ctx, "Update", func() error {
		var held bool
		if ref, held = m.refs[a][c]; !held {
			return storage.NotFound(c)
		}
		if change.Pinned != nil {
			ref.Pinned = *change.Pinned
		}
		if change.Expires != nil {
			ref.Expires = milli(*change.Expires)
		}
		m.refs[a][c] = ref
		return nil
	})
	return ref, err
}

func milli(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return time.UnixMilli(t.UnixMilli())
}

// holder returns a directory of the account that names c.
func (m *Memory) holder(a storage.Account, c cid.CID) (cid.CID, bool) {
	for of, names := range m.names[a] {
		if slices.Contains(names, c) {
			return of, true
		}
	}
	return cid.CID{}, false
}

// link makes a directory hold what it names.
func (m *Memory) link(a storage.Account, c cid.CID, names []cid.CID) error {
	for _, name := range names {
		if _, held := m.refs[a][name]; !held {
			return storage.Incomplete(name, "which the account does not hold")
		}
	}
	if m.names[a] == nil {
		m.names[a] = map[cid.CID][]cid.CID{}
	}
	if len(names) > 0 {
		m.names[a][c] = names
	}
	return nil
}

// drop ends a reference and the blob nobody else holds.
func (m *Memory) drop(a storage.Account, c cid.CID) (freed int64) {
	delete(m.refs[a], c)
	delete(m.names[a], c)
	for _, held := range m.refs {
		if _, other := held[c]; other {
			return 0
		}
	}
	freed = int64(len(m.blobs[c].data))
	delete(m.blobs, c)
	return freed
}

// Collect implements storage.Keeping.
func (m *Memory) Collect(ctx context.Context, dryRun bool) (got storage.Collected, err error) {
	err = m.call(ctx, "Collect", func() error {
		now := time.Now()
		for a, refs := range m.refs {
			for c, ref := range refs {
				_, linked := m.holder(a, c)
				if linked || ref.Pinned || ref.Expires.IsZero() || ref.Expires.After(now) {
					continue
				}
				got.References++
				if dryRun {
					continue
				}
				if freed := m.drop(a, c); freed > 0 {
					got.Blobs++
					got.Bytes += freed
				}
			}
		}
		return nil
	})
	return got, err
}

// StartUpload implements storage.Uploads.
func (m *Memory) StartUpload(ctx context.Context, p storage.Put) (u storage.Upload, err error) {
	if err := p.Validate(m.limits); err != nil {
		return u, err
	}
	if p.Kind == cid.Directory {
		return u, storage.BadRequest("a directory is put whole, not uploaded in pieces")
	}
	err = m.call(ctx, "StartUpload", func() error {
		open := 0
		for _, x := range m.uploads {
			if x.Put.Account == p.Account && x.CID.IsZero() {
				open++
			}
		}
		if open >= m.limits.OpenUploads() {
			return storage.TooManyUploads(m.limits.OpenUploads())
		}
		if err := m.limits.Admit(m.usage(p.Account), 0, p.Size); err != nil {
			return err
		}
		now := milli(time.Now())
		u = storage.Upload{Put: p, Created: now, Expires: now.Add(time.Hour)}
		_, _ = rand.Read(u.ID[:]) // never fails
		m.uploads[u.ID] = &memoryUpload{Upload: u}
		return nil
	})
	return u, err
}

func (m *Memory) find(a storage.Account, id storage.UploadID) (*memoryUpload, error) {
	u := m.uploads[id]
	if u == nil || u.Put.Account != a {
		return nil, storage.NoUpload()
	}
	return u, nil
}

// AppendUpload implements storage.Uploads.
func (m *Memory) AppendUpload(ctx context.Context, a storage.Account, id storage.UploadID,
	offset int64, body io.Reader,
) (shown storage.Upload, err error) {
	data, broke := io.ReadAll(io.LimitReader(body, m.limits.Blob+1))
	err = m.call(context.WithoutCancel(ctx), "AppendUpload", func() error {
		u, err := m.find(a, id)
		if err != nil {
			return err
		}
		switch {
		case !u.CID.IsZero():
			return fault.New(fault.FailedPrecondition, storage.ReasonUploadDone, "finished")
		case offset != u.Offset:
			return storage.WrongOffset(u.Offset)
		}
		end := offset + int64(len(data))
		if err := m.limits.AdmitSize(end); err != nil {
			return err
		}
		if u.Put.Size != 0 && end > u.Put.Size {
			return storage.Put{Size: u.Put.Size}.Verify(cid.CID{}, end)
		}
		if err := m.limits.Admit(m.usage(a), 0, end-offset); err != nil {
			return err
		}
		u.data = append(u.data, data...)
		u.Offset = end
		shown = u.Upload
		return nil
	})
	return shown, errors.Join(err, broke)
}

// Upload implements storage.Uploads.
func (m *Memory) Upload(ctx context.Context, a storage.Account, id storage.UploadID,
) (shown storage.Upload, err error) {
	err = m.call(ctx, "Upload", func() error {
		u, err := m.find(a, id)
		if err == nil {
			shown = u.Upload
		}
		return err
	})
	return shown, err
}

// ListUploads implements storage.Uploads.
func (m *Memory) ListUploads(ctx context.Context, a storage.Account) (
	all []storage.Upload, err error,
) {
	err = m.call(ctx, "ListUploads", func() error {
		for _, u := range m.uploads {
			if u.Put.Account == a && u.CID.IsZero() {
				all = append(all, u.Upload)
			}
		}
		slices.SortFunc(all, func(x, y storage.Upload) int {
			return x.Created.Compare(y.Created)
		})
		return nil
	})
	return all, err
}

// FinishUpload implements storage.Uploads.
func (m *Memory) FinishUpload(ctx context.Context, a storage.Account, id storage.UploadID,
) (stored storage.Stored, err error) {
	m.mu.Lock()
	u, err := m.find(a, id)
	m.mu.Unlock()
	if err != nil {
		return stored, err
	}
	if !u.CID.IsZero() {
		return u.stored, nil
	}
	if stored, err = m.Put(ctx, u.Put, bytes.NewReader(u.data)); err != nil {
		return stored, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	u.CID, u.stored, u.data = stored.Ref.CID, stored, nil
	return stored, nil
}

// AbortUpload implements storage.Uploads.
func (m *Memory) AbortUpload(ctx context.Context, a storage.Account, id storage.UploadID) error {
	return m.call(ctx, "AbortUpload", func() error {
		_, err := m.find(a, id)
		if err == nil {
			delete(m.uploads, id)
		}
		return err
	})
}
