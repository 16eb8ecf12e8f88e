package keys_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/keys"
)

// signing returns the key whose seed is n repeated.
func signing(n byte) sig.PrivateKey { return sig.FromSeed([32]byte(bytes.Repeat([]byte{n}, 32))) }

func encoded(t testing.TB, key sig.PrivateKey, passphrase string) []byte {
	t.Helper()
	text, err := keys.EncodeSigning(key, []byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestSigningKeyRoundTrip(t *testing.T) {
	for _, passphrase := range []string{"", "correct horse"} {
		key := signing(7)
		text := encoded(t, key, passphrase)
		stored, err := keys.Parse(append([]byte("\n  "), text...))
		if err != nil {
			t.Fatal(err)
		}
		if stored.Kind() != keys.KindSigning || stored.Encrypted() != (passphrase != "") ||
			stored.Public() != [32]byte(key.Public()) {
			t.Errorf("stored %+v", stored)
		}
		got, err := stored.Signing([]byte(passphrase))
		if err != nil || got != key {
			t.Errorf("passphrase %q: %v", passphrase, err)
		}
		if _, err := stored.Sealing(nil); !errors.Is(err, keys.ErrKind) {
			t.Errorf("opened as a sealing key: %v", err)
		}
	}
	if again := encoded(t, signing(7), "correct horse"); bytes.Equal(again,
		encoded(t, signing(7), "correct horse")) {
		t.Error("two encryptions of one key are equal: salt or nonce is not random")
	}
}

func TestSealingKeyRoundTrip(t *testing.T) {
	key, err := keys.NewSealKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, passphrase := range []string{"", "correct horse"} {
		text, err := keys.EncodeSealing(key, []byte(passphrase))
		if err != nil {
			t.Fatal(err)
		}
		stored, err := keys.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := stored.Sealing([]byte(passphrase)); err != nil || got != key {
			t.Errorf("passphrase %q: %v", passphrase, err)
		}
	}
}

func TestWrongPassphraseAndTampering(t *testing.T) {
	text := encoded(t, signing(7), "correct horse")
	stored, err := keys.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stored.Signing([]byte("battery")); !errors.Is(err, keys.ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if _, err := stored.Signing(nil); !errors.Is(err, keys.ErrEncrypted) {
		t.Errorf("no passphrase: %v", err)
	}
	block, _ := pem.Decode(text)
	for _, at := range []int{3, 44, 60, len(block.Bytes) - 1} { // public, salt, nonce, tag
		changed := change(block, at, block.Bytes[at]^1)
		stored, err := keys.Parse(changed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stored.Signing([]byte("correct horse")); !errors.Is(err, keys.ErrPassphrase) {
			t.Errorf("byte %d changed: %v", at, err)
		}
	}
}

// change returns the text of a block with one byte set.
func change(block *pem.Block, at int, to byte) []byte {
	body := bytes.Clone(block.Bytes)
	body[at] = to
	return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: body})
}

func TestParseRefuses(t *testing.T) {
	plain, _ := pem.Decode(encoded(t, signing(7), ""))
	locked, _ := pem.Decode(encoded(t, signing(7), "x"))
	whole := pem.EncodeToMemory(plain)
	cases := []struct {
		name string
		text []byte
		want error
	}{
		{"empty", nil, keys.ErrMalformed},
		{"text before", append([]byte("hello\n"), whole...), keys.ErrMalformed},
		{"two blocks", append(bytes.Clone(whole), whole...), keys.ErrMalformed},
		{"headers", pem.EncodeToMemory(&pem.Block{Type: plain.Type, Bytes: plain.Bytes,
			Headers: map[string]string{"A": "b"}}), keys.ErrMalformed},
		{"another type", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY",
			Bytes: plain.Bytes}), keys.ErrMalformed},
		{"short", pem.EncodeToMemory(&pem.Block{Type: plain.Type,
			Bytes: plain.Bytes[:20]}), keys.ErrMalformed},
		{"cut", pem.EncodeToMemory(&pem.Block{Type: plain.Type,
			Bytes: plain.Bytes[:66]}), keys.ErrMalformed},
		{"newer", change(plain, 0, 2), keys.ErrVersion},
		{"version 0", change(plain, 0, 0), keys.ErrMalformed},
		{"unknown kind", change(plain, 1, 3), keys.ErrMalformed},
		{"unknown protection", change(plain, 2, 2), keys.ErrMalformed},
		{"huge", bytes.Repeat([]byte("x"), keys.MaxText+1), keys.ErrMalformed},
		{"hostile time", change(locked, 35, 0xff), keys.ErrMalformed},
		{"hostile memory", change(locked, 39, 0xff), keys.ErrMalformed},
		{"no threads", change(locked, 43, 0), keys.ErrMalformed},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if _, err := keys.Parse(c.text); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
	stored, err := keys.Parse(change(plain, 40, plain.Bytes[40]^1)) // a mistyped secret
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stored.Signing(nil); !errors.Is(err, keys.ErrMalformed) {
		t.Errorf("secret and public key differ: %v", err)
	}
}

func TestKeysNeverPrintThemselves(t *testing.T) {
	key, err := keys.NewSealKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if got := fmt.Sprintf(verb, key); got != "sealing key" {
			t.Errorf("%s prints %q", verb, got)
		}
	}
}

func TestCreateNeverReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	first, second := encoded(t, signing(1), ""), encoded(t, signing(2), "")
	if err := keys.Create(path, first); err != nil {
		t.Fatal(err)
	}
	if err := keys.Create(path, second); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Create: %v", err)
	}
	wantFile(t, path, first)
	if err := keys.Replace(path, second); err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, second)
	if err := keys.Replace(path, []byte("no key")); !errors.Is(err, keys.ErrMalformed) {
		t.Errorf("Replace by nonsense: %v", err)
	}
	wantFile(t, path, second)
	if err := keys.Create(filepath.Join(path, "x", "y"), first); err == nil {
		t.Error("Create in a folder that is not there succeeded")
	}
}

// wantFile checks content, mode, and that no temporary file is left beside it.
func wantFile(t *testing.T, path string, content []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("file holds %q, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("folder holds %v, %v", entries, err)
	}
}

func TestReadRefusesWhatOthersMayRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	for _, c := range []struct {
		passphrase string
		want       error
	}{{"", fs.ErrPermission}, {"locked", nil}} {
		if err := os.WriteFile(path, encoded(t, signing(1), c.passphrase), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := keys.Read(path); !errors.Is(err, c.want) {
			t.Errorf("passphrase %q: error %v, want %v", c.passphrase, err, c.want)
		}
	}
	if _, err := keys.Read(path + ".none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), keys.MaxText*2), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Read(path); !errors.Is(err, keys.ErrMalformed) {
		t.Errorf("huge: %v", err)
	}
}

func TestLoadOrCreateAgreesWhenRacing(t *testing.T) {
	dir := t.TempDir()
	const racers = 8
	var signers [racers]sig.PublicKey
	var sealers [racers]keys.SealPublic
	var all sync.WaitGroup
	for i := range racers {
		all.Go(func() {
			key, err := keys.LoadOrCreateSigning(filepath.Join(dir, "signing"))
			seal, sealErr := keys.LoadOrCreateSealing(filepath.Join(dir, "sealing"))
			if err := errors.Join(err, sealErr); err != nil {
				t.Error(err)
				return
			}
			signers[i], sealers[i] = key.Public(), seal.Public()
		})
	}
	all.Wait()
	for i := range racers {
		if signers[i] != signers[0] || sealers[i] != sealers[0] {
			t.Fatal("two processes made two keys of one file")
		}
	}
	if _, err := keys.LoadOrCreateSigning(filepath.Join(dir, "sealing")); !errors.Is(err,
		keys.ErrKind) {
		t.Errorf("wrong kind: %v", err)
	}
	locked := filepath.Join(dir, "locked")
	if err := keys.Create(locked, encoded(t, signing(1), "x")); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.LoadOrCreateSigning(locked); !errors.Is(err, keys.ErrEncrypted) {
		t.Errorf("encrypted: %v", err)
	}
}

func TestSeal(t *testing.T) {
	key, err := keys.NewSealKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := keys.NewSealKey()
	if err != nil {
		t.Fatal(err)
	}
	plaintext := []byte("DB_PASSWORD=hunter2")
	sealed, err := keys.Seal(key.Public(), "ucn/secret/v1", plaintext)
	if err != nil || len(sealed) != len(plaintext)+keys.SealOverhead {
		t.Fatalf("%d bytes, %v", len(sealed), err)
	}
	got, err := keys.Open(key, "ucn/secret/v1", sealed)
	if err != nil || !bytes.Equal(got, plaintext) {
		t.Errorf("opened %q, %v", got, err)
	}
	empty, err := keys.Seal(key.Public(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := keys.Open(key, "", empty); err != nil || len(got) != 0 {
		t.Errorf("empty text: %q, %v", got, err)
	}
	flipped := bytes.Clone(sealed)
	flipped[40] ^= 1
	for name, open := range map[string]func() ([]byte, error){
		"another key":  func() ([]byte, error) { return keys.Open(other, "ucn/secret/v1", sealed) },
		"zero key":     func() ([]byte, error) { return keys.Open(keys.SealKey{}, "", sealed) },
		"another info": func() ([]byte, error) { return keys.Open(key, "x", sealed) },
		"changed":      func() ([]byte, error) { return keys.Open(key, "ucn/secret/v1", flipped) },
		"cut":          func() ([]byte, error) { return keys.Open(key, "x", sealed[:47]) },
		"empty":        func() ([]byte, error) { return keys.Open(key, "x", nil) },
	} {
		if got, err := open(); !errors.Is(err, keys.ErrSealed) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := keys.Seal(keys.SealPublic{}, "x", nil); !errors.Is(err, keys.ErrSealPublic) {
		t.Errorf("sealed to a key of small order: %v", err)
	}
}

// sets is a Sets with one answer.
type sets struct {
	set sig.KeySet
	err error
}

func (s sets) KeySet(context.Context, string, sig.AccountID) (sig.KeySet, error) {
	return s.set, s.err
}

func TestSignedByAnAccount(t *testing.T) {
	old := keys.SingleSigner(signing(1))
	changed := keys.Signer{
		Account: old.Account, Set: sig.SingleKey(signing(2).Public()),
		Keys: []sig.PrivateKey{signing(2)},
	}
	three, err := sig.NewKeySet(2, signing(3).Public(), signing(4).Public(), signing(5).Public())
	if err != nil {
		t.Fatal(err)
	}
	twoOfThree := keys.Signer{
		Account: sig.AccountOf(three), Set: three,
		Keys: []sig.PrivateKey{signing(5), signing(3)},
	}
	stranger := keys.SingleSigner(signing(9))
	unknown := errors.New("ledger is away")
	cases := []struct {
		name   string
		signer keys.Signer
		as     sig.AccountID
		sets   keys.Sets
		want   error
	}{
		{"first set, no chain asked", old, old.Account, nil, nil},
		{"first set, chain holds none", old, old.Account, sets{}, nil},
		{"first set, chain holds it", old, old.Account, sets{set: old.Set}, nil},
		{"two of three", twoOfThree, twoOfThree.Account, sets{}, nil},
		{"old keys after a change", old, old.Account, sets{set: changed.Set}, keys.ErrRotated},
		{"new keys", changed, old.Account, sets{set: changed.Set}, nil},
		{"new keys, no chain asked", changed, old.Account, nil, sig.ErrKeySetMissing},
		{"a stranger", stranger, old.Account, sets{}, sig.ErrKeySetForeign},
		{"a stranger, chain holds a set", stranger, old.Account, sets{set: old.Set},
			sig.ErrKeySetForeign},
		{"chain away", old, old.Account, sets{err: unknown}, keys.ErrLookup},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			body := []byte("body")
			signature, err := c.signer.Sign(sig.DomainToken, body)
			if err != nil {
				t.Fatal(err)
			}
			claim := keys.Signed{
				Chain: "main", Account: c.as, Domain: sig.DomainToken, Body: body,
				Signature: signature,
			}
			if err := claim.Verify(t.Context(), c.sets); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			claim.Body = []byte("bodY")
			if claim.Verify(t.Context(), c.sets) == nil {
				t.Error("another body verified")
			}
			claim.Body, claim.Domain = body, sig.DomainCertificate
			if claim.Verify(t.Context(), c.sets) == nil {
				t.Error("another domain verified")
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(encoded(f, signing(7), ""))
	f.Add(encoded(f, signing(7), "x"))
	f.Add([]byte("-----BEGIN UCN KEY-----\nAQE=\n-----END UCN KEY-----"))
	f.Fuzz(func(t *testing.T, text []byte) {
		stored, err := keys.Parse(text)
		if err != nil || stored.Encrypted() || stored.Kind() != keys.KindSigning {
			return
		}
		key, err := stored.Signing(nil)
		if err != nil {
			return
		}
		again, err := keys.Parse(encoded(t, key, ""))
		if err != nil || again.Public() != stored.Public() {
			t.Errorf("read again: %v", err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	key, err := keys.NewSealKey()
	if err != nil {
		f.Fatal(err)
	}
	random := make([]byte, 100)
	if _, err := rand.Read(random); err != nil {
		f.Fatal(err)
	}
	f.Add(random)
	f.Add([]byte(strings.Repeat("\x00", 48)))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if got, err := keys.Open(key, "info", sealed); err == nil {
			t.Errorf("forged %x opens as %x", sealed, got)
		}
	})
}
