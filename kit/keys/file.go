package keys

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/durable"
)

const othersBits = 0o077

// Create writes the text of a key to a new file with mode 0600, durably: when it returns nil the
// file survives a power failure; else there is none or all of it. It fails with fs.ErrExist if
// there is one already, whatever it holds. The folder must exist.
func Create(path string, text []byte) error { return write(path, text, durable.Create) }

// Replace is Create for a file that may exist: path holds the old key or the new one, never less.
func Replace(path string, text []byte) error { return write(path, text, durable.Replace) }

func write(path string, text []byte, how func(string, []byte, fs.FileMode) error) error {
	if _, err := Parse(text); err != nil {
		return fmt.Errorf("write key %s: %w", path, err)
	}
	return how(path, text, durable.Private)
}

// Read reads a key file. A plain key that others may read is refused: they may have taken it.
func Read(path string) (*Stored, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	info, err := f.Stat()
	text, readErr := io.ReadAll(io.LimitReader(f, MaxText+1))
	if err := errors.Join(err, readErr, f.Close()); err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	s, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	if !s.Encrypted() && info.Mode().Perm()&othersBits != 0 {
		return nil, fmt.Errorf("read key %s: others may read it (mode %04o): if nobody has, "+
			"chmod 600 it: %w", path, info.Mode().Perm(), fs.ErrPermission)
	}
	return s, nil
}

// LoadOrCreateSigning reads the plain signing key at path, or makes one there. For keys of
// instances, which must start without a person.
func LoadOrCreateSigning(path string) (sig.PrivateKey, error) {
	s, err := loadOrCreate(path, func() ([]byte, error) {
		key, err := sig.NewPrivateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		return EncodeSigning(key, nil)
	})
	if err != nil {
		return sig.PrivateKey{}, err
	}
	key, err := s.Signing(nil)
	if err != nil {
		return sig.PrivateKey{}, fmt.Errorf("key %s: %w", path, err)
	}
	return key, nil
}

// LoadOrCreateSealing is LoadOrCreateSigning for a sealing key.
func LoadOrCreateSealing(path string) (SealKey, error) {
	s, err := loadOrCreate(path, func() ([]byte, error) {
		key, err := NewSealKey()
		if err != nil {
			return nil, err
		}
		return EncodeSealing(key, nil)
	})
	if err != nil {
		return SealKey{}, err
	}
	key, err := s.Sealing(nil)
	if err != nil {
		return SealKey{}, fmt.Errorf("key %s: %w", path, err)
	}
	return key, nil
}

// loadOrCreate always returns what the file holds, so that two processes that race agree.
func loadOrCreate(path string, create func() ([]byte, error)) (*Stored, error) {
	s, err := Read(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	text, err := create()
	if err != nil {
		return nil, fmt.Errorf("make key %s: %w", path, err)
	}
	if err := Create(path, text); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return Read(path)
}
