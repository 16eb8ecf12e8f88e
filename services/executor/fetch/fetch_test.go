package fetch_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/registry"
	"github.com/united-containers/ucn/kit/rpc"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/executor"
	"github.com/united-containers/ucn/services/executor/fetch"
)

// storage is a StorageService that may lie.
type storage struct {
	storagev1.UnimplementedStorageServiceServer
	mu    sync.Mutex // guards all
	blobs map[string][]byte
	puts  []*storagev1.PutHeader
	full  error

	missing []string // of every image
}

func (s *storage) add(kind cid.Kind, body []byte) string {
	c, _, err := cid.Sum(kind, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[c.String()] = body
	return c.String()
}

func (s *storage) Get(
	m *storagev1.GetRequest, out storagev1.StorageService_GetServer,
) error {
	caller, _ := rpc.CallerFrom(out.Context())
	s.mu.Lock()
	body, ok := s.blobs[m.GetCid()]
	s.mu.Unlock()
	switch {
	case !caller.HasScope("file:read"):
		return fault.New(fault.PermissionDenied, "SCOPE_MISSING", "no")
	case !ok:
		return fault.New(fault.NotFound, "BLOB_NOT_FOUND", "no blob %s in this account", m.GetCid())
	}
	header := &storagev1.GetHeader{Reference: &storagev1.Reference{Size: uint64(len(body))}}
	err := out.Send(&storagev1.GetResponse{Part: &storagev1.GetResponse_Header{Header: header}})
	for len(body) > 0 && err == nil {
		n := min(len(body), 100)
		err = out.Send(&storagev1.GetResponse{Part: &storagev1.GetResponse_Chunk{Chunk: body[:n]}})
		body = body[n:]
	}
	return err
}

func (s *storage) Stat(ctx context.Context, m *storagev1.StatRequest) (
	*storagev1.StatResponse, error,
) {
	caller, _ := rpc.CallerFrom(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.blobs[m.GetCid()]; !ok || !caller.HasScope("file:read") {
		return nil, fault.New(fault.NotFound, "BLOB_NOT_FOUND", "no blob %s here", m.GetCid())
	}
	if !m.GetImage() {
		return &storagev1.StatResponse{}, nil
	}
	return &storagev1.StatResponse{Image: &storagev1.Image{Missing: s.missing}}, nil
}

func (s *storage) Put(in storagev1.StorageService_PutServer) error {
	s.mu.Lock()
	full := s.full
	s.mu.Unlock()
	if full != nil {
		return full
	}
	var body []byte
	var header *storagev1.PutHeader
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if m.GetHeader() != nil {
			header = m.GetHeader()
		}
		body = append(body, m.GetChunk()...)
	}
	name := s.add(cid.File, body)
	s.mu.Lock()
	s.puts = append(s.puts, header)
	s.mu.Unlock()
	return in.SendAndClose(&storagev1.PutResponse{Cid: name, Size: uint64(len(body))})
}

// anyToken takes "good" for an account that may do everything.
type anyToken struct{}

func (anyToken) Authenticate(_ context.Context, text string) (rpc.Caller, error) {
	if text != "good" {
		return rpc.Caller{}, fault.New(fault.Unauthenticated, "TOKEN_EXPIRED", "expired")
	}
	return rpc.Caller{Scopes: []string{"file"}}, nil
}

func rig(t *testing.T, insecure ...string) (*storage, *fetch.Files, string) {
	t.Helper()
	s := &storage{blobs: map[string][]byte{}}
	var pipe rpc.Pipe
	listener, err := pipe.Listen("storage")
	if err != nil {
		t.Fatal(err)
	}
	front, err := rpc.NewServer(rpc.DefaultServer(), rpc.ServerDeps{
		Auth: anyToken{}, Listener: listener,
	})
	if err != nil {
		t.Fatal(err)
	}
	storagev1.RegisterStorageServiceServer(front, s)
	ctx, cancel := context.WithCancel(context.Background())
	done, ready := make(chan error, 1), make(chan struct{})
	go func() { done <- front.Run(ctx, func() { close(ready) }) }()
	<-ready
	conn, err := rpc.NewPipeDialer(&pipe, rpc.ClientDeps{}).Dial(t.Context(), "storage")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := conn.Close()
		cancel()
		if err = errors.Join(err, <-done); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	reg := registry.New(registry.Options{Private: true, Insecure: insecure})
	files, err := fetch.New(storagev1.NewStorageServiceClient(conn), reg, dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, files, dir
}

var good = executor.FileAccess{Token: "good", Job: executor.JobID{1}}

func TestFetchInput(t *testing.T) {
	s, files, dir := rig(t)
	body := bytes.Repeat([]byte("input "), 1000)
	name := s.add(cid.File, body)
	want := executor.FetchInput{Attempt: "0a", Index: 2, CID: name, Max: 1 << 20}
	for range 2 {
		path, err := files.FetchInput(t.Context(), good, want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, body) || path != filepath.Join(dir, "0a", "2") {
			t.Errorf("%s holds %d bytes, %v", path, len(got), err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o444 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		s.mu.Lock()
		delete(s.blobs, name) // the second time nothing is fetched
		s.mu.Unlock()
	}
	if err := files.DropInputs(t.Context(), "0a"); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestFetchInputRefuses(t *testing.T) {
	s, files, dir := rig(t)
	whole := s.add(cid.File, []byte("whole"))
	lie := s.add(cid.File, []byte("what was asked for"))
	short := s.add(cid.File, []byte("short of bytes"))
	s.blobs[lie], s.blobs[short] = []byte("what is not what was"), []byte("short")
	tests := map[string]struct {
		cid   string
		max   uint64
		token string
		want  error
	}{
		"other bytes": {lie, 99, "good", executor.ErrFileMismatch},
		"fewer bytes": {short, 99, "good", executor.ErrFileMismatch},
		"too big":     {whole, 4, "good", executor.ErrFileTooBig},
		"token":       {whole, 99, "bad", executor.ErrFileDenied},
		"no CID":      {"../../etc/passwd", 99, "good", executor.ErrFileMismatch},
	}
	for name, tt := range tests {
		as := good
		as.Token = tt.token
		_, err := files.FetchInput(t.Context(), as, executor.FetchInput{
			Attempt: "0b", CID: tt.cid, Max: tt.max,
		})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if _, err := files.FetchInput(t.Context(), good, executor.FetchInput{
		Attempt: "../x", CID: whole, Max: 99,
	}); err == nil {
		t.Error("an attempt that leads out of the folder")
	}
	if left, err := os.ReadDir(filepath.Join(dir, "0b")); err != nil || len(left) != 0 {
		t.Errorf("left of refused inputs: %v, %v", left, err)
	}
	unknown, _, err := cid.Sum(cid.File, strings.NewReader("nobody has this"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := files.FetchInput(t.Context(), good, executor.FetchInput{
		Attempt: "0c", CID: unknown.String(), Max: 9,
	}); !errors.Is(err, executor.ErrNoFile) {
		t.Errorf("unknown: %v", err)
	}
}

// TestInputsAreBoundedTogether: one job's inputs share one bound, and what an earlier life left
// unfinished counts for nobody.
func TestInputsAreBoundedTogether(t *testing.T) {
	s, files, dir := rig(t)
	const size, most = 1000, 2500
	get := func(files *fetch.Files, attempt executor.AttemptID, n int) error {
		_, err := files.FetchInput(t.Context(), good, executor.FetchInput{
			Attempt: attempt, Index: n, CID: s.add(cid.File, bytes.Repeat([]byte{byte(n)}, size)),
			Max: most,
		})
		return err
	}
	for n := range 3 {
		if err := get(files, "0d", n); n < 2 && err != nil ||
			n == 2 && !errors.Is(err, executor.ErrFileTooBig) {
			t.Errorf("input %d: %v", n, err)
		}
	}
	if err := get(files, "0d", 1); err != nil {
		t.Errorf("an input that is here: %v", err)
	}
	if err := get(files, "0e", 3); err != nil {
		t.Errorf("another's input: %v", err)
	}
	part := filepath.Join(dir, "0e", "part-1")
	if err := os.WriteFile(part, make([]byte, most), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := fetch.New(nil, nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(part); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is not whole stays: %v", err)
	}
	if err := get(again, "0e", 3); err != nil {
		t.Errorf("an input that is here after a restart: %v", err)
	}
}

func TestPut(t *testing.T) {
	s, files, _ := rig(t)
	body := bytes.Repeat([]byte("0123456789abcdef"), 50_000)
	got, err := files.Put(t.Context(), good, "a.txt", bytes.NewReader(body))
	if err != nil || got.Size != uint64(len(body)) || !bytes.Equal(s.blobs[got.CID], body) {
		t.Errorf("put %+v, %v", got, err)
	}
	if h := s.puts[0]; h.Name != "a.txt" || !strings.HasPrefix(h.Job, "ucnj1") ||
		h.Kind != storagev1.Kind_KIND_FILE {
		t.Errorf("header %v", h)
	}
	if _, err := files.Put(t.Context(), good, "empty", strings.NewReader("")); err != nil {
		t.Errorf("an empty file: %v", err)
	}
	broken := errors.New("disk broken")
	before := len(s.puts)
	reader := io.MultiReader(bytes.NewReader(body), failing{broken})
	if _, err := files.Put(t.Context(), good, "x", reader); !errors.Is(err, broken) {
		t.Errorf("a reader that fails: %v", err)
	}
	if len(s.puts) != before {
		t.Error("half a file was kept")
	}
	s.mu.Lock()
	s.full = fault.New(fault.ResourceExhausted, "STORAGE_QUOTA_EXCEEDED", "quota")
	s.mu.Unlock()
	if _, err := files.Put(t.Context(), good, "x", bytes.NewReader(body)); !errors.Is(err,
		executor.ErrFileTooBig) {
		t.Errorf("over the quota: %v", err)
	}
	bad := good
	bad.Token = "old"
	if _, err := files.Put(t.Context(), bad, "x", bytes.NewReader(body)); !errors.Is(err,
		executor.ErrFileDenied) {
		t.Errorf("an expired token: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestOpenImage(t *testing.T) {
	s, files, _ := rig(t)
	config, layer := []byte(`{"architecture":"amd64","os":"linux"}`), []byte("layer bytes")
	configCID, layerCID := s.add(cid.OCIBlob, config), s.add(cid.OCIBlob, layer)
	part := func(kind, name string, size int) string {
		c, err := cid.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.%s","digest":%q,"size":%d}`,
			kind, c.Digest(), size)
	}
	manifest := fmt.Sprintf(`{"schemaVersion":2,`+
		`"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}`,
		part("config.v1+json", configCID, len(config)),
		part("layer.v1.tar", layerCID, len(layer)))
	image := executor.ImageID(s.add(cid.OCIBlob, []byte(manifest)))
	names, err := readImage(t, files, good, image)
	if err != nil || len(names) < 5 {
		t.Fatalf("read %q, %v", names, err)
	}
	s.blobs[layerCID] = []byte("other bytes")
	if _, err := readImage(t, files, good, image); !errors.Is(err, executor.ErrFileMismatch) {
		t.Errorf("a layer that does not match: %v", err)
	}
	delete(s.blobs, layerCID)
	if _, err := readImage(t, files, good, image); !errors.Is(err, executor.ErrNoFile) {
		t.Errorf("a layer that is missing: %v", err)
	}
	notImage := executor.ImageID(s.add(cid.OCIBlob, []byte("{}")))
	if _, err := readImage(t, files, good, notImage); err == nil {
		t.Error("bytes that are no manifest make an image")
	}
	r, err := files.OpenImage(t.Context(), good, executor.FetchImage{ID: image})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil { // not read at all: the writer must end
		t.Error(err)
	}
}

func readImage(
	t *testing.T, files *fetch.Files, as executor.FileAccess, image executor.ImageID,
) (names []string, err error) {
	t.Helper()
	r, err := files.OpenImage(t.Context(), as, executor.FetchImage{ID: image})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return names, nil
		}
		if err == nil {
			_, err = io.Copy(io.Discard, in)
		}
		if err != nil {
			return names, err
		}
		names = append(names, h.Name)
	}
}
