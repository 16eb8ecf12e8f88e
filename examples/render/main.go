// Command render draws a picture of a container yard at dusk by path tracing and writes it as a
// PNG. It is the program of `make demo`: static, no network, one file out, progress on standard
// output. The same flags give the same picture, byte for byte, on every machine of one
// architecture.
package main

import (
	"flag"
	"fmt"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Bounds of the flags, so that a slip of the finger does not cost an escrow.
const (
	maxSide    = 8192
	maxSamples = 4096
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("render", flag.ContinueOnError)
	width := flags.Int("width", 960, "pixels")
	height := flags.Int("height", 540, "pixels")
	samples := flags.Int("samples", 24, "light paths per pixel")
	out := flags.String("out", "/out/picture.png", "where the picture goes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *width < 1 || *height < 1 || *width > maxSide || *height > maxSide {
		return fmt.Errorf("size %dx%d: each side must be 1 to %d", *width, *height, maxSide)
	}
	if *samples < 1 || *samples > maxSamples {
		return fmt.Errorf("samples %d: must be 1 to %d", *samples, maxSamples)
	}
	start := time.Now()
	fmt.Fprintf(stdout, "rendering %dx%d, %d light paths per pixel\n", *width, *height, *samples)
	picture := Render(Yard(), *width, *height, *samples, func(done, of int) {
		fmt.Fprintf(stdout, "%3d%%  row %d of %d\n", done*100/of, done, of)
	})
	if err := os.MkdirAll(filepath.Dir(*out), 0o755); err != nil {
		return fmt.Errorf("make the output folder: %w", err)
	}
	file, err := os.Create(*out)
	if err != nil {
		return fmt.Errorf("create the picture: %w", err)
	}
	if err := png.Encode(file, picture); err != nil {
		file.Close()
		return fmt.Errorf("encode the picture: %w", err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("write the picture: %w", err)
	}
	fmt.Fprintf(stdout, "wrote %s in %.1f s\n", *out, time.Since(start).Seconds())
	return nil
}
