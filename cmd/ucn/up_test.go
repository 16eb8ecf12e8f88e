package main

import (
	"bytes"
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
	sized := file("registries: {max_unpacked: 200MiB}\ncors_origins: [\"http://a\"]\n")
	cmd := &cobra.Command{}
	cfg, err := (&upFlags{file: sized, cors: []string{"http://localhost:*"}}).config(cmd)
	if err != nil || cfg.Registries.MaxUnpacked != 200<<20 || len(cfg.CORSOrigins) != 1 ||
		cfg.CORSOrigins[0] != "http://localhost:*" {
		t.Errorf("%+v, %v", cfg, err)
	}
	bad := file("registries: {max_unpacked: -1}\n")
	cmd.Flags().String("data", "/of/env", "")
	if _, err := (&upFlags{file: bad}).config(cmd); err == nil {
		t.Error("a negative bound is taken")
	}
}

// TestDefaults: what --defaults prints is a configuration that says the same.
func TestDefaults(t *testing.T) {
	cmd := upCommand()
	out := &bytes.Buffer{}
	cmd.SetOut(out)
	cmd.SetArgs([]string{"--defaults", "--cors", "http://localhost:*"})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "net.yaml")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := (&upFlags{file: path}).config(&cobra.Command{})
	if err != nil || len(got.Executors) != 3 || len(got.CORSOrigins) != 1 {
		t.Errorf("%+v, %v of\n%s", got, err, out)
	}
}
