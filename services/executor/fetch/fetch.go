// Package fetch is the network's storage as an executor sees it, over a StorageService: images and
// inputs come in with the owner's token, outputs and logs go out with it.
//
// It promises that bytes are checked against their CID while they stream, and that an input is
// seen under its final path only when all of it was right. It keeps inputs on this host's disk
// until they are dropped, one folder per attempt, and caches nothing else.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/oci"
	"github.com/united-containers/ucn/kit/registry"
	"github.com/united-containers/ucn/kit/rpc"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/executor"
)

const (
	chunkBytes = 256 << 10 // of one message of Put
	dirMode    = 0o755     // containers' users are nobody on this host
	inputMode  = 0o444
	reserve    = 512 << 20   // bytes of the disk that no input takes
	stallWait  = time.Minute // without a byte from storage; then the call is given up
)

// Files is an executor.Files. Safe for concurrent use.
type Files struct {
	storage  storagev1.StorageServiceClient
	registry *registry.Client
	proven   *proven
	dir      string

	reserving sync.Mutex // held while disk is taken for an input
}

var _ executor.Files = (*Files)(nil)

// New returns storage reached through client, and registries through reg, with inputs under dir,
// which it makes. Every folder above dir must let others pass: containers read inputs as nobody.
// Inputs that an earlier life did not fetch whole are removed: nobody else may use dir.
func New(client storagev1.StorageServiceClient, reg *registry.Client, dir string,
) (*Files, error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fmt.Errorf("make the folder of inputs: %w", err)
	}
	parts, err := fs.Glob(os.DirFS(dir), "*/"+partPrefix+"*")
	for _, part := range parts {
		err = errors.Join(err, os.Remove(filepath.Join(dir, part)))
	}
	if err != nil {
		return nil, fmt.Errorf("remove inputs that are not whole: %w", err)
	}
	return &Files{storage: client, registry: reg, proven: newProven(dir), dir: dir}, nil
}

// source reads the blobs of an image.
type source struct {
	files *Files
	token string
}

// Open implements oci.Source.
func (s source) Open(ctx context.Context, c cid.CID) (io.ReadCloser, error) {
	r, _, err := s.files.get(ctx, s.token, c.String())
	return r, err
}

// Source implements executor.Files.
func (f *Files) Source(want executor.FetchImage) (string, error) {
	if want.Reference == "" {
		return "", nil
	}
	return registry.Source(want.Reference, credentials(want)...)
}

// OpenImage implements executor.Files.
func (f *Files) OpenImage(
	ctx context.Context, as executor.FileAccess, want executor.FetchImage,
) (io.ReadCloser, error) {
	c, err := cid.Parse(string(want.ID))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", executor.ErrFileMismatch, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		var err error
		if want.Reference != "" {
			err = f.fetchLayout(ctx, w, want, c.Digest())
		} else {
			err = oci.WriteLayout(ctx, w, c, "", source{f, as.Token})
		}
		_ = w.CloseWithError(told(err)) // always nil
	}()
	return &layout{PipeReader: r, cancel: cancel, done: done}, nil
}

func credentials(want executor.FetchImage) []registry.Credential {
	list := make([]registry.Credential, len(want.Credentials))
	for i, c := range want.Credentials {
		list[i] = registry.Credential(c)
	}
	return list
}

// CheckImage implements executor.Files.
func (f *Files) CheckImage(
	ctx context.Context, as executor.FileAccess, want executor.FetchImage,
) error {
	if want.Reference != "" {
		return f.checkSource(ctx, want)
	}
	ctx, cancel := context.WithTimeout(rpc.WithToken(ctx, as.Token), stallWait)
	defer cancel()
	m, err := f.storage.Stat(ctx, &storagev1.StatRequest{Cid: string(want.ID), Image: true})
	if err != nil {
		return told(err)
	}
	// A manifest is no secret: whoever knows it can put it. The layers are.
	if image := m.GetImage(); image == nil || len(image.GetMissing()) > 0 {
		return fault.New(executor.ErrNoFile.Kind(), executor.ErrNoFile.Reason(),
			"the account holds the manifest of %s, and not all of its parts", want.ID)
	}
	return nil
}

// layout is a tar that is being written; closing it ends the writer.
type layout struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

// Close ends the stream and waits for its goroutine.
func (l *layout) Close() error {
	l.cancel()
	err := l.PipeReader.Close()
	<-l.done
	return err
}

// get opens a blob as it comes from storage, not checked, and tells its size.
func (f *Files) get(ctx context.Context, token, name string) (io.ReadCloser, uint64, error) {
	ctx, cancel := context.WithCancel(rpc.WithToken(ctx, token))
	stream, err := f.storage.Get(ctx, &storagev1.GetRequest{Cid: name})
	if err != nil {
		cancel()
		return nil, 0, told(err)
	}
	first, err := newDownload(stream, cancel).recv()
	if err != nil {
		cancel()
		return nil, 0, told(err)
	}
	header := first.GetHeader()
	if header == nil {
		cancel()
		return nil, 0, errors.New("storage sent bytes before the header")
	}
	return newDownload(stream, cancel), header.GetReference().GetSize(), nil
}

// chunks is what storage sends.
type chunks interface {
	Recv() (*storagev1.GetResponse, error)
}

// download reads the chunks of a Get. Storage that says nothing for stallWait ends it: others wait
// for the same image, and nobody else would.
type download struct {
	stream  chunks
	cancel  context.CancelFunc
	stalled atomic.Bool
	rest    []byte
}

func newDownload(stream chunks, cancel context.CancelFunc) *download {
	return &download{stream: stream, cancel: cancel}
}

var errStalled = errors.New("storage stopped sending")

func (d *download) recv() (*storagev1.GetResponse, error) {
	watch := time.AfterFunc(stallWait, func() {
		d.stalled.Store(true)
		d.cancel()
	})
	defer watch.Stop()
	m, err := d.stream.Recv()
	if err != nil && d.stalled.Load() {
		return nil, errStalled
	}
	return m, err
}

// Read implements io.Reader.
func (d *download) Read(p []byte) (int, error) {
	for len(d.rest) == 0 {
		m, err := d.recv()
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		if err != nil {
			return 0, told(err)
		}
		d.rest = m.GetChunk()
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// Close ends the call.
func (d *download) Close() error {
	d.cancel()
	return nil
}

func (f *Files) folder(attempt executor.AttemptID) string {
	return filepath.Join(f.dir, string(attempt))
}

// FetchInput implements executor.Files.
func (f *Files) FetchInput(
	ctx context.Context, as executor.FileAccess, want executor.FetchInput,
) (string, error) {
	if err := want.Attempt.Validate(); err != nil {
		return "", err
	}
	c, err := cid.Parse(want.CID)
	if err != nil {
		return "", fmt.Errorf("%w: %w", executor.ErrFileMismatch, err)
	}
	path := filepath.Join(f.folder(want.Attempt), strconv.Itoa(want.Index))
	if _, err := os.Stat(path); err == nil {
		return path, nil // it was renamed here when all of it was right
	}
	if err := os.MkdirAll(f.folder(want.Attempt), dirMode); err != nil {
		return "", fmt.Errorf("make the folder of the attempt: %w", err)
	}
	body, size, err := f.get(ctx, as.Token, want.CID)
	if err != nil {
		return "", err
	}
	defer func() { _ = body.Close() }() // only read
	part, err := f.reserve(&want, size)
	if err != nil {
		return "", err
	}
	verified := cid.NewReader(io.LimitReader(body, int64(size)+1), c, int64(size))
	if err := write(part, path, verified); err != nil {
		return "", told(err)
	}
	return path, nil
}

// partPrefix begins the names of inputs that are not whole.
const partPrefix = "part-"

// reserve takes the disk for an input at once, so that inputs that are fetched side by side see
// each other, and together keep to the bound.
func (f *Files) reserve(want *executor.FetchInput, size uint64) (part *os.File, err error) {
	f.reserving.Lock()
	defer f.reserving.Unlock()
	list, err := os.ReadDir(f.folder(want.Attempt))
	if err != nil {
		return nil, fmt.Errorf("look at the inputs: %w", err)
	}
	sum := size
	for _, e := range list {
		if info, err := e.Info(); err == nil { // else it failed meanwhile
			sum += uint64(max(info.Size(), 0))
		}
	}
	if sum > want.Max || sum < size {
		return nil, executor.ErrFileTooBig
	}
	if err := roomFor(f.dir, size); err != nil {
		return nil, err
	}
	part, err = os.CreateTemp(f.folder(want.Attempt), partPrefix)
	if err != nil {
		return nil, fmt.Errorf("create input: %w", err)
	}
	if size > 0 {
		err = unix.Fallocate(int(part.Fd()), 0, 0, int64(size))
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = part.Truncate(int64(size)) // counted, if not taken
		}
	}
	if err != nil {
		err = errors.Join(err, part.Close(), os.Remove(part.Name()))
		return nil, fmt.Errorf("take disk for the input: %w", err)
	}
	return part, nil
}

// roomFor refuses what would fill the disk that everybody here lives on.
func roomFor(dir string, size uint64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at the disk: %w", err)
	}
	if free := st.Bavail * uint64(st.Bsize); size > free || free-size < reserve {
		return fault.New(executor.ErrFileTooBig.Kind(), executor.ReasonFileTooBig,
			"an input of %d bytes does not fit the disk of this host", size)
	}
	return nil
}

// write makes the file appear at path whole or not at all.
func write(file *os.File, path string, body io.Reader) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	_, err = io.Copy(file, body)
	err = errors.Join(err, file.Chmod(inputMode), file.Sync(), file.Close())
	if err != nil {
		return fmt.Errorf("write input: %w", err)
	}
	return os.Rename(file.Name(), path)
}

// DropInputs implements executor.Files.
func (f *Files) DropInputs(_ context.Context, attempt executor.AttemptID) error {
	if err := attempt.Validate(); err != nil {
		return err
	}
	if err := os.RemoveAll(f.folder(attempt)); err != nil {
		return fmt.Errorf("remove inputs: %w", err)
	}
	return nil
}

// Put implements executor.Files.
func (f *Files) Put(
	ctx context.Context, as executor.FileAccess, name string, body io.Reader,
) (executor.StoredFile, error) {
	ctx, cancel := context.WithCancel(rpc.WithToken(ctx, as.Token))
	defer cancel() // what is not half-closed is not kept
	stream, err := f.storage.Put(ctx)
	if err != nil {
		return executor.StoredFile{}, told(err)
	}
	err = stream.Send(&storagev1.PutRequest{Part: &storagev1.PutRequest_Header{
		Header: &storagev1.PutHeader{
			Kind: storagev1.Kind_KIND_FILE, Name: name, Job: id.Bech32(id.Job, as.Job),
		},
	}})
	for chunk := make([]byte, chunkBytes); err == nil; {
		n, readErr := io.ReadFull(body, chunk)
		if n > 0 {
			err = stream.Send(&storagev1.PutRequest{
				Part: &storagev1.PutRequest_Chunk{Chunk: chunk[:n]},
			})
		}
		if errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF) {
			break
		}
		if readErr != nil {
			return executor.StoredFile{}, readErr
		}
	}
	// When Send failed, the server has ended the call, and the reason is in its answer.
	m, err := stream.CloseAndRecv()
	if err != nil {
		return executor.StoredFile{}, told(err)
	}
	return executor.StoredFile{CID: m.GetCid(), Size: m.GetSize()}, nil
}

// told turns storage's faults into the ones that the agent knows, with storage's words.
func told(err error) error {
	f := fault.From(err)
	if f == nil {
		return err
	}
	var as *fault.Error
	switch {
	case f.Kind() == fault.NotFound:
		as = executor.ErrNoFile
	case f.Kind() == fault.DataLoss, errors.Is(err, cid.ReasonMismatch):
		as = executor.ErrFileMismatch
	case f.Kind() == fault.PermissionDenied, f.Kind() == fault.Unauthenticated:
		as = executor.ErrFileDenied
	case f.Kind() == fault.ResourceExhausted && strings.Contains(string(f.Reason()), "QUOTA"):
		as = executor.ErrFileTooBig
	default:
		return err
	}
	return fault.New(as.Kind(), as.Reason(), "%s", f.Message()).Because(err)
}
