package blob

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/fault"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// uploadFrom is the size from which a file is worth an upload that can be resumed, in bytes: a
// smaller one is sent again in less time than the questions take.
const uploadFrom = 8 << 20

// maxAnew bounds how often one call begins an upload anew that the service gave up.
const maxAnew = 3

// Reasons of the storage service that say how to go on.
const (
	reasonNotFound  fault.Reason = "BLOB_NOT_FOUND"
	reasonNoUpload  fault.Reason = "UPLOAD_NOT_FOUND"
	reasonOffset    fault.Reason = "UPLOAD_OFFSET_MISMATCH"
	reasonForbidden fault.Reason = "SCOPE_MISSING"
)

// ReasonChanged: a file changed while it was sent.
const ReasonChanged fault.Reason = "FILE_CHANGED"

// Sent is what PutFile did.
type Sent struct {
	Stored
	// Resumed is how many bytes an earlier, interrupted call had brought there.
	Resumed int64
}

// PutFile stores the p.Size bytes of a file, which it reads more than once. What the account holds
// already is not sent. A large file is sent by an upload: it goes on over connections that break,
// and where an earlier call stopped, on whatever machine that was, since the upload is found by the
// CID of the whole. A file that changes meanwhile is ReasonChanged. p.Expect is computed if it is
// zero.
func (c *Client) PutFile(ctx context.Context, p Put, from io.ReaderAt, tell Progress) (
	Sent, error,
) {
	u := &upload{c: c, p: p, from: from, told: progress{tell: tell}, patience: &patience{}}
	return u.put(ctx)
}

// upload is a file on its way.
type upload struct {
	c        *Client
	p        Put
	from     io.ReaderAt
	told     progress
	patience *patience
	id       string
	at       int64 // durable there
	begun    int   // how often one was begun
}

func (u *upload) put(ctx context.Context) (sent Sent, err error) {
	if u.p.Expect.IsZero() {
		var n int64
		u.p.Expect, n, err = cid.Sum(u.p.Kind, io.NewSectionReader(u.from, 0, u.p.Size))
		if err == nil && n != u.p.Size {
			err = fault.New(fault.Aborted, ReasonChanged,
				"the file changed while it was hashed: it has %d bytes, not %d", n, u.p.Size)
		}
		if err != nil {
			return Sent{}, fmt.Errorf("hash what is to be sent: %w", err)
		}
	}
	sent, err = u.transfer(ctx)
	if err == nil && sent.Size != u.p.Size {
		err = fmt.Errorf("put blob: the service says that %s has %d bytes, not %d", u.p.Expect,
			sent.Size, u.p.Size)
	}
	if err != nil {
		return Sent{}, err
	}
	return sent, nil
}

// transfer sends what was hashed.
func (u *upload) transfer(ctx context.Context) (sent Sent, err error) {
	if u.p.Size >= uploadFrom {
		held, err := u.held(ctx)
		if err != nil {
			return Sent{}, fmt.Errorf("put blob: %w", err)
		}
		if !held {
			return u.resumable(ctx)
		}
	}
	err = u.patience.do(ctx, func() error {
		u.told.settle(0)
		body := u.told.reader(io.NewSectionReader(u.from, 0, u.p.Size))
		sent.Stored, err = u.c.Put(ctx, u.p, body)
		return changed(err)
	})
	if err == nil {
		u.told.settle(u.p.Size)
	}
	return sent, err
}

// held tells whether the account holds the file.
func (u *upload) held(ctx context.Context) (held bool, err error) {
	err = u.patience.do(ctx, func() error {
		_, err := u.c.storage.Stat(ctx, &storagev1.StatRequest{Cid: u.p.Expect.String()})
		switch fault.ReasonOf(err) {
		case reasonNotFound, reasonForbidden:
			return nil
		}
		held = err == nil
		return err
	})
	return held, err
}

// changed words what a wrong hash or length means for a file that was hashed before.
func changed(err error) error {
	if errors.Is(err, cid.ReasonMismatch) || errors.Is(err, fault.Reason("BLOB_SIZE_MISMATCH")) {
		return fault.New(fault.Aborted, ReasonChanged,
			"the file changed while it was sent: send it again").Because(err)
	}
	return err
}

// resumable sends a file that the account does not hold.
func (u *upload) resumable(ctx context.Context) (Sent, error) {
	if err := u.patience.do(ctx, func() error { return u.find(ctx) }); err != nil {
		return Sent{}, fmt.Errorf("put blob: %w", err)
	}
	resumed := u.at
	u.told.settle(u.at)
	stored, err := u.run(ctx)
	return Sent{Stored: stored, Resumed: resumed}, err
}

// find takes over the upload of an earlier call that got furthest, or begins one.
func (u *upload) find(ctx context.Context) error {
	answer, err := u.c.storage.ListUploads(ctx, &storagev1.ListUploadsRequest{})
	if err != nil && !errors.Is(err, reasonForbidden) {
		return err
	}
	for _, one := range answer.GetUploads() {
		h := one.GetHeader()
		if h.GetExpectedCid() == u.p.Expect.String() && h.GetSize() == uint64(u.p.Size) &&
			h.GetJob() == u.p.Job && one.GetOffset() <= uint64(u.p.Size) &&
			(u.id == "" || int64(one.GetOffset()) > u.at) {
			u.id, u.at = one.GetId(), int64(one.GetOffset())
		}
	}
	if u.id != "" {
		return nil
	}
	return u.begin(ctx)
}

func (u *upload) begin(ctx context.Context) error {
	if u.begun++; u.begun > maxAnew {
		return errors.New("the service gives every upload up")
	}
	answer, err := u.c.storage.StartUpload(ctx, &storagev1.StartUploadRequest{Header: u.p.header()})
	if err != nil {
		return err
	}
	u.id, u.at, u.patience.most = answer.GetUpload().GetId(), 0, 0
	return nil
}

// run sends what is missing and finishes.
func (u *upload) run(ctx context.Context) (Stored, error) {
	for {
		err := u.send(ctx)
		if err == nil {
			var stored Stored
			if stored, err = u.finish(ctx); err == nil {
				return stored, nil
			}
		}
		if errors.Is(err, ReasonChanged) {
			// Its bytes are of no use to anybody; if this fails, they go when nothing comes.
			_, _ = u.c.storage.AbortUpload(ctx, &storagev1.AbortUploadRequest{Upload: u.id})
			return Stored{}, err
		}
		if err := u.recover(ctx, err); err != nil {
			return Stored{}, fmt.Errorf("put blob: %w", err)
		}
	}
}

// recover finds out where to go on after a failure, or returns why not.
func (u *upload) recover(ctx context.Context, err error) error {
	for {
		moves := errors.Is(err, reasonOffset)
		gone := errors.Is(err, reasonNoUpload)
		if !moves && !gone && !u.patience.again(ctx, err) {
			return err
		}
		if gone {
			err = u.begin(ctx)
		} else {
			err = u.ask(ctx)
		}
		if err == nil {
			u.told.settle(u.at)
			return nil
		}
	}
}

// ask asks how far the upload is.
func (u *upload) ask(ctx context.Context) error {
	answer, err := u.c.storage.GetUpload(ctx, &storagev1.GetUploadRequest{Upload: u.id})
	if err != nil {
		return err
	}
	offset := answer.GetUpload().GetOffset()
	if offset > uint64(u.p.Size) {
		return fmt.Errorf("the service has %d bytes of %d", offset, u.p.Size)
	}
	u.at = int64(offset)
	u.patience.got(u.at)
	return nil
}

// send sends everything behind u.at in one stream.
func (u *upload) send(ctx context.Context) error {
	if u.at == u.p.Size {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := u.c.storage.AppendUpload(ctx)
	if err != nil {
		return err
	}
	rest := u.told.reader(io.NewSectionReader(u.from, u.at, u.p.Size-u.at))
	err = stream.Send(&storagev1.AppendUploadRequest{Part: &storagev1.AppendUploadRequest_Header{
		Header: &storagev1.AppendHeader{Upload: u.id, Offset: uint64(u.at)}}})
	for err == nil {
		chunk := make([]byte, ChunkSize) // gRPC may look at it after Send returned
		n, ended := fill(rest, chunk)
		if n > 0 {
			err = stream.Send(&storagev1.AppendUploadRequest{
				Part: &storagev1.AppendUploadRequest_Chunk{Chunk: chunk[:n]}})
		}
		if ended == io.EOF {
			break
		} else if ended != nil {
			return fmt.Errorf("read what is to be sent: %w", ended)
		}
	}
	if err != nil && !errors.Is(err, io.EOF) { // io.EOF: the service has answered already
		return err
	}
	answer, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	if got := answer.GetUpload().GetOffset(); got != uint64(u.p.Size) {
		return changed(fault.New(fault.InvalidArgument, "BLOB_SIZE_MISMATCH",
			"%d bytes arrived of %d", got, u.p.Size))
	}
	u.at = u.p.Size
	u.patience.got(u.at)
	return nil
}

func (u *upload) finish(ctx context.Context) (Stored, error) {
	answer, err := u.c.storage.FinishUpload(ctx, &storagev1.FinishUploadRequest{Upload: u.id})
	if err != nil {
		return Stored{}, changed(err)
	}
	return storedOf(&storagev1.PutResponse{Cid: answer.GetCid(), Size: answer.GetSize(),
		Deduplicated: answer.GetDeduplicated()}, u.p.Expect)
}
