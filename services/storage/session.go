package storage

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/kit/dir"
	"github.com/united-containers/ucn/kit/fault"
)

// putDirectory reads a directory whole, checks it against what the account holds, and keeps it.
func (s *Session) putDirectory(ctx context.Context, p Put, body io.Reader) (Stored, error) {
	raw, err := io.ReadAll(io.LimitReader(body, dir.MaxBytes+1))
	if err != nil {
		return Stored{}, fmt.Errorf("receive directory: %w", err)
	}
	entries, err := dir.Decode(raw)
	if err != nil {
		return Stored{}, err
	}
	if p.Tree, err = s.tree(ctx, p.Job, entries); err != nil {
		return Stored{}, err
	}
	p.SkipHeld = false
	return s.access.store.Put(ctx, p, bytes.NewReader(raw))
}

// tree compares a directory with what the account holds. A directory of a job's host names only
// what the grant may read and what was put for the job: else it would tell what the account holds,
// and keep it from being removed.
func (s *Session) tree(ctx context.Context, job string, entries []dir.Entry) (Tree, error) {
	tree := Tree{Total: dir.Total(entries), Height: 1}
	seen := make(map[cid.CID]bool, len(entries))
	for _, e := range entries {
		ref, err := s.access.store.Stat(ctx, s.account, e.CID)
		if !s.writeAll && unless(err, ReasonNotFound) == nil && (err != nil || ref.Job != job) {
			if err := s.readable(ctx, e.CID); err != nil {
				return Tree{}, err // the same whether or not the account holds it
			}
		}
		if fault.ReasonOf(err) == ReasonNotFound {
			return Tree{}, Incomplete(e.CID, "which the account does not hold")
		}
		if err != nil {
			return Tree{}, err
		}
		size := ref.Size
		if e.IsDir() {
			size = ref.Total
		}
		if size != e.Size {
			return Tree{}, Incomplete(e.CID, fmt.Sprintf("whose size is %d and not %d", size, e.Size))
		}
		tree.Height = max(tree.Height, ref.Height+1)
		if !seen[e.CID] {
			seen[e.CID] = true
			tree.Names = append(tree.Names, e.CID)
		}
	}
	if tree.Height > dir.MaxDepth {
		return Tree{}, fault.New(fault.InvalidArgument, ReasonTooDeep,
			"directories may stand %d deep within each other, not %d", dir.MaxDepth, tree.Height)
	}
	return tree, nil
}

// Resolve follows a path inside the directory root and returns the reference it leads to. A grant
// for root covers everything inside.
func (s *Session) Resolve(ctx context.Context, root cid.CID, path string) (Ref, error) {
	if err := s.readable(ctx, root); err != nil {
		return Ref{}, err
	}
	if path != "" && root.Kind() != cid.Directory {
		return Ref{}, notDirectory(root)
	}
	at, err := dir.Walk(ctx, root, path, s.entries)
	if err != nil {
		return Ref{}, err
	}
	return s.access.store.Stat(ctx, s.account, at.CID)
}

// ReadAt writes a range of what path inside the directory r.CID leads to.
func (s *Session) ReadAt(ctx context.Context, r Read, path string, w io.Writer) error {
	ref, err := s.Resolve(ctx, r.CID, path)
	if err != nil {
		return err
	}
	r.Account, r.CID = s.account, ref.CID
	return s.access.store.Read(ctx, r, w)
}

// Directory returns the entries of the directory at path inside root, and its reference.
func (s *Session) Directory(ctx context.Context, root cid.CID, path string) (
	Ref, []dir.Entry, error,
) {
	ref, err := s.Resolve(ctx, root, path)
	if err != nil {
		return Ref{}, nil, err
	}
	if ref.CID.Kind() != cid.Directory {
		return Ref{}, nil, notDirectory(ref.CID)
	}
	entries, err := s.entries(ctx, ref.CID)
	return ref, entries, err
}

func (s *Session) entries(ctx context.Context, c cid.CID) ([]dir.Entry, error) {
	var raw bytes.Buffer
	if err := s.access.store.Read(ctx, Read{Account: s.account, CID: c}, &raw); err != nil {
		return nil, err
	}
	return dir.Decode(raw.Bytes())
}

func notDirectory(c cid.CID) error {
	return fault.New(fault.FailedPrecondition, ReasonNotDirectory, "%s is a %s, not a directory", c,
		c.Kind())
}

// Update changes the account's reference to c; a job's scope does not cover it.
func (s *Session) Update(ctx context.Context, c cid.CID, change Change) (Ref, error) {
	if !s.writeAll {
		return Ref{}, forbidden(ScopeWrite)
	}
	return s.access.store.Update(ctx, s.account, c, change)
}

// Filter picks references: those to which all that is set applies.
type Filter struct {
	Job, NamePrefix string
	Kind            cid.Kind
	Before          time.Time
	// CIDs are the references meant, at most MaxPage; empty for any.
	CIDs []cid.CID
	// All says that picking everything is meant.
	All bool
	// DryRun only counts.
	DryRun bool
}

// Validate refuses a filter that picks everything without saying so.
func (f Filter) Validate() error {
	any := f.Job != "" || f.NamePrefix != "" || f.Kind != cid.Unknown || !f.Before.IsZero() ||
		len(f.CIDs) > 0
	if any == f.All {
		return BadRequest("say which references: by job, name_prefix, kind, created_before_ms or " +
			"cids, or all of them; not both")
	}
	if len(f.CIDs) > MaxPage {
		return BadRequest("%d CIDs, at most %d", len(f.CIDs), MaxPage)
	}
	if err := checkLabel("name prefix", f.NamePrefix, MaxName); err != nil {
		return err
	}
	return checkLabel("job id", f.Job, MaxJob)
}

func (f Filter) picks(r Ref) bool {
	return (f.Job == "" || r.Job == f.Job) && strings.HasPrefix(r.Name, f.NamePrefix) &&
		(f.Kind == cid.Unknown || r.CID.Kind() == f.Kind) &&
		(f.Before.IsZero() || r.Created.Before(f.Before))
}

// Removed is what one RemoveMany did.
type Removed struct {
	Removed, Bytes, Pinned, InDirectory int64
	// Next is where to go on; zero at the end.
	Next cid.CID
	// Kept are those of Filter.CIDs that stay, and why.
	Kept []Kept
}

// Kept is a reference that was not ended.
type Kept struct {
	CID cid.CID
	Why fault.Reason
}

// RemoveMany looks at the MaxPage references after the given one and ends those that f picks, but
// for pinned ones and those that a directory names. What one write ends is told as one event.
func (s *Session) RemoveMany(ctx context.Context, f Filter, after cid.CID) (
	done Removed, err error,
) {
	if !s.writeAll {
		return Removed{}, forbidden(ScopeWrite)
	}
	if err := f.Validate(); err != nil {
		return Removed{}, err
	}
	refs, err := s.meant(ctx, f, after, &done)
	if err != nil {
		return Removed{}, err
	}
	picked := make([]Ref, 0, len(refs))
	for _, ref := range refs {
		if f.picks(ref) {
			picked = append(picked, ref)
		}
	}
	return done, s.removePicked(ctx, f, picked, &done)
}

// meant returns the references among which f picks: those it names, or a page of all.
func (s *Session) meant(ctx context.Context, f Filter, after cid.CID, done *Removed) (
	refs []Ref, err error,
) {
	if len(f.CIDs) == 0 {
		refs, err = s.access.store.List(ctx, s.account, after, MaxPage)
		if len(refs) == MaxPage {
			done.Next = refs[MaxPage-1].CID
		}
		return refs, err
	}
	for _, c := range f.CIDs {
		ref, err := s.access.store.Stat(ctx, s.account, c)
		switch {
		case fault.ReasonOf(err) == ReasonNotFound:
			done.Kept = append(done.Kept, Kept{c, ReasonNotFound})
		case err != nil:
			return nil, err
		default:
			refs = append(refs, ref)
		}
	}
	return refs, nil
}

// removePicked ends references, or only counts them, in as few writes as may be.
func (s *Session) removePicked(ctx context.Context, f Filter, picked []Ref, done *Removed) error {
	var cs []cid.CID
	for _, ref := range picked {
		if f.DryRun {
			var stays error
			if ref.Pinned {
				stays = Pinned(ref.CID)
			}
			done.count(f, ref, stays)
		} else {
			cs = append(cs, ref.CID)
		}
	}
	for len(cs) > 0 {
		became, err := s.access.store.RemoveMany(ctx, s.account, cs)
		if err != nil {
			return err
		}
		for i, stays := range became {
			done.count(f, picked[i], stays)
		}
		cs, picked = cs[len(became):], picked[len(became):]
	}
	return nil
}

// count counts what became of a reference.
func (r *Removed) count(f Filter, ref Ref, stays error) {
	why := fault.ReasonOf(stays)
	if stays != nil && len(f.CIDs) > 0 {
		r.Kept = append(r.Kept, Kept{ref.CID, why})
	}
	switch why {
	case ReasonPinned:
		r.Pinned++
	case ReasonInDirectory:
		r.InDirectory++
	case ReasonNotFound:
	default:
		r.Removed++
		r.Bytes += ref.Size
	}
}

// StartUpload begins an upload that can be resumed; it needs what Put needs.
func (s *Session) StartUpload(ctx context.Context, p Put) (Upload, error) {
	p, err := s.writable(p)
	if err != nil {
		return Upload{}, err
	}
	return s.access.store.StartUpload(ctx, p)
}

// Upload tells how far one is.
func (s *Session) Upload(ctx context.Context, id UploadID) (Upload, error) {
	u, err := s.access.store.Upload(ctx, s.account, id)
	if err == nil && !s.writeAll && !s.jobs[u.Put.Job] {
		return Upload{}, forbidden(need(ScopeWrite, u.Put.Job))
	}
	return u, err
}

// AppendUpload adds bytes at offset.
func (s *Session) AppendUpload(ctx context.Context, id UploadID, offset int64, body io.Reader,
) (Upload, error) {
	if _, err := s.Upload(ctx, id); err != nil {
		return Upload{}, err
	}
	return s.access.store.AppendUpload(ctx, s.account, id, offset, body)
}

// FinishUpload makes a blob of the bytes.
func (s *Session) FinishUpload(ctx context.Context, id UploadID) (Stored, error) {
	if _, err := s.Upload(ctx, id); err != nil {
		return Stored{}, err
	}
	return s.access.store.FinishUpload(ctx, s.account, id)
}

// AbortUpload gives one up.
func (s *Session) AbortUpload(ctx context.Context, id UploadID) error {
	if _, err := s.Upload(ctx, id); err != nil {
		return err
	}
	return s.access.store.AbortUpload(ctx, s.account, id)
}

// ListUploads returns the account's unfinished uploads; only for tokens that may write all.
func (s *Session) ListUploads(ctx context.Context) ([]Upload, error) {
	if !s.writeAll {
		return nil, forbidden(ScopeWrite)
	}
	return s.access.store.ListUploads(ctx, s.account)
}
