package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
)

func (a *app) filePut() *cobra.Command {
	name := ""
	cmd := &cobra.Command{
		Use: "put FILE|FOLDER|-", Short: "Store a file or a folder and print its CID",
		Long: `Store a file, a folder with everything in it, or standard input, and print the CID.
Links and special files in a folder are refused by name. Repeating it is harmless.

A file or folder is read once to know its CID, so that what is held already is not sent. When
connections break it goes on by itself, up to five minutes without any progress, and by repeating
the command within a day after it was killed. Standard input cannot be read again, so it does
neither.`,
		Example: "  ucn file put scene.json\n  ucn file put data/\n  tar c data | ucn file put -",
		Args:    args(cobra.ExactArgs(1)),
		RunE: a.following(withKey, func(ctx context.Context, l *link, list []string) error {
			result, err := a.put(ctx, l, list[0], name)
			if err != nil {
				return err
			}
			return a.emit(result, func(w io.Writer) { printf(w, "%s\n", result.CID) })
		}),
	}
	cmd.Flags().StringVar(&name, "name", "", "what it is called in listings (default: the file's)")
	return cmd
}

func (a *app) put(ctx context.Context, l *link, path, name string) (fileResult, error) {
	if path == "-" {
		return a.putStream(ctx, l, name)
	}
	if name == "" {
		name = filepath.Base(filepath.Clean(path))
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fileResult{}, err
	case info.IsDir():
		return a.putTree(ctx, l, path, name)
	case !info.Mode().IsRegular():
		return fileResult{}, fmt.Errorf("%s is neither a file nor a folder", path)
	}
	return a.putFile(ctx, l, path, name)
}

// putStream stores standard input.
func (a *app) putStream(ctx context.Context, l *link, name string) (fileResult, error) {
	bar := a.bar("put "+name, 0)
	stored, err := blob.New(l.Storage).Put(ctx, blob.Put{Kind: cid.File, Name: name},
		bar.reader(a.In))
	bar.end()
	return storedResult(blob.Sent{Stored: stored}, name, cid.File), err
}

func (a *app) putFile(ctx context.Context, l *link, path, name string) (_ fileResult, err error) {
	file, err := os.Open(path)
	if err != nil {
		return fileResult{}, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return fileResult{}, err
	}
	p := blob.Put{Kind: cid.File, Size: info.Size(), Name: name}
	reading := a.bar("read "+name, p.Size)
	p.Expect, _, err = cid.Sum(p.Kind, reading.reader(endingReader{ctx,
		io.NewSectionReader(file, 0, p.Size)}))
	reading.erase()
	if err != nil {
		return fileResult{}, err
	}
	bar := a.bar("put "+name, p.Size)
	sent, err := blob.New(l.Storage).PutFile(ctx, p, file, bar.progress())
	bar.end()
	if err != nil {
		if bar.done > 0 && bar.done < p.Size {
			err = &hinted{err, "the same command goes on where this one stopped"}
		}
		return fileResult{}, err
	}
	return storedResult(sent, name, cid.File), nil
}

// putTree stores a folder as a directory.
func (a *app) putTree(ctx context.Context, l *link, path, name string) (_ fileResult, err error) {
	from, err := os.OpenRoot(path)
	if err != nil {
		return fileResult{}, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	bar := a.bar("put "+name, 0)
	defer bar.end()
	stored, err := blob.New(l.Storage).PutTree(ctx, blob.Tree{
		Name: name, Tell: bar.progress(), Begin: func(total int64) { bar.total = total },
	}, from)
	return storedResult(blob.Sent{Stored: stored}, name, cid.Directory), err
}

func storedResult(s blob.Sent, name string, kind cid.Kind) fileResult {
	return fileResult{
		CID: s.CID.String(), Size: uint64(s.Size), Name: screen.Clean(name), Held: s.Held,
		Kind: kind.String(), Resumed: uint64(s.Resumed),
	}
}

// endingReader ends with its context: what is only read here notices no interrupt by itself.
type endingReader struct {
	ctx  context.Context
	from io.Reader
}

// Read implements io.Reader.
func (r endingReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.from.Read(p)
}
