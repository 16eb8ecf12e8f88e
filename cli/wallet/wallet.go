// Package wallet keeps the keys of a user's accounts as files in one folder, one per name, in the
// form of kit/keys: encrypted with a passphrase, or plain for machines that nobody watches over.
//
// A key that was written is never overwritten here: losing it loses the account.
package wallet

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/keys"
)

// Suffix of the files.
const Suffix = ".key"

// MaxName bounds the name of a wallet, in bytes; MaxWallets how many a folder lists.
const (
	MaxName    = 64
	MaxWallets = 10_000
)

// What can be wrong with a wallet, beside the errors of kit/keys.
var (
	ErrName   = errors.New("a wallet's name is 1 to 64 of a-z, 0-9, dash and underscore")
	ErrExists = errors.New("a wallet of this name exists already; it is never overwritten")
	ErrNone   = errors.New("no such wallet; see `ucn wallet list`, or make it: `ucn wallet new`")
	ErrMany   = errors.New("too many wallets in the folder")
)

// Wallet is one account's key as its file shows it without the passphrase.
type Wallet struct {
	Name      string
	Account   sig.AccountID
	Key       sig.PublicKey
	Encrypted bool
}

// Folder is where wallets are: <data>/wallets.
type Folder struct{ Dir string }

// In returns the folder of wallets of a data folder.
func In(data string) Folder { return Folder{filepath.Join(data, "wallets")} }

// Path returns the file of a wallet. Errors: ErrName.
func (f Folder) Path(name string) (string, error) {
	ok := name != "" && len(name) <= MaxName &&
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_") == "" && name[0] != '-'
	if !ok {
		return "", fmt.Errorf("wallet %.80q: %w", name, ErrName)
	}
	return filepath.Join(f.Dir, name+Suffix), nil
}

// List returns the wallets by name, and an error that joins those of files that cannot be read.
func (f Folder) List() ([]Wallet, error) {
	entries, err := os.ReadDir(f.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("list wallets: %w", err)
	}
	if len(entries) > MaxWallets {
		return nil, fmt.Errorf("list wallets: %w: %d files", ErrMany, len(entries))
	}
	var list []Wallet
	var errs []error
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), Suffix)
		if !ok {
			continue
		}
		w, err := f.Get(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, w)
	}
	slices.SortFunc(list, func(a, b Wallet) int { return strings.Compare(a.Name, b.Name) })
	return list, errors.Join(errs...)
}

// Get returns a wallet without opening it. Errors wrap ErrName, ErrNone, or kit/keys'.
func (f Folder) Get(name string) (Wallet, error) {
	stored, err := f.read(name)
	if err != nil {
		return Wallet{}, err
	}
	return show(name, stored), nil
}

func show(name string, stored *keys.Stored) Wallet {
	key := sig.PublicKey(stored.Public())
	return Wallet{
		Name: name, Key: key, Account: sig.AccountOfKey(key), Encrypted: stored.Encrypted(),
	}
}

func (f Folder) read(name string) (*keys.Stored, error) {
	path, err := f.Path(name)
	if err != nil {
		return nil, err
	}
	stored, err := keys.Read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("wallet %q: %w", name, ErrNone)
	case err != nil:
		return nil, fmt.Errorf("wallet %q: %w", name, err)
	case stored.Kind() != keys.KindSigning:
		return nil, fmt.Errorf("wallet %q: %w: it is a %s", name, keys.ErrKind, stored.Kind())
	}
	return stored, nil
}

// Open returns a wallet's key. passphrase is asked only for an encrypted one.
func (f Folder) Open(name string, passphrase func() ([]byte, error)) (sig.PrivateKey, error) {
	stored, err := f.read(name)
	if err != nil {
		return sig.PrivateKey{}, err
	}
	return open(name, stored, passphrase)
}

func open(
	name string, stored *keys.Stored, passphrase func() ([]byte, error),
) (sig.PrivateKey, error) {
	var secret []byte
	var err error
	if stored.Encrypted() {
		if secret, err = passphrase(); err != nil {
			return sig.PrivateKey{}, fmt.Errorf("wallet %q: %w", name, err)
		}
	}
	key, err := stored.Signing(secret)
	if err != nil {
		return sig.PrivateKey{}, fmt.Errorf("wallet %q: %w", name, err)
	}
	return key, nil
}

// Create makes a wallet with a new key, encrypted unless the passphrase is empty. When it returns
// without error the key is durable. Errors wrap ErrName or ErrExists.
func (f Folder) Create(name string, passphrase []byte) (Wallet, error) {
	key, err := sig.NewPrivateKey(rand.Reader)
	if err != nil {
		return Wallet{}, fmt.Errorf("make a key: %w", err)
	}
	return f.put(name, key, passphrase)
}

// Import keeps a key that was exported, under a name that is free, encrypted with newPass unless it
// is empty.
func (f Folder) Import(
	name string, text []byte, oldPass, newPass func() ([]byte, error),
) (Wallet, error) {
	if path, err := f.Path(name); err != nil {
		return Wallet{}, err
	} else if _, err := os.Lstat(path); err == nil {
		return Wallet{}, fmt.Errorf("wallet %q: %w", name, ErrExists)
	}
	stored, err := keys.Parse(text)
	if err != nil {
		return Wallet{}, fmt.Errorf("import wallet: %w", err)
	}
	key, err := open(name, stored, oldPass)
	if err != nil {
		return Wallet{}, err
	}
	secret, err := newPass()
	if err != nil {
		return Wallet{}, err
	}
	return f.put(name, key, secret)
}

// Export returns the text of a wallet's key, encrypted with newPass unless it is empty.
func (f Folder) Export(name string, oldPass, newPass func() ([]byte, error)) ([]byte, error) {
	key, err := f.Open(name, oldPass)
	if err != nil {
		return nil, err
	}
	secret, err := newPass()
	if err != nil {
		return nil, err
	}
	return keys.EncodeSigning(key, secret)
}

func (f Folder) put(name string, key sig.PrivateKey, passphrase []byte) (Wallet, error) {
	path, err := f.Path(name)
	if err != nil {
		return Wallet{}, err
	}
	text, err := keys.EncodeSigning(key, passphrase)
	if err != nil {
		return Wallet{}, err
	}
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return Wallet{}, fmt.Errorf("make the folder of wallets: %w", err)
	}
	switch err := keys.Create(path, text); {
	case errors.Is(err, fs.ErrExist):
		return Wallet{}, fmt.Errorf("wallet %q: %w", name, ErrExists)
	case err != nil:
		return Wallet{}, fmt.Errorf("wallet %q: %w", name, err)
	}
	return Wallet{
		Name: name, Key: key.Public(), Account: sig.AccountOfKey(key.Public()),
		Encrypted: len(passphrase) > 0,
	}, nil
}
