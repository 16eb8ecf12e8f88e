// Package blob moves blobs to and from a storage service and believes it nothing: what is sent is
// hashed here and compared with the answer, what is received is verified against its CID.
//
// It is what the CLI, the gateway and executors have in common as clients of
// ucn.storage.v1.StorageService. PutFile, Fetch, Copy and what moves trees go on over connections
// that break, and where earlier calls stopped; nothing else retries: every call may be repeated by
// the caller.
package blob

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"time"

	"google.golang.org/grpc"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/oci"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// ChunkSize is the size of the chunks Put sends, in bytes.
const ChunkSize = 256 << 10

// Client reads and writes blobs of the account whose token its connection, or the context
// (rpc.WithToken), carries. It is safe for concurrent use.
type Client struct {
	storage storagev1.StorageServiceClient
}

var _ oci.Source = (*Client)(nil)

// New makes a client of a storage service.
func New(storage storagev1.StorageServiceClient) *Client { return &Client{storage} }

// Put says what is sent.
type Put struct {
	// Kind is required.
	Kind cid.Kind
	// Expect is the CID if it is known; the service then may take a blob the account holds already
	// without its bytes.
	Expect cid.CID
	// Size is the exact number of bytes, or 0 when it is not known.
	Size int64
	// Name and Job label the account's reference; see ucn.storage.v1.PutHeader.
	Name, Job string
	// Expires is when the reference ends by itself; zero: never.
	Expires time.Time
}

// Stored is what the service keeps.
type Stored struct {
	CID  cid.CID
	Size int64
	// Held says that the account held the blob before.
	Held bool
}

// Put sends r to its end. When it returns without error the blob is durable there. An answer that
// names other bytes than were sent is cid.ReasonMismatch.
func (c *Client) Put(ctx context.Context, p Put, r io.Reader) (Stored, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a stream that is given up without half-close keeps nothing
	stream, err := c.storage.Put(ctx)
	if err != nil {
		return Stored{}, fmt.Errorf("put blob: %w", err)
	}
	h := cid.New(p.Kind)
	if h == nil || p.Size < 0 {
		return Stored{}, fmt.Errorf("put blob: kind %s, size %d", p.Kind, p.Size)
	}
	whole, err := send(stream, p, io.TeeReader(r, h))
	if err != nil {
		return Stored{}, fmt.Errorf("put blob: %w", err)
	}
	response, err := stream.CloseAndRecv()
	if err != nil {
		return Stored{}, fmt.Errorf("put blob: %w", err)
	}
	want := p.Expect
	if whole || want.IsZero() {
		want = sumOf(p.Kind, h)
	}
	return storedOf(response, want)
}

type putStream = grpc.ClientStreamingClient[storagev1.PutRequest, storagev1.PutResponse]

// send sends header and bytes. It is not whole when the service answered early.
func send(stream putStream, p Put, r io.Reader) (whole bool, err error) {
	err = stream.Send(&storagev1.PutRequest{Part: &storagev1.PutRequest_Header{
		Header: p.header()}})
	for err == nil {
		chunk := make([]byte, ChunkSize) // gRPC may look at it after Send returned
		n, readErr := fill(r, chunk)
		if n > 0 {
			err = stream.Send(&storagev1.PutRequest{Part: &storagev1.PutRequest_Chunk{
				Chunk: chunk[:n]}})
		}
		switch {
		case err != nil:
		case readErr == io.EOF:
			return true, nil
		case readErr != nil:
			return false, fmt.Errorf("read what is to be sent: %w", readErr)
		}
	}
	if errors.Is(err, io.EOF) { // the service has answered: CloseAndRecv tells what
		return false, nil
	}
	return false, err
}

// header is what a service is told ahead of the bytes.
func (p Put) header() *storagev1.PutHeader {
	header := &storagev1.PutHeader{ExpectedCid: p.Expect.String(), Size: uint64(p.Size),
		Name: p.Name, Job: p.Job, Kind: storagev1.Kind_KIND_FILE}
	switch p.Kind {
	case cid.OCIBlob:
		header.Kind = storagev1.Kind_KIND_OCI_BLOB
	case cid.Directory:
		header.Kind = storagev1.Kind_KIND_DIRECTORY
	}
	if !p.Expires.IsZero() {
		header.ExpiresMs = uint64(p.Expires.UnixMilli())
	}
	return header
}

// fill reads until p is full. Unlike io.ReadFull it takes only a clean end for the end.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = r.Read(p[n:])
		n += k
	}
	return n, err
}

func sumOf(kind cid.Kind, h hash.Hash) cid.CID {
	sum := [cid.SumSize]byte(h.Sum(nil))
	switch kind {
	case cid.OCIBlob:
		return cid.OfOCI(sum)
	case cid.Directory:
		return cid.OfDirectory(sum)
	}
	return cid.OfFile(sum)
}

func storedOf(response *storagev1.PutResponse, want cid.CID) (Stored, error) {
	got, err := cid.Parse(response.GetCid())
	if err != nil {
		return Stored{}, fmt.Errorf("put blob: the service's answer: %w", err)
	}
	if got != want {
		return Stored{}, fmt.Errorf("put blob: the service's answer: %w", cid.Mismatch(want, got))
	}
	return Stored{CID: got, Size: int64(min(response.GetSize(), math.MaxInt64)),
		Held: response.GetDeduplicated()}, nil
}

// Open starts reading the whole blob. Its end is io.EOF only if every byte was right; otherwise
// cid.ReasonMismatch, and what was read must not be used. Close it.
func (c *Client) Open(ctx context.Context, blob cid.CID) (io.ReadCloser, error) {
	return c.OpenPath(ctx, blob, "", blob)
}

// OpenPath is Open of what stands at path inside the directory root, which must be blob.
func (c *Client) OpenPath(ctx context.Context, root cid.CID, path string, blob cid.CID,
) (io.ReadCloser, error) {
	s, err := c.get(ctx, &storagev1.GetRequest{Cid: root.String(), Path: path})
	if err != nil {
		return nil, err
	}
	size := s.header.GetReference().GetSize()
	if s.header.GetOffset() != 0 || s.header.GetLength() != size || size > math.MaxInt64 {
		return nil, errors.Join(errors.New("get blob: the service sends another range"), s.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{cid.NewReader(s, blob, int64(size)), s}, nil
}

// GetRange writes a part of a file to w, verified against its CID without trust in the service; so
// is the file's size if the part ends with it. Only of an empty file a part may be empty. OCI blobs
// have no such proof: Open them whole.
func (c *Client) GetRange(ctx context.Context, file cid.CID, part cid.Part, w io.Writer) error {
	return c.GetRangeAt(ctx, Place{Root: file, Blob: file}, part, w)
}

// Place is where a blob stands.
type Place struct {
	// Root is a directory and Path a path inside it, or the blob itself and "".
	Root cid.CID
	Path string
	// Blob is what must stand there.
	Blob cid.CID
}

// GetRangeAt is GetRange of the file that stands at a place.
func (c *Client) GetRangeAt(ctx context.Context, at Place, part cid.Part, w io.Writer) (err error) {
	if part.Offset < 0 || part.Length < 0 || part.Length == 0 && part.Size != 0 {
		return fmt.Errorf("get range of %s: offset %d, length %d of %d", at.Blob, part.Offset,
			part.Length, part.Size)
	}
	s, err := c.get(ctx, &storagev1.GetRequest{Cid: at.Root.String(), Path: at.Path,
		Offset: uint64(part.Offset), Length: uint64(part.Length),
		Encoding: storagev1.Encoding_ENCODING_BAO_SLICE})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := cid.DecodeSlice(w, s, at.Blob, part); err != nil {
		return fmt.Errorf("get range: %w", err)
	}
	return nil
}

// Push puts every blob of an image, the manifest last, and calls done after each.
func (c *Client) Push(ctx context.Context, image *oci.Image, name string,
	done func(part oci.Part, s Stored),
) error {
	for _, part := range image.Blobs() {
		p := Put{Kind: cid.OCIBlob, Expect: part.CID, Size: part.Size}
		if part.CID == image.Manifest.CID {
			p.Name = name
		}
		s, err := c.pushOne(ctx, image, p)
		if err != nil {
			return fmt.Errorf("push %s: %w", part.CID.Digest(), err)
		}
		done(part, s)
	}
	return nil
}

func (c *Client) pushOne(ctx context.Context, image *oci.Image, p Put) (s Stored, err error) {
	r, err := image.Open(ctx, p.Expect)
	if err != nil {
		return Stored{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return c.Put(ctx, p, r)
}

// stream is the bytes of a Get as a reader.
type stream struct {
	header *storagev1.GetHeader
	recv   grpc.ServerStreamingClient[storagev1.GetResponse]
	cancel context.CancelFunc
	rest   []byte
}

func (c *Client) get(ctx context.Context, request *storagev1.GetRequest) (*stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	recv, err := c.storage.Get(ctx, request)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("get %s: %w", request.GetCid(), err)
	}
	first, err := recv.Recv()
	if err == nil && first.GetHeader() == nil {
		err = errors.New("the service's first message is no header")
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("get %s: %w", request.GetCid(), err)
	}
	return &stream{header: first.GetHeader(), recv: recv, cancel: cancel}, nil
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		m, err := s.recv.Recv()
		if err != nil {
			return 0, err
		}
		s.rest = m.GetChunk()
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Close ends the stream.
func (s *stream) Close() error {
	s.cancel()
	return nil
}
