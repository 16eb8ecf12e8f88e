package main

import (
	"bytes"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRunWritesAPicture(t *testing.T) {
	out := filepath.Join(t.TempDir(), "deep", "picture.png")
	var log strings.Builder
	args := []string{"-width", "64", "-height", "36", "-samples", "2", "-out", out}
	if err := run(args, &log); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(first))
	if err != nil {
		t.Fatal(err)
	}
	if size := picture.Bounds().Size(); size.X != 64 || size.Y != 36 {
		t.Errorf("picture is %v, want 64x36", size)
	}
	colours := map[[3]uint32]bool{}
	for y := range 36 {
		for x := range 64 {
			r, g, b, _ := picture.At(x, y).RGBA()
			colours[[3]uint32{r, g, b}] = true
		}
	}
	if len(colours) < 200 {
		t.Errorf("picture has %d colours: it shows nothing", len(colours))
	}
	if got := log.String(); !strings.Contains(got, "100%  row 36 of 36") {
		t.Errorf("progress %q does not reach 100%%", got)
	}
	if err := run(args, &log); err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("the same flags gave two pictures")
	}
}

func TestRunRefuses(t *testing.T) {
	for _, args := range [][]string{
		{"-width", "0"}, {"-height", "8193"}, {"-samples", "0"}, {"-samples", "4097"}, {"-colour"},
	} {
		out := filepath.Join(t.TempDir(), "picture.png")
		if err := run(append(args, "-out", out), &strings.Builder{}); err == nil {
			t.Errorf("run(%v) succeeded", args)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("run(%v) wrote a file", args)
		}
	}
}
