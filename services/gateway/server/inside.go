package server

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/dir"
	"github.com/united-containers/ucn/kit/fault"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/gateway"
)

// maxWalks bounds the paths that are followed at once; each has one directory in memory, of 4 MiB
// and as much again decoded. Further ones wait, for the storage and not for clients.
const maxWalks = 16

// place is a file and the way to it.
type place struct {
	blob.Place
	// size is as the storage says. A file in a directory has the size that the directory says.
	size int64
}

// locate tells what stands at inside in the directory root, or that root is the file itself. The
// storage says who may know; what it is, the directories on the way say, which are what their names
// say.
func (s *Server) locate(ctx context.Context, root cid.CID, inside string) (place, error) {
	about, err := s.storage.Stat(ctx, &storagev1.StatRequest{Cid: root.String(), Path: inside})
	if err != nil {
		return place{}, err
	}
	at := place{blob.Place{Root: root, Path: inside, Blob: root},
		int64(about.GetReference().GetSize())}
	if at.size < 0 {
		return at, fmt.Errorf("storage says that %s has %d bytes", root, uint64(at.size))
	}
	if inside == "" {
		return at, nil
	}
	found, err := s.walk(ctx, root, inside)
	if err != nil {
		return at, forged(err)
	}
	named := about.GetReference().GetCid()
	if named != found.CID.String() || !found.IsDir() && at.size != found.Size {
		return at, fault.New(fault.DataLoss, gateway.ReasonFileForged,
			"the storage names another file than the directory").Because(
			fmt.Errorf("%q in %s is %s of %d bytes, and not %.100q of %d", inside, root, found.CID,
				found.Size, named, at.size))
	}
	at.Blob = found.CID
	return at, nil
}

func (s *Server) walk(ctx context.Context, root cid.CID, inside string) (dir.Entry, error) {
	select {
	case s.walks <- struct{}{}:
	case <-ctx.Done():
		return dir.Entry{}, ctx.Err()
	}
	defer func() { <-s.walks }()
	return s.blobs.FindNow(ctx, root, inside)
}

// forged says that it was the storage, and not the client, who sent what does not verify.
func forged(err error) error {
	if !errors.Is(err, cid.ReasonMismatch) && !errors.Is(err, dir.ReasonBad) {
		return err
	}
	return fault.New(fault.DataLoss, gateway.ReasonFileForged,
		"the storage sent something else than what stands there").Because(err)
}

// sendPartOfDirectory sends a range of a directory's own bytes, which verify only as a whole.
func (s *Server) sendPartOfDirectory(
	ctx context.Context, w io.Writer, at place, span gateway.Span,
) (err error) {
	body, err := s.blobs.OpenPath(ctx, at.Root, at.Path, at.Blob)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(body, dir.MaxBytes+1))
	if err != nil {
		return err
	}
	if int64(len(raw)) != at.size || at.size > dir.MaxBytes {
		return cid.Mismatch(at.Blob, cid.CID{})
	}
	_, err = w.Write(raw[span.First : span.First+span.Length])
	return err
}
