package agenttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"

	"github.com/united-containers/ucn/services/executor"
)

// Files is a storage in memory. It takes any token but the denied one.
type Files struct {
	mu      sync.Mutex // guards all
	hook    Hook
	images  map[executor.ImageID][]byte
	inputs  map[string]string // CID to path on the host
	stored  map[string][]byte // CID to bytes
	dropped map[executor.AttemptID]bool
	denied  string
}

var _ executor.Files = (*Files)(nil)

// NewFiles returns an empty storage.
func NewFiles() *Files {
	return &Files{
		images: map[executor.ImageID][]byte{}, inputs: map[string]string{},
		stored: map[string][]byte{}, dropped: map[executor.AttemptID]bool{},
	}
}

// SetHook replaces the hook.
func (f *Files) SetHook(h Hook) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = h
}

// Deny lets no call with the token pass.
func (f *Files) Deny(token string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.denied = token
}

// AddImage holds the OCI layout of an image.
func (f *Files) AddImage(id executor.ImageID, layout []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.images[id] = layout
}

// AddInput says where the file with the CID is when it is fetched.
func (f *Files) AddInput(cid, path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inputs[cid] = path
}

// Stored returns what was put, by CID.
func (f *Files) Stored() map[string][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.stored)
}

// Dropped tells whether the inputs of the attempt were removed.
func (f *Files) Dropped(id executor.AttemptID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dropped[id]
}

// CID returns the name that Put gives the bytes.
func CID(body []byte) string { return fmt.Sprintf("test-%x", sha256.Sum256(body)) }

func (f *Files) enter(op, token string) (after error, err error) {
	before, after := f.hook.ask(op)
	if before == nil && f.denied != "" && token == f.denied {
		before = executor.ErrFileDenied
	}
	return after, before
}

// Source implements executor.Files: the reference without its tag, as a user of its registry.
func (f *Files) Source(want executor.FetchImage) (string, error) {
	repository, _, _ := strings.Cut(want.Reference, ":")
	for _, c := range want.Credentials {
		if strings.HasPrefix(repository, c.Host+"/") {
			return repository + " as " + c.Username, nil
		}
	}
	return repository, nil
}

// OpenImage implements executor.Files.
func (f *Files) OpenImage(
	_ context.Context, as executor.FileAccess, want executor.FetchImage,
) (io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	after, err := f.enter("OpenImage", as.Token)
	layout, ok := f.images[want.ID]
	switch {
	case err != nil:
		return nil, err
	case after != nil:
		return nil, after
	case !ok:
		return nil, executor.ErrNoFile
	}
	return io.NopCloser(bytes.NewReader(layout)), nil
}

// CheckImage implements executor.Files.
func (f *Files) CheckImage(
	_ context.Context, as executor.FileAccess, _ executor.FetchImage,
) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	after, err := f.enter("CheckImage", as.Token)
	return errors.Join(err, after)
}

// FetchInput implements executor.Files.
func (f *Files) FetchInput(
	_ context.Context, as executor.FileAccess, want executor.FetchInput,
) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	after, err := f.enter("FetchInput", as.Token)
	path, ok := f.inputs[want.CID]
	switch {
	case err != nil:
		return "", err
	case !ok:
		return "", executor.ErrNoFile
	}
	return path, after
}

// DropInputs implements executor.Files.
func (f *Files) DropInputs(_ context.Context, id executor.AttemptID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, after := f.hook.ask("DropInputs")
	if before != nil {
		return before
	}
	f.dropped[id] = true
	return after
}

// Put implements executor.Files.
func (f *Files) Put(
	_ context.Context, as executor.FileAccess, _ string, body io.Reader,
) (executor.StoredFile, error) {
	raw, err := io.ReadAll(body)
	if err != nil {
		return executor.StoredFile{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	after, err := f.enter("Put", as.Token)
	if err != nil {
		return executor.StoredFile{}, err
	}
	f.stored[CID(raw)] = raw
	return executor.StoredFile{CID: CID(raw), Size: uint64(len(raw))}, after
}
