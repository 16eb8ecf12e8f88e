package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/cid"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

func (a *app) fileCommand() *cobra.Command {
	return group("file", "Files of the network, named by their content",
		a.filePut(), a.fileGet(), a.fileList(), a.fileStat(), a.filePin(), a.fileUnpin(),
		a.fileExpire(), a.fileUsage(), a.fileRemove())
}

type fileResult struct {
	CID     string `json:"cid"`
	Size    uint64 `json:"size"`
	Kind    string `json:"kind,omitempty"`
	Name    string `json:"name,omitempty"`
	Job     string `json:"job,omitempty"`
	Created uint64 `json:"created_ms,omitempty"`
	Held    bool   `json:"held_before,omitempty"`
	File    string `json:"file,omitempty"`
}

func (a *app) filePut() *cobra.Command {
	name := ""
	cmd := &cobra.Command{
		Use: "put FILE|FOLDER|-", Short: "Store a file or a folder and print its CID",
		Long: `Store a file, a folder with everything in it, or standard input, and print the CID.
Links and special files in a folder are refused by name. Repeating it is harmless.`,
		Example: "  ucn file put scene.json\n  ucn file put data/\n  tar c data | ucn file put -",
		Args:    args(cobra.ExactArgs(1)),
		RunE: a.following(withKey, func(ctx context.Context, l *link, list []string) error {
			if info, err := os.Stat(list[0]); err == nil && info.IsDir() {
				stored, err := a.putTree(ctx, l, list[0], name)
				if err != nil {
					return err
				}
				result := fileResult{
					CID: stored.CID.String(), Size: uint64(stored.Size), Name: name, Kind: "directory",
				}
				return a.emit(result, func(w io.Writer) { printf(w, "%s\n", result.CID) })
			}
			from, size, err := a.source(list[0])
			if err != nil {
				return err
			}
			defer func() { _ = from.Close() }() // only read
			if name == "" && list[0] != "-" {
				name = filepath.Base(list[0])
			}
			bar := a.bar("put "+name, size)
			stored, err := blob.New(l.Storage).Put(ctx, blob.Put{
				Kind: cid.File, Size: size, Name: name,
			}, bar.reader(from))
			bar.end()
			if err != nil {
				return err
			}
			result := fileResult{
				CID: stored.CID.String(), Size: uint64(stored.Size), Name: name, Held: stored.Held,
				Kind: "file",
			}
			return a.emit(result, func(w io.Writer) { printf(w, "%s\n", result.CID) })
		}),
	}
	cmd.Flags().StringVar(&name, "name", "", "what it is called in listings (default: the file's)")
	return cmd
}

// source opens a file to send; the size is 0 for standard input.
func (a *app) source(path string) (io.ReadCloser, int64, error) {
	if path == "-" {
		return io.NopCloser(a.In), 0, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is neither a file nor a folder", path)
	}
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, info.Size(), nil
}

func (a *app) fileGet() *cobra.Command {
	out := ""
	cmd := &cobra.Command{
		Use: "get CID", Short: "Fetch a file or folder and verify every byte of it",
		Long: `Fetch a file or a folder and save it under its CID, or as -o says; "-o -" writes a file
to standard output. Every byte is verified against the CID here: it is saved only if it is the right
one, and whole.`,
		Example: "  ucn file get bafkr4i... -o picture.png",
		Args:    args(cobra.ExactArgs(1)),
		RunE: a.following(withKey, func(ctx context.Context, l *link, list []string) error {
			to := out
			if to == "" {
				to = list[0]
			}
			size, err := a.fetch(ctx, l, list[0], to)
			if err != nil {
				return err
			}
			if to == "-" {
				return nil
			}
			result := fileResult{CID: list[0], Size: uint64(size), File: to}
			return a.emit(result, func(w io.Writer) {
				printf(w, "saved %s (%s), verified\n", to, screen.Bytes(result.Size))
			})
		}),
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "where to save it; - is standard output")
	return cmd
}

// fetch saves a blob as a file that is whole and verified, or not at all.
func (a *app) fetch(ctx context.Context, l *link, name, to string) (size int64, err error) {
	c, err := cid.Parse(name)
	if err != nil {
		return 0, usage(err)
	}
	if c.Kind() == cid.Directory {
		if to == "-" {
			return 0, usagef("a folder cannot be written to standard output")
		}
		return a.getTree(ctx, l, c, to)
	}
	stat, err := l.Storage.Stat(ctx, &storagev1.StatRequest{Cid: name})
	if err != nil {
		return 0, err
	}
	from, err := blob.New(l.Storage).Open(ctx, c)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	bar := a.bar("get "+filepath.Base(to),
		int64(min(stat.GetReference().GetSize(), math.MaxInt64)))
	defer bar.end()
	if to == "-" {
		return io.Copy(a.Out, bar.reader(from))
	}
	return saveTo(to, bar.reader(from))
}

// saveTo puts what from gives into a file as a whole or not at all, making its folder. What is
// there and is no ordinary file (a device, a pipe) is written into, never replaced.
func saveTo(path string, from io.Reader) (size int64, err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return writeInto(path, from)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	temporary, err := os.CreateTemp(dir, ".ucn-*")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temporary.Name()) // the error that counts is the first
		}
	}()
	size, err = io.Copy(temporary, from)
	if err == nil {
		err = temporary.Chmod(0o644)
	}
	if err = errors.Join(err, temporary.Close()); err != nil {
		return 0, err
	}
	return size, os.Rename(temporary.Name(), path)
}

func writeInto(path string, from io.Reader) (size int64, err error) {
	to, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	size, err = io.Copy(to, from)
	return size, errors.Join(err, to.Close())
}

func resultOfReference(r *storagev1.Reference) fileResult {
	return fileResult{
		CID: r.GetCid(), Size: r.GetSize(), Name: r.GetName(), Job: r.GetJob(),
		Kind: reasonText(r.GetKind().String(), "KIND_"), Created: r.GetCreatedMs(),
	}
}

func (a *app) fileList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List what the wallet's account holds",
		Example: "  ucn file ls --json", Args: args(cobra.NoArgs),
		RunE: a.session(withKey, func(ctx context.Context, l *link, _ []string) error {
			files := []fileResult{}
			token := ""
			for range maxPages {
				answer, err := l.Storage.List(ctx, &storagev1.ListRequest{
					PageSize: 1000, PageToken: token,
				})
				if err != nil {
					return err
				}
				for _, r := range answer.GetReferences() {
					files = append(files, resultOfReference(r))
				}
				if token = answer.GetNextPageToken(); token == "" {
					break
				}
			}
			return a.emit(files, func(w io.Writer) {
				printf(w, "CID\tSIZE\tKIND\tCREATED\tNAME\n")
				for _, f := range files {
					printf(w, "%s\t%s\t%s\t%s\t%s\n", f.CID, screen.Bytes(f.Size), f.Kind,
						stamp(f.Created), screen.Clean(f.Name))
				}
			})
		}),
	}
}

func (a *app) fileStat() *cobra.Command {
	return &cobra.Command{
		Use: "stat CID", Short: "Show what is known of a file or image",
		Example: "  ucn file stat bafkr4i...", Args: args(cobra.ExactArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			if _, err := cid.Parse(list[0]); err != nil {
				return usage(err)
			}
			answer, err := l.Storage.Stat(ctx, &storagev1.StatRequest{Cid: list[0]})
			if err != nil {
				return err
			}
			f := resultOfReference(answer.GetReference())
			return a.emit(f, func(w io.Writer) {
				printf(w, "cid\t%s\nsize\t%s (%d bytes)\nkind\t%s\nname\t%s\njob\t%s\n", f.CID,
					screen.Bytes(f.Size), f.Size, f.Kind, screen.Clean(f.Name), f.Job)
				printf(w, "created\t%s\n", stamp(f.Created))
			})
		}),
	}
}

func (a *app) fileRemove() *cobra.Command {
	return &cobra.Command{
		Use: "rm CID...", Short: "Let go of files; their bytes go when nobody holds them",
		Example: "  ucn file rm bafkr4i...", Args: args(cobra.MinimumNArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			for _, name := range list {
				if _, err := cid.Parse(name); err != nil {
					return usage(err)
				}
				if _, err := l.Storage.Remove(ctx, &storagev1.RemoveRequest{Cid: name}); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			return a.emit(map[string][]string{"removed": list}, func(w io.Writer) {
				printf(w, "removed %s\n", strings.Join(list, " "))
			})
		}),
	}
}
