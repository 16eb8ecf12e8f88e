package clitest

import (
	"bytes"
	"context"
	"io"
	"maps"
	"slices"
	"sync"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/dir"
	"github.com/united-containers/ucn/kit/fault"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// frame is how many bytes Get sends at once.
const frame = 256 << 10

// Storage keeps blobs in memory, whoever's they are. The zero value is ready.
type Storage struct {
	storagev1.UnimplementedStorageServiceServer

	// Told answers ListEvents. Set it before the first call.
	Told func(*storagev1.ListEventsRequest) *storagev1.ListEventsResponse

	// Says answers Stat in place of the truth, unless it returns nil. Set it before the first call.
	Says func(*storagev1.StatRequest) *storagev1.Reference

	mu      sync.Mutex // guards what follows
	blobs   map[string]blob
	uploads map[string]*storagev1.Upload
	bytes   map[string][]byte // of uploads, durable
	hook    func(effect string) error
	moved   Moved
	calls   int           // under way
	quiet   chan struct{} // closed when there are none; nil while nobody waits
}

// Moved counts bytes of blobs that crossed the wire.
type Moved struct{ In, Out int64 }

type blob struct {
	reference *storagev1.Reference
	bytes     []byte
}

var _ storagev1.StorageServiceServer = (*Storage)(nil)

// Hook has f called before and after each call, and with each chunk, of which it is told the name:
// "Stat", "Stat done", "Put chunk". What it returns is what the caller gets. Nil takes it away.
func (s *Storage) Hook(f func(effect string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = f
}

// Quiet waits until no call is under way: those of a client that died may go on a little.
func (s *Storage) Quiet() {
	s.mu.Lock()
	if s.calls == 0 {
		s.mu.Unlock()
		return
	}
	if s.quiet == nil {
		s.quiet = make(chan struct{})
	}
	quiet := s.quiet
	s.mu.Unlock()
	<-quiet
}

func (s *Storage) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls += n; s.calls == 0 && s.quiet != nil {
		close(s.quiet)
		s.quiet = nil
	}
}

// Moved returns what crossed the wire since it was last asked.
func (s *Storage) Moved() Moved {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.moved
	s.moved = Moved{}
	return m
}

func (s *Storage) effect(name string) error {
	s.mu.Lock()
	hook := s.hook
	s.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(name)
}

// around makes a call of do with an effect before and one after it.
func around[T any](s *Storage, name string, do func() (*T, error)) (*T, error) {
	s.count(1)
	defer s.count(-1)
	if err := s.effect(name); err != nil {
		return nil, err
	}
	answer, err := do()
	if err == nil {
		err = s.effect(name + " done")
	}
	return answer, err
}

// Keep stores a file and returns its CID.
func (s *Storage) Keep(content []byte) string {
	return s.keep(&storagev1.PutHeader{Kind: storagev1.Kind_KIND_FILE}, content)
}

// KeepAs stores a blob of another kind.
func (s *Storage) KeepAs(kind storagev1.Kind, content []byte) string {
	return s.keep(&storagev1.PutHeader{Kind: kind}, content)
}

// Held tells whether a blob is kept.
func (s *Storage) Held(name string) bool {
	_, err := s.find(name)
	return err == nil
}

// Damage changes the bytes behind a CID.
func (s *Storage) Damage(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[name].bytes[0] ^= 1
}

// ListEvents implements storagev1.StorageServiceServer.
func (s *Storage) ListEvents(_ context.Context, r *storagev1.ListEventsRequest) (
	*storagev1.ListEventsResponse, error,
) {
	return s.Told(r), nil
}

func kindOf(kind storagev1.Kind) cid.Kind {
	switch kind {
	case storagev1.Kind_KIND_OCI_BLOB:
		return cid.OCIBlob
	case storagev1.Kind_KIND_DIRECTORY:
		return cid.Directory
	}
	return cid.File
}

func (s *Storage) keep(h *storagev1.PutHeader, content []byte) string {
	c, size, err := cid.Sum(kindOf(h.GetKind()), bytes.NewReader(content))
	if err != nil {
		panic("clitest: " + err.Error()) // memory does not fail
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blobs == nil {
		s.blobs = map[string]blob{}
	}
	s.blobs[c.String()] = blob{&storagev1.Reference{
		Cid: c.String(), Size: uint64(size), Kind: h.GetKind(), Name: h.GetName(), CreatedMs: 1,
	}, content}
	return c.String()
}

func (s *Storage) find(name string) (blob, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.blobs[name]
	if !ok {
		return blob{}, fault.New(fault.NotFound, "BLOB_NOT_FOUND", "no blob %s in this account", name)
	}
	return b, nil
}

// resolve finds what stands at a path.
func (s *Storage) resolve(name, path string) (blob, error) {
	if path == "" {
		return s.find(name)
	}
	root, err := cid.Parse(name)
	if err != nil {
		return blob{}, err
	}
	at, err := dir.Walk(context.Background(), root, path, s.entries)
	if err != nil {
		return blob{}, err
	}
	return s.find(at.CID.String())
}

func (s *Storage) entries(_ context.Context, c cid.CID) ([]dir.Entry, error) {
	b, err := s.find(c.String())
	if err != nil {
		return nil, err
	}
	return dir.Decode(b.bytes)
}

// Put implements the service.
func (s *Storage) Put(
	stream grpc.ClientStreamingServer[storagev1.PutRequest, storagev1.PutResponse],
) error {
	answer, err := around(s, "Put", func() (*storagev1.PutResponse, error) {
		return s.put(stream)
	})
	if err != nil {
		return err
	}
	return stream.SendAndClose(answer)
}

func (s *Storage) put(
	stream grpc.ClientStreamingServer[storagev1.PutRequest, storagev1.PutResponse],
) (*storagev1.PutResponse, error) {
	first, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	header, content := first.GetHeader(), []byte{}
	if b, err := s.find(header.GetExpectedCid()); err == nil {
		return &storagev1.PutResponse{Cid: b.reference.GetCid(), Size: b.reference.GetSize(),
			Deduplicated: true}, nil
	}
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		if err := s.arrived("Put chunk", m.GetChunk()); err != nil {
			return nil, err
		}
		content = append(content, m.GetChunk()...)
	}
	name, err := s.verified(header, content)
	return &storagev1.PutResponse{Cid: name, Size: uint64(len(content))}, err
}

// verified keeps a blob if it is what was announced.
func (s *Storage) verified(header *storagev1.PutHeader, content []byte) (string, error) {
	if size := header.GetSize(); size != 0 && size != uint64(len(content)) {
		return "", fault.New(fault.InvalidArgument, "BLOB_SIZE_MISMATCH",
			"the blob was announced with %d bytes, %d arrived", size, len(content))
	}
	got, _, err := cid.Sum(kindOf(header.GetKind()), bytes.NewReader(content))
	if err != nil {
		return "", err
	}
	if want := header.GetExpectedCid(); want != "" && want != got.String() {
		return "", fault.New(fault.InvalidArgument, cid.ReasonMismatch, "other bytes than %s", want)
	}
	return s.keep(header, content), nil
}

func (s *Storage) arrived(name string, chunk []byte) error {
	s.mu.Lock()
	s.moved.In += int64(len(chunk))
	s.mu.Unlock()
	return s.effect(name)
}

// Get implements the service.
func (s *Storage) Get(
	r *storagev1.GetRequest, stream grpc.ServerStreamingServer[storagev1.GetResponse],
) error {
	if err := s.effect("Get"); err != nil {
		return err
	}
	b, err := s.resolve(r.GetCid(), r.GetPath())
	if err != nil {
		return err
	}
	size := b.reference.GetSize()
	length := r.GetLength()
	if length == 0 && r.GetOffset() <= size {
		length = size - r.GetOffset()
	}
	if r.GetOffset() > size || length > size-r.GetOffset() {
		return fault.New(fault.OutOfRange, "RANGE_OUTSIDE_BLOB", "outside")
	}
	err = stream.Send(&storagev1.GetResponse{Part: &storagev1.GetResponse_Header{
		Header: &storagev1.GetHeader{Reference: b.reference, Offset: r.GetOffset(), Length: length},
	}})
	if err != nil {
		return err
	}
	content := b.bytes[r.GetOffset() : r.GetOffset()+length]
	if r.GetEncoding() == storagev1.Encoding_ENCODING_BAO_SLICE {
		if content, err = b.slice(int64(r.GetOffset()), int64(length)); err != nil {
			return err
		}
	}
	return s.send(stream, content)
}

// slice encodes a range; bytes that were damaged are found as by the real service.
func (b blob) slice(offset, length int64) ([]byte, error) {
	var h cid.Hasher
	if _, err := h.Write(b.bytes); err != nil {
		return nil, err
	}
	outboard := &writerAt{}
	root, err := h.Finish(outboard)
	if err != nil {
		return nil, err
	}
	if cid.OfFile(root).String() != b.reference.GetCid() {
		return nil, fault.New(fault.DataLoss, "BLOB_DAMAGED", "the stored bytes are damaged")
	}
	var out bytes.Buffer
	err = cid.Tree{Data: bytes.NewReader(b.bytes), Outboard: bytes.NewReader(outboard.b),
		Size: int64(len(b.bytes)), Root: root,
	}.CopySlice(context.Background(), &out, offset, length)
	return out.Bytes(), err
}

type writerAt struct{ b []byte }

// WriteAt implements io.WriterAt.
func (w *writerAt) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(w.b) {
		w.b = append(w.b, make([]byte, need-len(w.b))...)
	}
	return copy(w.b[off:], p), nil
}

func (s *Storage) send(
	stream grpc.ServerStreamingServer[storagev1.GetResponse], content []byte,
) error {
	for len(content) > 0 {
		n := min(frame, len(content))
		chunk := bytes.Clone(content[:n]) // gRPC may look at it later
		if err := s.effect("Get chunk"); err != nil {
			return err
		}
		err := stream.Send(&storagev1.GetResponse{Part: &storagev1.GetResponse_Chunk{Chunk: chunk}})
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.moved.Out += int64(n)
		s.mu.Unlock()
		content = content[n:]
	}
	return s.effect("Get done")
}

// List implements the service.
func (s *Storage) List(context.Context, *storagev1.ListRequest) (*storagev1.ListResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := &storagev1.ListResponse{}
	for _, name := range slices.Sorted(maps.Keys(s.blobs)) {
		answer.References = append(answer.References, s.blobs[name].reference)
	}
	return answer, nil
}

// ListDirectory implements the service, in one page.
func (s *Storage) ListDirectory(ctx context.Context, r *storagev1.ListDirectoryRequest) (
	*storagev1.ListDirectoryResponse, error,
) {
	b, err := s.resolve(r.GetCid(), r.GetPath())
	if err != nil {
		return nil, err
	}
	if b.reference.GetKind() != storagev1.Kind_KIND_DIRECTORY {
		return nil, fault.New(fault.FailedPrecondition, "NOT_A_DIRECTORY", "it is no directory")
	}
	entries, err := dir.Decode(b.bytes)
	answer := &storagev1.ListDirectoryResponse{Cid: b.reference.GetCid()}
	for _, e := range entries {
		answer.Entries = append(answer.Entries, &storagev1.DirectoryEntry{
			Name: e.Name, Cid: e.CID.String(), Size: uint64(e.Size), Mode: e.Mode,
			Kind: dir.KindOf(e),
		})
	}
	return answer, err
}

// Stat implements the service.
func (s *Storage) Stat(_ context.Context, r *storagev1.StatRequest) (
	*storagev1.StatResponse, error,
) {
	return around(s, "Stat", func() (*storagev1.StatResponse, error) {
		if s.Says != nil {
			if lie := s.Says(r); lie != nil {
				return &storagev1.StatResponse{Reference: lie}, nil
			}
		}
		b, err := s.resolve(r.GetCid(), r.GetPath())
		return &storagev1.StatResponse{Reference: b.reference}, err
	})
}
