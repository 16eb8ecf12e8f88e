// Package storagetest holds the contract suite every storage.Store passes, and Memory, a complete
// store in memory that can fail on request.
package storagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
)

// Memory is a storage.Store in memory. Damage and the two hooks make it fail as a disk can.
type Memory struct {
	limits storage.Limits

	// mu guards all below.
	mu    sync.Mutex
	blobs map[cid.CID]*kept
	refs  map[storage.Account]map[cid.CID]storage.Ref
	fail  Fail
	// names is what each account's directories hold.
	names   map[storage.Account]map[cid.CID][]cid.CID
	uploads map[storage.UploadID]*memoryUpload
}

// Fail decides whether a call of the named method ("Put", "Read", ...) fails: Before prevents its
// effect, After lets it happen and then reports the error. Nil functions let everything pass.
type Fail struct {
	Before, After func(method string) error
}

type kept struct {
	data, outboard []byte
	root           [cid.SumSize]byte
	damaged        bool
}

var _ storage.Store = (*Memory)(nil)

// NewMemory returns an empty store with the given limits.
func NewMemory(l storage.Limits) *Memory {
	return &Memory{limits: l, blobs: map[cid.CID]*kept{},
		refs:    map[storage.Account]map[cid.CID]storage.Ref{},
		names:   map[storage.Account]map[cid.CID][]cid.CID{},
		uploads: map[storage.UploadID]*memoryUpload{}}
}

// FailWith installs hooks; the zero Fail removes them.
func (m *Memory) FailWith(f Fail) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = f
}

// Damage flips one bit of the blob's bytes. It panics when the blob is absent or empty.
func (m *Memory) Damage(c cid.CID, at int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blobs[c].data = bytes.Clone(m.blobs[c].data)
	m.blobs[c].data[at] ^= 1
	m.blobs[c].damaged = true
}

// call runs do under the lock between the hooks.
func (m *Memory) call(ctx context.Context, method string, do func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail.Before != nil {
		if err := m.fail.Before(method); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	if m.fail.After != nil {
		return m.fail.After(method)
	}
	return nil
}

// Put implements storage.Blobs. It holds the whole blob in memory.
func (m *Memory) Put(ctx context.Context, p storage.Put, body io.Reader) (storage.Stored, error) {
	if err := p.Validate(m.limits); err != nil {
		return storage.Stored{}, err
	}
	var stored storage.Stored
	if p.SkipHeld && m.sound(p.Account, p.Expect) {
		err := m.call(ctx, "Put", func() (err error) {
			stored, err = m.claim(p, p.Expect)
			return err
		})
		return stored, err
	}
	if err := m.admit(p); err != nil {
		return storage.Stored{}, err
	}
	data, err := m.receive(ctx, p, body)
	if err != nil {
		return storage.Stored{}, err
	}
	err = m.call(ctx, "Put", func() (err error) {
		stored, err = m.keep(p, data)
		return err
	})
	if err != nil {
		return storage.Stored{}, err
	}
	return stored, nil
}

func (m *Memory) sound(a storage.Account, c cid.CID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, held := m.refs[a][c]
	return held && !m.blobs[c].damaged
}

// admit refuses what is known to be too much before any byte is read.
func (m *Memory) admit(p storage.Put) error {
	if m.sound(p.Account, p.Expect) {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.limits.Admit(m.usage(p.Account), 0, p.Size)
}

func (m *Memory) receive(ctx context.Context, p storage.Put, body io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, m.limits.Blob+1))
	if err != nil {
		return nil, fmt.Errorf("receive blob: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := m.limits.AdmitSize(int64(len(data))); err != nil {
		return nil, err
	}
	return data, nil
}

func (m *Memory) keep(p storage.Put, data []byte) (storage.Stored, error) {
	var tree cid.Hasher
	if _, err := tree.Write(data); err != nil {
		return storage.Stored{}, err
	}
	outboard := &growing{}
	root, err := tree.Finish(outboard)
	if err != nil {
		return storage.Stored{}, err
	}
	c := cid.OfFile(root)
	switch p.Kind {
	case cid.OCIBlob:
		c = cid.OfOCI(sha256.Sum256(data))
	case cid.Directory:
		c = cid.OfDirectory(root)
	}
	if err := p.Verify(c, int64(len(data))); err != nil {
		return storage.Stored{}, err
	}
	if _, held := m.refs[p.Account][c]; !held {
		if err := m.limits.Admit(m.usage(p.Account), 0, int64(len(data))); err != nil {
			return storage.Stored{}, err
		}
	}
	m.blobs[c] = &kept{data: data, outboard: outboard.b, root: root}
	return m.claim(p, c)
}

func (m *Memory) claim(p storage.Put, c cid.CID) (storage.Stored, error) {
	ref, held := m.refs[p.Account][c]
	if !held {
		ref = storage.Ref{CID: c, Size: int64(len(m.blobs[c].data)), Name: p.Name, Job: p.Job,
			Created: time.Now().Truncate(time.Millisecond), Expires: milli(p.Expires),
			Total: p.Tree.Total, Height: p.Tree.Height}
		if err := m.link(p.Account, c, p.Tree.Names); err != nil {
			return storage.Stored{}, err
		}
	} else if !p.KeepName {
		if p.Name != "" {
			ref.Name = p.Name
		}
		ref.Expires = storage.Wanted(ref.Expires, milli(p.Expires))
	}
	if m.refs[p.Account] == nil {
		m.refs[p.Account] = map[cid.CID]storage.Ref{}
	}
	m.refs[p.Account][c] = ref
	return storage.Stored{Ref: ref, Held: held}, nil
}

// Read implements storage.Blobs.
func (m *Memory) Read(ctx context.Context, r storage.Read, w io.Writer) error {
	if err := r.Validate(); err != nil {
		return err
	}
	var blob kept
	err := m.call(ctx, "Read", func() error {
		ref, held := m.refs[r.Account][r.CID]
		if !held {
			return storage.NotFound(r.CID)
		}
		within, err := r.Range.Within(ref.Size)
		r.Range, blob = within, *m.blobs[r.CID]
		return err
	})
	if err != nil {
		return err
	}
	tree := cid.Tree{Data: bytes.NewReader(blob.data), Size: int64(len(blob.data)),
		Outboard: bytes.NewReader(blob.outboard), Root: blob.root}
	walk := tree.Copy
	if r.Encoding == storage.EncodingSlice {
		walk = tree.CopySlice
	}
	if err := walk(ctx, w, r.Range.Offset, r.Range.Length); err != nil {
		if blob.damaged {
			return storage.DataLoss(r.CID, err)
		}
		return fmt.Errorf("send %s: %w", r.CID, err)
	}
	return nil
}

// Remove implements storage.Blobs.
func (m *Memory) Remove(ctx context.Context, a storage.Account, c cid.CID) error {
	return m.call(ctx, "Remove", func() error { return m.remove(a, c) })
}

func (m *Memory) remove(a storage.Account, c cid.CID) error {
	ref, held := m.refs[a][c]
	if !held {
		return storage.NotFound(c)
	}
	if ref.Pinned {
		return storage.Pinned(c)
	}
	if of, linked := m.holder(a, c); linked {
		return storage.InDirectory(c, of)
	}
	m.drop(a, c)
	return nil
}

// RemoveMany implements storage.Blobs. Two fit into a write, so that callers go on.
func (m *Memory) RemoveMany(ctx context.Context, a storage.Account, cs []cid.CID) (
	became []error, err error,
) {
	if err := storage.CheckMany(cs); err != nil {
		return nil, err
	}
	err = m.call(ctx, "RemoveMany", func() error {
		for _, c := range cs[:min(2, len(cs))] {
			became = append(became, m.remove(a, c))
		}
		return nil
	})
	return became, err
}

// Stat implements storage.References.
func (m *Memory) Stat(ctx context.Context, a storage.Account, c cid.CID) (storage.Ref, error) {
	var ref storage.Ref
	err := m.call(ctx, "Stat", func() error {
		found, held := m.refs[a][c]
		if !held {
			return storage.NotFound(c)
		}
		ref = found
		return nil
	})
	return ref, err
}

// List implements storage.References.
func (m *Memory) List(ctx context.Context, a storage.Account, after cid.CID, limit int,
) ([]storage.Ref, error) {
	if limit < 1 || limit > storage.MaxPage {
		return nil, storage.BadRequest("page of %d references, 1 to %d", limit, storage.MaxPage)
	}
	var page []storage.Ref
	err := m.call(ctx, "List", func() error {
		for c, ref := range m.refs[a] {
			if bytes.Compare(c.Bytes(), after.Bytes()) > 0 {
				page = append(page, ref)
			}
		}
		slices.SortFunc(page, func(x, y storage.Ref) int {
			return bytes.Compare(x.CID.Bytes(), y.CID.Bytes())
		})
		page = page[:min(limit, len(page))]
		return nil
	})
	return page, err
}

// Usage implements storage.References.
func (m *Memory) Usage(ctx context.Context, a storage.Account) (storage.Usage, error) {
	var u storage.Usage
	err := m.call(ctx, "Usage", func() error {
		u = m.usage(a)
		return nil
	})
	return u, err
}

func (m *Memory) usage(a storage.Account) storage.Usage {
	var u storage.Usage
	for _, ref := range m.refs[a] {
		u.Add(ref, 1)
	}
	for _, up := range m.uploads {
		if up.Put.Account == a && up.CID.IsZero() {
			u.Uploads.Blobs++
			u.Uploads.Bytes += max(up.Offset, up.Put.Size)
		}
	}
	return u
}

type growing struct{ b []byte }

func (g *growing) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(g.b) {
		g.b = append(g.b, make([]byte, need-len(g.b))...)
	}
	return copy(g.b[off:], p), nil
}
