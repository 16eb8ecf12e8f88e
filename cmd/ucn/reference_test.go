package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/cli/reference"
)

// TestReferenceIsCurrent keeps docs/cli and the commands together: `make manual` writes it.
func TestReferenceIsCurrent(t *testing.T) {
	const kept = "../../docs/cli"
	dir := t.TempDir()
	pages, err := reference.Markdown(root(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		want, err := os.ReadFile(filepath.Join(dir, page))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(kept, page))
		if diff := cmp.Diff(string(want), string(got)); err != nil || diff != "" {
			t.Errorf("%s: %v; run `make manual`\n%s", page, err, diff)
		}
	}
	held, err := filepath.Glob(filepath.Join(kept, "*.md"))
	if err != nil || len(held) != len(pages) {
		t.Errorf("docs/cli has %d pages, there are %d commands; run `make manual`", len(held),
			len(pages))
	}
}
