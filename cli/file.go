package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/cid"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

func (a *app) fileCommand() *cobra.Command {
	return group("file", "Files of the network, named by their content",
		a.filePut(), a.fileGet(), a.fileList(), a.fileStat(), a.filePin(), a.fileUnpin(),
		a.fileExpire(), a.fileUsage(), a.fileUploads(), a.fileEvents(),
		a.fileRemove())
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
	// Resumed is how many bytes an earlier command, which was interrupted, had moved.
	Resumed uint64 `json:"resumed,omitempty"`
}

func resultOfReference(r *storagev1.Reference) fileResult {
	return fileResult{
		CID: r.GetCid(), Size: r.GetSize(), Name: r.GetName(), Job: r.GetJob(),
		Kind: reasonText(r.GetKind().String(), "KIND_"), Created: r.GetCreatedMs(),
	}
}

func (a *app) fileList() *cobra.Command {
	return &cobra.Command{
		Use: "ls [CID[/PATH]]", Aliases: []string{"list"},
		Short:   "List what the wallet's account holds, or what is in a folder",
		Example: "  ucn file ls\n  ucn file ls bafib4i.../data\n  ucn file ls --json",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			if len(list) > 0 {
				return a.listFolder(ctx, l, list[0])
			}
			files, err := heldFiles(ctx, l)
			if err != nil {
				return err
			}
			return a.emit(files, func(w io.Writer) { printFiles(w, files) })
		}),
	}
}

// heldFiles lists what the account holds.
func heldFiles(ctx context.Context, l *link) ([]fileResult, error) {
	files := []fileResult{}
	token := ""
	for range maxPages {
		answer, err := l.Storage.List(ctx, &storagev1.ListRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, r := range answer.GetReferences() {
			files = append(files, resultOfReference(r))
		}
		if token = answer.GetNextPageToken(); token == "" {
			break
		}
	}
	return files, nil
}

func printFiles(w io.Writer, files []fileResult) {
	if len(files) == 0 {
		printf(w, "the account holds no files\n")
		return
	}
	printf(w, "CREATED\tSIZE\tKIND\tNAME\tCID\n")
	for _, f := range files {
		printf(w, "%s\t%s\t%s\t%s\t%s\n", stamp(f.Created), screen.Bytes(f.Size), f.Kind,
			screen.Clean(f.Name), screen.Clean(f.CID))
	}
}

// folderEntry is what stands in a folder.
type folderEntry struct {
	Name string `json:"name"`
	CID  string `json:"cid"`
	Size uint64 `json:"size"`
	Kind string `json:"kind"`
	Mode string `json:"mode"` // octal
}

// listFolder lists one folder.
func (a *app) listFolder(ctx context.Context, l *link, name string) error {
	root, inside, _ := strings.Cut(name, "/")
	if _, err := cid.Parse(root); err != nil {
		return usage(err)
	}
	entries := []folderEntry{}
	r := &storagev1.ListDirectoryRequest{Cid: root, Path: strings.TrimSuffix(inside, "/"),
		PageSize: 1000}
	for range maxPages {
		answer, err := l.Storage.ListDirectory(ctx, r)
		if err != nil {
			return err
		}
		for _, e := range answer.GetEntries() {
			entries = append(entries, folderEntry{
				Name: screen.Clean(e.GetName()), CID: screen.Clean(e.GetCid()), Size: e.GetSize(),
				Kind: reasonText(e.GetKind().String(), "ENTRY_KIND_"),
				Mode: fmt.Sprintf("%04o", e.GetMode()),
			})
		}
		if r.PageToken = answer.GetNextPageToken(); r.PageToken == "" {
			break
		}
	}
	return a.emit(entries, func(w io.Writer) {
		if len(entries) == 0 {
			printf(w, "the folder is empty\n")
			return
		}
		printf(w, "MODE\tSIZE\tNAME\tCID\n")
		for _, e := range entries {
			name := e.Name
			if e.Kind == "directory" {
				name += "/"
			}
			printf(w, "%s\t%s\t%s\t%s\n", e.Mode, screen.Bytes(e.Size), name, e.CID)
		}
	})
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
				printf(w, "cid\t%s\nsize\t%s (%s)\nkind\t%s\nname\t%s\njob\t%s\n", screen.Clean(f.CID),
					screen.Bytes(f.Size), many(f.Size, "byte"), f.Kind,
					first(screen.Clean(f.Name), "-"), first(screen.Clean(f.Job), "-"))
				printf(w, "created\t%s\n", stamp(f.Created))
			})
		}),
	}
}

func (a *app) fileRemove() *cobra.Command {
	return &cobra.Command{
		Use: "rm CID...", Short: "Let go of files; their bytes go when nobody holds them",
		Long: `Let go of files; their bytes go when nobody holds them.

Of several files those go that may; the first that stays is named with the reason. Name a directory
before what is in it. Storage counts a thousand files of one command as one change of the account.`,
		Example: "  ucn file rm bafkr4i...", Args: args(cobra.MinimumNArgs(1)),
		RunE: a.session(withKey, func(ctx context.Context, l *link, list []string) error {
			for _, name := range list {
				if _, err := cid.Parse(name); err != nil {
					return usage(err)
				}
			}
			if err := removeFiles(ctx, l, list); err != nil {
				return err
			}
			return a.emit(map[string][]string{"removed": list}, func(w io.Writer) {
				printf(w, "removed %s\n", strings.Join(list, " "))
			})
		}),
	}
}

// mostRemoved is how many references one call may end.
const mostRemoved = 1000

// removeFiles ends references, in as few calls as may be, so that many do not use up the account's
// share of events. What may go goes; of the first that stays the refusal is returned.
func removeFiles(ctx context.Context, l *link, names []string) error {
	stay := names // one alone needs no call that could end several
	if len(names) > 1 {
		stay = nil
		for some := range slices.Chunk(names, mostRemoved) {
			done, err := l.Storage.RemoveMany(ctx, &storagev1.RemoveManyRequest{Cids: some})
			if err != nil {
				return err
			}
			for _, k := range done.GetKept() {
				stay = append(stay, k.GetCid())
			}
		}
	}
	for _, name := range stay {
		if _, err := l.Storage.Remove(ctx, &storagev1.RemoveRequest{Cid: name}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
