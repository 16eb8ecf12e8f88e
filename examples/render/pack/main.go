// Command pack makes a container image of one static program: an OCI archive with the program as
// its only file and entry point. The same program gives the same image, byte for byte.
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func main() {
	program := flag.String("program", "", "the static program")
	out := flag.String("out", "image.tar", "the OCI archive to write")
	flag.Parse()
	if err := pack(*program, *out); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func pack(program, out string) error {
	image, err := imageOf(program)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "pack-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("write the layout: %w", err)
	}
	if err := path.AppendImage(image); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	return archive(dir, out)
}

// imageOf builds the image: one layer that holds the program.
func imageOf(program string) (v1.Image, error) {
	body, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("read the program: %w", err)
	}
	name := filepath.Base(program)
	var content bytes.Buffer
	w := tar.NewWriter(&content)
	header := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(body)), Format: tar.FormatPAX}
	if err := w.WriteHeader(header); err != nil {
		return nil, fmt.Errorf("write the layer: %w", err)
	}
	_, err = w.Write(body)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("write the layer: %w", err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, fmt.Errorf("make the layer: %w", err)
	}
	base := mutate.ConfigMediaType(
		mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return nil, fmt.Errorf("add the layer: %w", err)
	}
	return mutate.ConfigFile(image, &v1.ConfigFile{
		Architecture: runtime.GOARCH, OS: "linux",
		Config: v1.Config{Entrypoint: []string{"/" + name}},
		RootFS: configOf(image),
	})
}

func configOf(image v1.Image) v1.RootFS {
	file, err := image.ConfigFile()
	if err != nil {
		return v1.RootFS{}
	}
	return file.RootFS
}

// archive writes the folder as a tar.
func archive(dir, out string) error {
	file, err := os.Create(out)
	if err != nil {
		return fmt.Errorf("create the archive: %w", err)
	}
	w := tar.NewWriter(file)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		header := &tar.Header{Name: filepath.ToSlash(name), Mode: 0o644, Size: int64(len(body))}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, err = w.Write(body)
		return err
	})
	if err := errors.Join(err, w.Close(), file.Close()); err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	return nil
}
