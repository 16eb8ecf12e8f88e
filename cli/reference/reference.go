// Package reference writes the manual of the command line from the commands themselves: Markdown
// pages and man pages (section 1). It promises that the same commands give the same bytes.
package reference

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// Markdown writes a page per command into a folder, which it makes, and returns their names.
func Markdown(root *cobra.Command, dir string) ([]string, error) {
	if err := begin(root, dir); err != nil {
		return nil, err
	}
	if err := doc.GenMarkdownTree(root, dir); err != nil {
		return nil, fmt.Errorf("write the reference: %w", err)
	}
	return names(dir, "*.md")
}

// Man writes a man page per command into a folder, which it makes, and returns their names. date
// is the one on the pages.
func Man(root *cobra.Command, dir string, date time.Time) ([]string, error) {
	if err := begin(root, dir); err != nil {
		return nil, err
	}
	header := &doc.GenManHeader{
		Title: "UCN", Section: "1", Date: &date, Source: "United Container Network",
		Manual: "UCN manual",
	}
	if err := doc.GenManTree(root, header, dir); err != nil {
		return nil, fmt.Errorf("write the man pages: %w", err)
	}
	return names(dir, "*.1")
}

func begin(root *cobra.Command, dir string) error {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	quietly(root)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder of the manual: %w", err)
	}
	return nil
}

// quietly leaves out what differs from build to build and from machine to machine.
func quietly(cmd *cobra.Command) {
	cmd.DisableAutoGenTag = true
	for _, below := range cmd.Commands() {
		quietly(below)
	}
	if f := cmd.PersistentFlags().Lookup("data"); f != nil {
		f.DefValue = "~/.local/share/ucn"
	}
}

func names(dir, pattern string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, pattern))
	for i, path := range paths {
		paths[i] = strings.TrimPrefix(path, dir+string(filepath.Separator))
	}
	return paths, err
}
