package blob

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/united-containers/ucn/kit/cid"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// Partial is a file that a fetch completes, such as an *os.File.
type Partial interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
}

// Fetch says what is fetched.
type Fetch struct {
	// Blob is what is wanted, of Size bytes as its reference or its directory says.
	Blob cid.CID
	Size int64
	// Root and Path name it as OpenPath does; zero: Blob itself.
	Root cid.CID
	Path string
	// Have is how many bytes of an earlier, interrupted fetch are in the file.
	Have int64
}

// Fetched is what a fetch did.
type Fetched struct {
	// Kept is how many bytes that were there were right, and were not fetched again.
	Kept int64
	// Anew says that what was there was wrong and everything was fetched.
	Anew bool
}

// Fetch completes a file so that it is the blob, and nothing else, when it returns without error.
// What is there already is verified and kept, or found wrong and fetched anew: of a file (cid.File)
// before its first new byte, of an OCI blob at its end. Of a file only verified bytes are written.
// It goes on over connections that break. After an error the file may be given to Fetch again.
func (c *Client) Fetch(ctx context.Context, f Fetch, to Partial, tell Progress) (
	Fetched, error,
) {
	t := &fetch{c: c, f: f, to: to, told: progress{tell: tell}, patience: &patience{}}
	return t.do(ctx)
}

// fetch is one fetch under way.
type fetch struct {
	c        *Client
	f        Fetch
	to       Partial
	told     progress
	patience *patience
	result   Fetched
	at       int64 // bytes in the file
	verified bool  // all before at were; of a file only
}

func (t *fetch) do(ctx context.Context) (Fetched, error) {
	if t.f.Root.IsZero() {
		t.f.Root, t.f.Path = t.f.Blob, ""
	}
	if t.f.Size < 0 || t.f.Have < 0 {
		return Fetched{}, fmt.Errorf("fetch %s: size %d, have %d", t.f.Blob, t.f.Size, t.f.Have)
	}
	if err := t.run(ctx); err != nil {
		return Fetched{}, fmt.Errorf("fetch %s: %w", t.f.Blob, err)
	}
	t.patience.next()
	return t.result, nil
}

func (t *fetch) run(ctx context.Context) error {
	whole, err := t.look()
	if whole || err != nil {
		return err
	}
	for {
		t.told.settle(t.at)
		if t.f.Blob.Kind() == cid.File {
			err = t.slice(ctx)
		} else {
			err = t.plain(ctx)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, cid.ReasonPrefix) && !t.result.Anew:
			if err := t.anew(); err != nil {
				return err
			}
		default:
			if t.patience.wait != 0 {
				t.patience.got(t.at)
			}
			if !t.patience.again(ctx, err) {
				return err
			}
		}
	}
}

// look decides what of the file is worth keeping: whole groups, or all of it.
func (t *fetch) look() (whole bool, err error) {
	if t.f.Have >= t.f.Size && t.f.Have > 0 {
		got, _, err := cid.Sum(t.f.Blob.Kind(), io.NewSectionReader(t.to, 0, t.f.Size))
		if err != nil {
			return false, err
		}
		if got != t.f.Blob {
			return false, t.anew()
		}
		t.result.Kept, t.at = t.f.Size, t.f.Size
		t.told.settle(t.at)
		return true, t.to.Truncate(t.f.Size)
	}
	t.at = t.f.Have - t.f.Have%cid.GroupSize
	t.result.Kept, t.verified = t.at, t.at == 0
	return false, t.to.Truncate(t.at)
}

// anew gives up what is there.
func (t *fetch) anew() error {
	t.result, t.at, t.verified, t.patience.most = Fetched{Anew: true}, 0, true, 0
	return t.to.Truncate(0)
}

func (t *fetch) open(ctx context.Context, encoding storagev1.Encoding) (*stream, error) {
	s, err := t.c.get(ctx, &storagev1.GetRequest{Cid: t.f.Root.String(), Path: t.f.Path,
		Offset: uint64(t.at), Encoding: encoding})
	if err != nil {
		return nil, err
	}
	t.patience.got(t.at)
	h := s.header
	if h.GetReference().GetSize() != uint64(t.f.Size) || h.GetOffset() != uint64(t.at) ||
		h.GetLength() != uint64(t.f.Size-t.at) {
		return nil, errors.Join(fmt.Errorf("the service sends %d bytes behind %d of %d, not %d of %d",
			h.GetLength(), h.GetOffset(), h.GetReference().GetSize(), t.at, t.f.Size), s.Close())
	}
	return s, nil
}

// slice fetches the rest of a file; what is written has been verified.
func (t *fetch) slice(ctx context.Context) (err error) {
	s, err := t.open(ctx, storagev1.Encoding_ENCODING_BAO_SLICE)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if t.verified && t.at > 0 {
		return cid.DecodeSlice(t, s, t.f.Blob,
			cid.Part{Offset: t.at, Length: t.f.Size - t.at, Size: t.f.Size})
	}
	err = cid.DecodeRest(t, s, t.f.Blob, t.f.Size, io.NewSectionReader(t.to, 0, t.at))
	// Something was written only if what stands before it is right.
	t.verified = t.verified || t.at > t.result.Kept
	return err
}

// plain fetches the rest of a blob that verifies only as a whole.
func (t *fetch) plain(ctx context.Context) (err error) {
	if t.at < t.f.Size || t.f.Size == 0 {
		s, err := t.open(ctx, storagev1.Encoding_ENCODING_UNSPECIFIED)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		if _, err := io.Copy(t, io.LimitReader(s, t.f.Size-t.at)); err != nil {
			return err
		}
		if t.at < t.f.Size {
			return io.ErrUnexpectedEOF
		}
	}
	got, _, err := cid.Sum(t.f.Blob.Kind(), io.NewSectionReader(t.to, 0, t.f.Size))
	switch {
	case err != nil:
		return err
	case got == t.f.Blob:
		return nil
	case t.result.Kept > 0:
		return cid.WrongPrefix(t.f.Blob)
	}
	return errors.Join(cid.Mismatch(t.f.Blob, got), t.anew())
}

// Write adds bytes to the file.
func (t *fetch) Write(p []byte) (int, error) {
	n, err := t.to.WriteAt(p, t.at)
	t.at += int64(n)
	t.told.moved(n)
	return n, err
}

// Part is a part of a file; see cid.Part for what is proven of its size.
type Part struct {
	File cid.CID
	cid.Part
}

// Copy writes a part to w, verified as GetRange does, and goes on over connections that break.
func (c *Client) Copy(ctx context.Context, part Part, w io.Writer, tell Progress) error {
	to := &copied{w: w, told: progress{tell: tell}}
	p := &patience{}
	rest := part.Part
	for {
		rest.Offset, rest.Length = part.Offset+to.n, part.Length-to.n
		err := c.GetRange(ctx, part.File, rest, to)
		if err == nil {
			return nil
		}
		if to.n > 0 {
			p.got(to.n)
		}
		if to.err != nil || !p.again(ctx, err) {
			return err
		}
	}
}

// copied counts what was written.
type copied struct {
	w    io.Writer
	told progress
	n    int64
	err  error // of w
}

// Write implements io.Writer.
func (c *copied) Write(p []byte) (n int, err error) {
	n, c.err = c.w.Write(p)
	c.n += int64(n)
	c.told.moved(n)
	return n, c.err
}
