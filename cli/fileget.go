package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// getting are the flags of file get.
type getting struct {
	out, span      string
	offset, length int64
	part           bool // a part of the file is wanted
}

func (a *app) fileGet() *cobra.Command {
	g := getting{}
	cmd := &cobra.Command{
		Use: "get CID[/PATH]", Short: "Fetch a file or folder and verify every byte of it",
		Long: `Fetch a file or a folder, or what stands at a path inside a folder, and save it under its
CID, or as -o says; "-o -" writes a file to standard output. Every byte is verified against the CID
here. It is saved under its name only when it is whole, in one step.

What came before the command was killed stays beside the target as .CID.ucn-part; the same command
verifies it and goes on from there, or begins anew if it is not what it should be. When connections
break it goes on by itself, up to five minutes without any progress.

--range, or --offset and --length, fetch a part of a file and write it to standard output, or to -o.
It is verified as well, without the rest.`,
		Example: `  ucn file get bafkr4i... -o picture.png
  ucn file get bafyr4i.../data/a.csv -o a.csv
  ucn file get bafkr4i... --range 0-1023 | xxd
  ucn file get bafkr4i... --range=-4096 -o tail.log`,
		Args: args(cobra.ExactArgs(1)),
	}
	do := a.following(withKey, func(ctx context.Context, l *link, list []string) error {
		return a.get(ctx, l, g, list[0])
	})
	cmd.RunE = func(cmd *cobra.Command, list []string) error {
		set := cmd.Flags().Changed
		g.part = set("range") || set("offset") || set("length")
		if err := g.check(set("range") && (set("offset") || set("length"))); err != nil {
			return err
		}
		return do(cmd, list)
	}
	f := cmd.Flags()
	f.StringVarP(&g.out, "output", "o", "", "where to save it; - is standard output")
	f.StringVar(&g.span, "range", "", "FIRST-LAST byte, FIRST- to the end, or -N for the last N")
	f.Int64Var(&g.offset, "offset", 0, "first byte of a part")
	f.Int64Var(&g.length, "length", 0, "bytes of a part (default: to the end)")
	return cmd
}

// check refuses flags that say nothing sensible, whatever file it is.
func (g *getting) check(both bool) error {
	switch {
	case both:
		return usagef("--range says the same as --offset and --length: give one or the other")
	case g.offset < 0 || g.length < 0:
		return usagef("--offset %d and --length %d must not be negative", g.offset, g.length)
	case !g.part || g.span == "" && (g.offset > 0 || g.length > 0):
		return nil
	}
	_, _, err := g.bounds(1 << 62)
	return err
}

// bounds resolves the part that is wanted of a file of size bytes.
func (g *getting) bounds(size int64) (offset, length int64, err error) {
	offset, length = g.offset, g.length
	if g.span != "" {
		first, last, isRange := strings.Cut(g.span, "-")
		from, fromErr := strconv.ParseInt(first, 10, 62)
		to, toErr := strconv.ParseInt(last, 10, 62)
		switch {
		case isRange && first == "" && toErr == nil && to > 0:
			return max(size-to, 0), min(to, size), nil
		case !isRange || fromErr != nil || last != "" && (toErr != nil || to < from):
			return 0, 0, usagef("--range %q is not FIRST-LAST, FIRST- or -N", g.span)
		case last != "":
			length = min(to, size-1) - from + 1
		}
		offset = from
	}
	if length == 0 {
		length = size - offset
	}
	if offset > size || length > size-offset || length <= 0 && size > 0 {
		return 0, 0, fmt.Errorf("the part is outside the file, which has %d bytes", size)
	}
	return offset, length, nil
}

// get fetches what a person names.
func (a *app) get(ctx context.Context, l *link, g getting, name string) error {
	f, err := a.find(ctx, l, name)
	if err != nil {
		return err
	}
	if g.out != "" {
		f.to = g.out
	}
	var kept int64
	switch {
	case g.part:
		return f.part(ctx, g)
	case g.out == "-":
		return f.stream(ctx, a.Out)
	}
	if kept, err = f.save(ctx); err != nil {
		return err
	}
	return f.saved(kept)
}

// fetch saves a blob as a file or a folder that is whole and verified, or not at all.
func (a *app) fetch(ctx context.Context, l *link, name, to string) error {
	f, err := a.find(ctx, l, name)
	if err != nil {
		return err
	}
	f.to = to
	_, err = f.save(ctx)
	return err
}

// find finds what CID[/PATH] is. What stands at a path is verified; the size is what the storage or
// a directory says, and is proven when it is fetched.
func (a *app) find(ctx context.Context, l *link, name string) (*fetching, error) {
	text, inside, _ := strings.Cut(name, "/")
	found, err := cid.Parse(text)
	if err != nil {
		return nil, usage(err)
	}
	if inside != "" {
		at, err := blob.New(l.Storage).Find(ctx, found, inside)
		if err != nil {
			return nil, err
		}
		return &fetching{a: a, l: l, cid: at.CID, size: at.Size, to: at.CID.String()}, nil
	}
	about, err := l.Storage.Stat(ctx, &storagev1.StatRequest{Cid: text})
	if err != nil {
		return nil, err
	}
	size := about.GetReference().GetSize()
	if size > math.MaxInt64 {
		return nil, fmt.Errorf("the storage says that %s has %d bytes", found, size)
	}
	return &fetching{a: a, l: l, cid: found, size: int64(size), to: found.String()}, nil
}

// fetching is one blob on its way.
type fetching struct {
	a    *app
	l    *link
	cid  cid.CID
	size int64
	to   string
}

func (f *fetching) blobs() *blob.Client { return blob.New(f.l.Storage) }

func (f *fetching) bar() *bar { return f.a.bar("get "+filepath.Base(f.to), f.size) }

// saved prints what was done.
func (f *fetching) saved(kept int64) error {
	result := fileResult{CID: f.cid.String(), Size: uint64(f.size), File: f.to, Resumed: uint64(kept)}
	return f.a.emit(result, func(w io.Writer) {
		note := ""
		if kept > 0 {
			note = ", " + screen.Bytes(uint64(kept)) + " of it were here already"
		}
		printf(w, "saved %s (%s), verified%s\n", f.to, screen.Bytes(result.Size), note)
	})
}

// part writes a part of a file, which verifies without the rest.
func (f *fetching) part(ctx context.Context, g getting) error {
	if f.cid.Kind() != cid.File {
		return usagef("%s is a %s: only parts of files can be verified; fetch the whole", f.cid,
			f.cid.Kind())
	}
	offset, length, err := g.bounds(f.size)
	if err != nil {
		return err
	}
	write := func(w io.Writer) error {
		bar := f.a.bar("get "+f.cid.String(), length)
		defer bar.end()
		return f.blobs().Copy(ctx, blob.Part{File: f.cid,
			Part: cid.Part{Offset: offset, Length: length, Size: f.size}}, w, bar.progress())
	}
	if g.out == "" || g.out == "-" {
		return write(f.a.Out)
	}
	if err := saveTo(f.to, write); err != nil {
		return err
	}
	f.size = length
	return f.saved(0)
}

// stream writes a whole blob to what cannot be read again.
func (f *fetching) stream(ctx context.Context, w io.Writer) (err error) {
	if f.cid.Kind() == cid.Directory {
		return usagef("a folder cannot be written to standard output")
	}
	bar := f.bar()
	defer bar.end()
	if f.cid.Kind() == cid.File {
		return f.blobs().Copy(ctx, blob.Part{File: f.cid,
			Part: cid.Part{Length: f.size, Size: f.size}}, w, bar.progress())
	}
	from, err := f.blobs().Open(ctx, f.cid)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	_, err = io.Copy(w, bar.reader(from))
	return err
}

// save saves it and returns how many bytes an earlier command had fetched.
func (f *fetching) save(ctx context.Context) (kept int64, err error) {
	if f.cid.Kind() == cid.Directory {
		return f.folder(ctx)
	}
	if info, err := os.Stat(f.to); err == nil && info.IsDir() {
		return 0, usagef("%s is a folder: say with -o how the file is to be called", f.to)
	} else if err == nil && !info.Mode().IsRegular() {
		return 0, writeInto(f.to, func(w io.Writer) error { return f.stream(ctx, w) })
	}
	return f.file(ctx)
}

func (f *fetching) file(ctx context.Context) (kept int64, err error) {
	p, err := openPartial(f.to, f.cid, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return 0, err
	}
	if kept, err = f.complete(ctx, p); err != nil {
		return 0, errors.Join(err, p.leave())
	}
	return kept, p.become(f.to)
}

// complete completes a file.
func (f *fetching) complete(ctx context.Context, p *partial) (kept int64, err error) {
	info, err := p.file.Stat()
	if err != nil {
		return 0, err
	}
	bar := f.bar()
	done, err := f.blobs().Fetch(ctx, blob.Fetch{Blob: f.cid, Size: f.size, Have: info.Size()},
		p.file, bar.progress())
	bar.end()
	if err != nil {
		return 0, f.interrupted(err, p.path, bar.done)
	}
	f.tellAnew(done.Anew)
	return done.Kept, errors.Join(p.file.Chmod(0o644), p.file.Sync())
}

// tellAnew tells that what was there of an earlier get was of no use.
func (f *fetching) tellAnew(anew bool) {
	if anew && !f.a.flags.quiet {
		_, _ = fmt.Fprintf(f.a.Err, "ucn: what an earlier get left of %s was not right; "+
			"all of it was fetched anew\n", f.cid) // only a remark
	}
}

// interrupted tells how to go on.
func (f *fetching) interrupted(err error, path string, done int64) error {
	if done == 0 {
		return err
	}
	return &hinted{err, fmt.Sprintf("%s are kept in %s: the same command goes on from there",
		screen.Bytes(uint64(done)), path)}
}

// folder saves a directory as a new folder.
func (f *fetching) folder(ctx context.Context) (kept int64, err error) {
	if info, err := os.Lstat(f.to); err == nil && !info.IsDir() {
		return 0, usagef("%s is no folder: give another with -o", f.to)
	}
	if list, err := os.ReadDir(f.to); err == nil && len(list) > 0 {
		return 0, usagef("%s is a folder with something in it: give another with -o", f.to)
	}
	p, err := openPartial(f.to, f.cid, os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	kept, err = f.fill(ctx, p)
	if err == nil {
		if err = os.Remove(f.to); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		return 0, errors.Join(err, p.leave())
	}
	return kept, p.become(f.to)
}

// fill completes a folder.
func (f *fetching) fill(ctx context.Context, p *partial) (kept int64, err error) {
	to, err := os.OpenRoot(p.path)
	if err != nil {
		return 0, err
	}
	bar := f.a.bar("get "+filepath.Base(f.to), 0)
	tell := bar.progress()
	count := tell.Kept
	tell.Kept = func(n int64) { kept += n; count(n) }
	f.size, err = f.blobs().GetTree(ctx, f.cid, blob.Tree{
		Begin: func(total int64) { bar.total = total }, Tell: tell, Resume: true,
	}, to)
	bar.end()
	if err != nil {
		err = f.interrupted(err, p.path, bar.done)
	} else {
		err = p.file.Chmod(0o755)
	}
	return kept, errors.Join(err, to.Close())
}
