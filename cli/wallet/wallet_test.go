package wallet_test

import (
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/cli/wallet"
	"github.com/united-containers/ucn/kit/keys"
)

func pass(text string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(text), nil }
}

func never(t *testing.T) func() ([]byte, error) {
	return func() ([]byte, error) {
		t.Error("a passphrase was asked for")
		return nil, nil
	}
}

func TestFolder(t *testing.T) {
	f := wallet.In(t.TempDir())
	if list, err := f.List(); len(list) != 0 || err != nil {
		t.Fatalf("an empty folder lists %v, %v", list, err)
	}
	plain, err := f.Create("plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := f.Create("secret", []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := f.List()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]wallet.Wallet{plain, secret}, list); diff != "" {
		t.Error(diff)
	}
	if !secret.Encrypted || plain.Encrypted {
		t.Errorf("encrypted: %v, %v", secret.Encrypted, plain.Encrypted)
	}
	if key, err := f.Open("plain", never(t)); err != nil || key.Public() != plain.Key {
		t.Errorf("open plain: %v", err)
	}
	if key, err := f.Open("secret", pass("correct horse")); err != nil ||
		key.Public() != secret.Key {
		t.Errorf("open secret: %v", err)
	}
	if _, err := f.Open("secret", pass("wrong")); !errors.Is(err, keys.ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if _, err := f.Create("plain", nil); !errors.Is(err, wallet.ErrExists) {
		t.Errorf("a second plain: %v", err)
	}
	if again, err := f.Get("plain"); err != nil || again != plain {
		t.Errorf("the first was changed: %v, %v", again, err)
	}
	if _, err := f.Open("other", never(t)); !errors.Is(err, wallet.ErrNone) {
		t.Errorf("an absent one: %v", err)
	}
}

func TestNames(t *testing.T) {
	f := wallet.In(t.TempDir())
	for _, name := range []string{"", "-a", "../x", "a/b", "A", "a b", ".", "ü"} {
		if _, err := f.Create(name, nil); !errors.Is(err, wallet.ErrName) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestExportImport(t *testing.T) {
	f := wallet.In(t.TempDir())
	w, err := f.Create("a", nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := f.Export("a", never(t), pass("out"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Import("a", text, never(t), never(t)); !errors.Is(err, wallet.ErrExists) {
		t.Errorf("import over another: %v", err)
	}
	if _, err := f.Import("b", text, pass("bad"), never(t)); !errors.Is(err, keys.ErrPassphrase) {
		t.Errorf("import with a wrong passphrase: %v", err)
	}
	b, err := f.Import("b", text, pass("out"), pass(""))
	if err != nil || b.Account != w.Account || b.Encrypted {
		t.Errorf("import: %+v, %v", b, err)
	}
	if _, err := f.Import("c", []byte("hello"), never(t), never(t)); !errors.Is(err,
		keys.ErrMalformed) {
		t.Errorf("import of nonsense: %v", err)
	}
}

func TestListTellsOfBrokenFiles(t *testing.T) {
	f := wallet.In(t.TempDir())
	good, err := f.Create("good", nil)
	if err != nil {
		t.Fatal(err)
	}
	path, err := f.Path("bad")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := f.List()
	if !errors.Is(err, keys.ErrMalformed) || len(list) != 1 || list[0] != good {
		t.Errorf("got %v, %v", list, err)
	}
}
