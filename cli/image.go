package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/united-containers/ucn/kit/blob"
	"github.com/united-containers/ucn/kit/oci"
)

func (a *app) imageCommand() *cobra.Command {
	return group("image", "Container images", a.imagePush())
}

type imageResult struct {
	CID    string `json:"cid"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	Sent   int64  `json:"sent"`
	Arch   string `json:"arch"`
	Layers int    `json:"layers"`
	Name   string `json:"name"`
}

func (a *app) imagePush() *cobra.Command {
	options := oci.Options{}
	label := ""
	cmd := &cobra.Command{
		Use: "push ARCHIVE|LAYOUT_DIR|NAME", Short: "Push an image and print its CID",
		Long: `Push an image to the network: an OCI or docker archive, an OCI layout folder, or the name
of an image of your podman or docker. A docker archive is converted to OCI; layers that the network
holds for you already are not sent again. The last line of standard output is the CID for
ucn job run.`,
		Example: `  ucn image push localhost/render:latest
  docker save render | ucn image push /dev/stdin
  ucn job run $(ucn image push render.tar)`,
		Args: args(cobra.ExactArgs(1)),
		RunE: a.following(withKey, func(ctx context.Context, l *link, list []string) (err error) {
			image, err := oci.Open(ctx, list[0], options)
			if err != nil {
				return err
			}
			defer func() { _ = image.Close() }() // only read
			if label == "" {
				label = list[0]
			}
			result := imageResult{
				CID: image.Manifest.CID.String(), Digest: image.Manifest.CID.Digest(),
				Size: image.Manifest.Size, Arch: image.Arch, Layers: len(image.Manifest.Layers),
				Name: label,
			}
			bar := a.bar("push", image.Manifest.Size)
			err = blob.New(l.Storage).Push(ctx, image, label,
				func(part oci.Part, s blob.Stored) {
					if !s.Held {
						result.Sent += part.Size
					}
					bar.add(part.Size)
				})
			bar.end()
			if err != nil {
				return err
			}
			return a.emit(result, func(w io.Writer) { printf(w, "%s\n", result.CID) })
		}),
	}
	cmd.Flags().StringVar(&options.Arch, "arch", "", "architecture to take of several (amd64, arm64)")
	cmd.Flags().StringVar(&options.Name, "image", "", "image to take of an archive with several")
	cmd.Flags().StringVar(&label, "name", "", "what it is called in listings")
	return cmd
}
