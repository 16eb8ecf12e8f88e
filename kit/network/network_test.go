package network_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/network"
)

func sample() network.File {
	return network.File{
		API: "127.0.0.1:7600", REST: "http://127.0.0.1:7680", Bus: "nats://127.0.0.1:7622",
		Console: "http://127.0.0.1:7680/", Chain: "main", Anchor: strings.Repeat("ab", 32),
		Operator: id.Bech32(id.Account, [32]byte{7}), Genesis: "genesis.bin", PID: 42,
		Services: map[string]string{"storage": "127.0.0.1:7601"},
	}
}

func TestSaveLoad(t *testing.T) {
	path := network.Path(t.TempDir())
	if _, err := network.Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("missing file: %v", err)
	}
	for range 2 { // the second replaces the first
		if err := network.Save(path, sample()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := network.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := sample()
	want.Genesis = filepath.Join(filepath.Dir(path), "genesis.bin")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	good := `{"api":"h:1","chain":"main","anchor":"` + strings.Repeat("ab", 32) +
		`","operator":"` + sample().Operator + `"`
	tests := map[string]string{
		"unknown field": good + `,"apy":"x"}`, "two objects": good + `} {}`, "cut": good,
		"bad anchor":  strings.Replace(good, "abab", "ab", 1) + "}",
		"bad api":     strings.Replace(good, "h:1", "h", 1) + "}",
		"bad bus":     good + `,"bus":"127.0.0.1:7622"}`,
		"bad chain":   strings.Replace(good, `"main"`, `"Main"`, 1) + "}",
		"an escrow":   strings.Replace(good, "ucn1", "ucne1", 1) + "}",
		"bad service": good + `,"services":{"storage":"here"}}`,
		"negative":    good + `,"pid":-1}`,
		"too long":    good + `}` + strings.Repeat(" ", network.MaxSize),
	}
	path := network.Path(t.TempDir())
	for name, text := range tests {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := network.Load(path); !errors.Is(err, network.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if err := os.WriteFile(path, []byte(good+"}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := network.Load(path); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func TestSaveRefusesWhatLoadWould(t *testing.T) {
	f := sample()
	f.Operator = "nobody"
	path := network.Path(t.TempDir())
	if err := network.Save(path, f); !errors.Is(err, network.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file is there: %v", err)
	}
}

func TestAddr(t *testing.T) {
	f := sample()
	if a, b := f.Addr("storage"), f.Addr("ledger"); a != "127.0.0.1:7601" || b != f.API {
		t.Errorf("storage at %s, ledger at %s", a, b)
	}
}
