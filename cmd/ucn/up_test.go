package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"
)

// TestDataFolder: the flag counts, then the file, then UCN_DATA (the flag's default), also for a
// file that names no folder.
func TestDataFolder(t *testing.T) {
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "net.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	silent, named := file("registries: {private: true, insecure: [\"127.0.0.1:5000\"]}\n"),
		file("data: /of/file\n")
	for name, tt := range map[string]struct {
		file, flag, want string
	}{
		"nothing":        {"", "", "/of/env"},
		"a silent file":  {silent, "", "/of/env"},
		"a file":         {named, "", "/of/file"},
		"a flag":         {"", "/of/flag", "/of/flag"},
		"a flag, a file": {named, "/of/flag", "/of/flag"},
	} {
		cmd := &cobra.Command{}
		cmd.Flags().String("data", "/of/env", "")
		if tt.flag != "" {
			if err := cmd.Flags().Set("data", tt.flag); err != nil {
				t.Fatal(err)
			}
		}
		cfg, err := (&upFlags{file: tt.file}).config(cmd)
		if err != nil || cfg.Data != tt.want {
			t.Errorf("%s: %q, %v, want %q", name, cfg.Data, err, tt.want)
		}
		if tt.file == silent && (!cfg.Registries.Private || len(cfg.Registries.Insecure) != 1) {
			t.Errorf("registries %+v", cfg.Registries)
		}
	}
	bad := file("registries: {max_unpacked: -1}\n")
	cmd := &cobra.Command{}
	cmd.Flags().String("data", "/of/env", "")
	if _, err := (&upFlags{file: bad}).config(cmd); err == nil {
		t.Error("a negative bound is taken")
	}
}
