package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/cli/screen"
	"github.com/united-containers/ucn/kit/cid"
	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
)

// eachFile makes a command that does one thing to each CID given.
func (a *app) eachFile(cmd *cobra.Command, done string,
	do func(ctx context.Context, l *link, name string) error) *cobra.Command {
	cmd.Args = args(cobra.MinimumNArgs(1))
	cmd.RunE = a.session(withKey, func(ctx context.Context, l *link, list []string) error {
		for _, name := range list {
			if _, err := cid.Parse(name); err != nil {
				return usage(err)
			}
			if err := do(ctx, l, name); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return a.emit(map[string][]string{done: list}, func(w io.Writer) {
			printf(w, "%s %s\n", done, strings.Join(list, " "))
		})
	})
	return cmd
}

func (a *app) filePin() *cobra.Command {
	return a.eachFile(&cobra.Command{
		Use: "pin CID...", Short: "Keep files from expiry and removal until unpin",
		Example: "  ucn file pin bafkr4i...",
	}, "pinned", func(ctx context.Context, l *link, name string) error {
		_, err := l.Storage.Pin(ctx, &storagev1.PinRequest{Cid: name})
		return err
	})
}

func (a *app) fileUnpin() *cobra.Command {
	return a.eachFile(&cobra.Command{
		Use: "unpin CID...", Short: "End a pin", Example: "  ucn file unpin bafkr4i...",
	}, "unpinned", func(ctx context.Context, l *link, name string) error {
		_, err := l.Storage.Unpin(ctx, &storagev1.UnpinRequest{Cid: name})
		return err
	})
}

func (a *app) fileExpire() *cobra.Command {
	in := time.Duration(0)
	cmd := a.eachFile(&cobra.Command{
		Use: "expire CID...", Short: "Say when files end by themselves",
		Example: "  ucn file expire bafkr4i... --in 720h\n  ucn file expire bafkr4i... --in 0",
	}, "set", func(ctx context.Context, l *link, name string) error {
		r := &storagev1.SetExpiryRequest{Cid: name}
		if in < 0 {
			return usagef("--in is %v, not negative", in)
		}
		if in > 0 {
			r.ExpiresMs = uint64(l.Now().Add(in).UnixMilli())
		}
		_, err := l.Storage.SetExpiry(ctx, r)
		return err
	})
	cmd.Flags().DurationVar(&in, "in", 0, "after how long, such as 720h; 0 is never")
	return cmd
}

type uploadResult struct {
	Upload  string `json:"upload"`
	CID     string `json:"cid,omitempty"` // that was announced
	Name    string `json:"name,omitempty"`
	Offset  uint64 `json:"offset"`
	Size    uint64 `json:"size,omitempty"` // that was announced
	Created uint64 `json:"created_ms"`
	Expires uint64 `json:"expires_ms"`
}

func (a *app) fileUploads() *cobra.Command {
	abort := []string{}
	cmd := &cobra.Command{
		Use: "uploads", Short: "List uploads that were interrupted, or give them up",
		Long: `List the account's uploads that are not finished. Repeating the command that began one
goes on with it; it ends by itself when nothing comes for a day. Until then it counts against the
quota. --abort gives one up.`,
		Example: "  ucn file uploads\n  ucn file uploads --abort ID", Args: args(cobra.NoArgs),
		RunE: a.session(withKey, func(ctx context.Context, l *link, _ []string) error {
			for _, one := range abort {
				r := &storagev1.AbortUploadRequest{Upload: one}
				if _, err := l.Storage.AbortUpload(ctx, r); err != nil {
					return fmt.Errorf("%s: %w", screen.Clean(one), err)
				}
			}
			answer, err := l.Storage.ListUploads(ctx, &storagev1.ListUploadsRequest{})
			if err != nil {
				return err
			}
			uploads := []uploadResult{}
			for _, u := range answer.GetUploads() {
				h := u.GetHeader()
				uploads = append(uploads, uploadResult{
					u.GetId(), h.GetExpectedCid(), screen.Clean(h.GetName()), u.GetOffset(),
					h.GetSize(), u.GetCreatedMs(), u.GetExpiresMs(),
				})
			}
			return a.emit(uploads, func(w io.Writer) { printUploads(w, uploads) })
		}),
	}
	cmd.Flags().StringArrayVar(&abort, "abort", nil, "give this upload up; may be repeated")
	return cmd
}

func printUploads(w io.Writer, uploads []uploadResult) {
	if len(uploads) == 0 {
		printf(w, "no upload is under way\n")
		return
	}
	printf(w, "UPLOAD\tHAS\tOF\tBEGAN\tENDS\tNAME\n")
	for _, u := range uploads {
		size := "-"
		if u.Size > 0 {
			size = screen.Bytes(u.Size)
		}
		printf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", screen.Clean(u.Upload), screen.Bytes(u.Offset), size,
			stamp(u.Created), stamp(u.Expires), u.Name)
	}
}

type usageResult struct {
	Bytes       uint64 `json:"bytes"`
	Blobs       uint64 `json:"blobs"`
	QuotaBytes  uint64 `json:"quota_bytes"`
	QuotaBlobs  uint64 `json:"quota_blobs"`
	PinnedBytes uint64 `json:"pinned_bytes"`
	PinnedBlobs uint64 `json:"pinned_blobs"`
	Uploads     uint64 `json:"uploads"`
	UploadBytes uint64 `json:"upload_bytes"`
	MaxBlob     uint64 `json:"max_blob"`
}

func (a *app) fileUsage() *cobra.Command {
	return &cobra.Command{
		Use: "usage", Short: "Show how much the account holds and may hold",
		Example: "  ucn file usage --json", Args: args(cobra.NoArgs),
		RunE: a.session(withKey, func(ctx context.Context, l *link, _ []string) error {
			u, err := l.Storage.Usage(ctx, &storagev1.UsageRequest{})
			if err != nil {
				return err
			}
			r := usageResult{
				u.GetBytes(), u.GetBlobs(), u.GetQuotaBytes(), u.GetQuotaBlobs(), u.GetPinnedBytes(),
				u.GetPinnedBlobs(), u.GetUploads(), u.GetUploadBytes(), u.GetMaxBlob(),
			}
			return a.emit(r, func(w io.Writer) {
				printf(w, "held\t%s of %s in %d of %d files\n", screen.Bytes(r.Bytes),
					screen.Bytes(r.QuotaBytes), r.Blobs, r.QuotaBlobs)
				printf(w, "pinned\t%s in %d files\n", screen.Bytes(r.PinnedBytes), r.PinnedBlobs)
				printf(w, "uploads\t%d under way, %s\nlargest file\t%s\n", r.Uploads,
					screen.Bytes(r.UploadBytes), screen.Bytes(r.MaxBlob))
			})
		}),
	}
}
